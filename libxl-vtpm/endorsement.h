/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What identifies a TPM, of the registry, as the control socket tells it (include/control.h). */
#ifndef XLV_ENDORSEMENT_H
#define XLV_ENDORSEMENT_H

#include <stdbool.h>
#include <stdint.h>

#include <json-c/json.h>

#include "common/error.h"
#include "libxl-vtpm/registry.h"

/* An array, the caller's; with pem also the keys and certificates themselves. */
int xlv_endorsement_to_json(struct xlv_registry *registry, uint64_t number, bool pem,
                            struct json_object **array, struct xlv_error *e);

#endif
