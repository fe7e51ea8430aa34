/* SPDX-License-Identifier: GPL-2.0-or-later */
/* An entry of `vtpm = [ ... ]` (libxl-vtpm/spec.h); what was parsed and written parses alike. */
#include <string.h>

#include "fuzz/fuzz.h"
#include "libxl-vtpm/spec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = text_of(data, size), *again;
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_spec spec, second;

    if (xlv_spec_parse(&spec, text, &e)) {
        MUST(e.text[0] && !spec.backend && !spec.warning_count);
    } else {
        MUST(spec.backend && spec.warning_count <= XLV_SPEC_WARNINGS_MAX);
        if (!xlv_spec_format(&spec, &again, &e)) {
            MUST(xlv_spec_parse(&second, again, &e) == 0);
            MUST(!strcmp(spec.backend, second.backend) && spec.has_uuid == second.has_uuid);
            MUST(!spec.has_uuid || !memcmp(&spec.uuid, &second.uuid, sizeof(spec.uuid)));
            xlv_spec_deinit(&second);
            free(again);
        }
        xlv_spec_deinit(&spec);
    }
    free(text);
    return 0;
}
