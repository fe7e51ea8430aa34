/* SPDX-License-Identifier: GPL-2.0-or-later */
/* uuids: see uuid.h. */
#include "common/uuid.h"

#include <string.h>
#include <uuid/uuid.h>

#include "common/error.h"

int xlv_uuid_parse(struct xlv_uuid *uuid, const char *text)
{
    uuid_t u;

    if (uuid_parse(text, u) < 0)
        return XLV_E_INVALID;
    memcpy(uuid->b, u, sizeof(uuid->b));
    return 0;
}

const char *xlv_uuid_format(const struct xlv_uuid *uuid, char text[XLV_UUID_TEXT])
{
    uuid_unparse_lower(uuid->b, text);
    return text;
}

void xlv_uuid_generate(struct xlv_uuid *uuid)
{
    uuid_generate_random(uuid->b);
}

bool xlv_uuid_is_nil(const struct xlv_uuid *uuid)
{
    return uuid_is_null(uuid->b);
}

bool xlv_uuid_equal(const struct xlv_uuid *a, const struct xlv_uuid *b)
{
    return memcmp(a->b, b->b, sizeof(a->b)) == 0;
}
