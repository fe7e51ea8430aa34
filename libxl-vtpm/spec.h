/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One entry of `vtpm = [ 'backend=0,uuid=...' ]` in a domain's configuration,
 * read exactly as xl 4.17 does (tools/xl/xl_parse.c, parse_config_data):
 *
 *   - parts between commas; empty parts vanish (strtok), leading spaces of a
 *     part are skipped, nothing else is trimmed
 *   - a part without '=' ends the reading, silently: what follows is ignored
 *   - keys are `backend` and `uuid`; another one is an error
 *   - the uuid is read by libuuid's uuid_parse; a bad one is an error
 *   - a key that comes twice counts with its last value (all uuids must parse)
 *   - `backend` must be there, its value may be anything: digits only, or
 *     nothing at all, are a domain number, the rest is a domain name that libxl
 *     looks up when the domain is created
 *   - the nil uuid counts as none (libxl_device_vtpm's default), and libxl
 *     makes up a random uuid where there is none
 *
 * Where xl accepts what surely is a mistake, so does this, with a warning.
 */
#ifndef XLV_SPEC_H
#define XLV_SPEC_H

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/uuid.h"

#define XLV_SPEC_WARNINGS_MAX 8u

struct xlv_spec {
    char *backend; /* as written */
    bool backend_is_domid;
    uint32_t backend_domid; /* as libxl computes it: cut to 32 bits */
    bool has_uuid;
    struct xlv_uuid uuid;
    unsigned warning_count;
    char *warnings[XLV_SPEC_WARNINGS_MAX]; /* sentences */
};

/*
 * XLV_E_INVALID: xl would not take it; e begins with what xl prints. On error
 * spec is as after deinit.
 */
int xlv_spec_parse(struct xlv_spec *spec, const char *text, struct xlv_error *e);
void xlv_spec_deinit(struct xlv_spec *spec);

/*
 * "backend=...,uuid=..." as an entry that parses to the same; the caller frees
 * *text. XLV_E_INVALID: the backend's name cannot be written in an entry (it
 * has a comma).
 */
int xlv_spec_format(const struct xlv_spec *spec, char **text, struct xlv_error *e);

#endif
