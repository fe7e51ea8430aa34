/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Keys in tokens, by an engine: see pkcs11.h. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include "config.h"

#include "libxl-vtpm/pkcs11.h"

#include <string.h>

#include <openssl/engine.h>
#include <openssl/err.h>
#include <openssl/ui.h>

#define SCHEME "pkcs11:"
#define ENGINE_NAME "pkcs11"

bool xlv_pkcs11_is(const char *uri)
{
    return !strncmp(uri, SCHEME, strlen(SCHEME));
}

EVP_PKEY *xlv_pkcs11_key(const char *uri)
{
    EVP_PKEY *key = NULL;
    ENGINE *engine;

    ERR_clear_error(); /* of the providers that do not know it */
    ENGINE_load_dynamic();
    engine = ENGINE_by_id(ENGINE_NAME);
    if (!engine)
        return NULL;
    if (ENGINE_init(engine)) {
        /* nobody is there to be asked for a PIN */
        key = ENGINE_load_private_key(engine, uri, (UI_METHOD *)UI_null(), NULL);
        ENGINE_finish(engine); /* the key has a reference of its own */
    }
    ENGINE_free(engine);
    return key;
}
