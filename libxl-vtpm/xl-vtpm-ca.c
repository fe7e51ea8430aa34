/* SPDX-License-Identifier: GPL-2.0-or-later */
/* xl-vtpm: the local CA, and what identifies a TPM: ca, ek-cert. */
#include "config.h"

#include "libxl-vtpm/xl-vtpm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libxl-vtpm/ca.h"
#include "libxl-vtpm/certificate.h"
#include "libxl-vtpm/states.h"

/* A member that is made of text; put() ends the program where there is no memory. */
static void put_text(struct json_object *json, const char *key, const char *text)
{
    put(json, key, json_object_new_string(text));
}

static int show_ca(struct run *run, struct json_object **result)
{
    struct xlv_ca *ca;
    int rc = xlv_ca_open(&ca, run->settings, &run->e);

    if (rc)
        return rc;
    *result = json_object_new_object();
    put_text(*result, "subject", xlv_ca_subject(ca));
    put_text(*result, "algorithm", xlv_ca_algorithm(ca));
    put_text(*result, "fingerprint", xlv_ca_fingerprint(ca));
    put_text(*result, "key", run->settings->ca_key);
    put_text(*result, "certificate", run->settings->ca_certificate);
    put_text(*result, "issuer_url", run->settings->ca_issuer_url);
    put_text(*result, "crl_url", run->settings->ca_crl_url);
    xlv_ca_free(ca);
    if (run->json)
        return 0;
    json_object_object_foreach(*result, key, value)
        print_field(key, json_object_get_string(value));
    return 0;
}

static int export_ca(struct run *run, struct json_object **result)
{
    struct xlv_ca *ca;
    char *pem = NULL;
    int rc = xlv_ca_open(&ca, run->settings, &run->e);

    if (rc)
        return rc;
    rc = xlv_ca_pem(ca, &pem, &run->e);
    xlv_ca_free(ca);
    if (rc)
        return rc;
    if (run->json) {
        *result = json_object_new_object();
        put_text(*result, "pem", pem);
    } else {
        fputs(pem, stdout);
    }
    free(pem);
    return 0;
}

int run_ca(struct run *run, struct json_object **result)
{
    const char *word = run->args[0];
    int rc;

    if (!strcmp(word, "show"))
        return show_ca(run, result);
    if (!strcmp(word, "export"))
        return export_ca(run, result);
    if (strcmp(word, "init"))
        return xlv_fail(&run->e, XLV_E_INVALID, "ca %.80s: there are init, show and export", word);
    rc = xlv_ca_make(run->settings, &run->e);
    return rc ? rc : show_ca(run, result);
}

/*
 * An EK decrypts and does not sign, so it cannot sign a PKCS #10 request. What there is for
 * a CA elsewhere: the key, and the facts that its certificate has to state.
 */
static void print_request(struct json_object *instance, struct json_object *key)
{
    printf("# Endorsement key %s of TPM %s, instance %s, uuid %s\n"
           "# An endorsement key cannot sign a request; this is its public half. Check it against\n"
           "# the host it comes from: SHA-256 of the key is\n"
           "# %s\n"
           "# A certificate for it (TCG EK Credential Profile): empty subject; subjectAltName,\n"
           "# critical, a directoryName of 2.23.133.2.1 to .3; keyUsage, critical, %s;\n"
           "# extKeyUsage 2.23.133.8.1; basicConstraints, critical, CA:FALSE\n",
           text_of(key, "kind", "?"), text_of(instance, "tpm_version", "?"),
           text_of(instance, "number", "?"), text_of(instance, "uuid", "?"),
           text_of(key, "key_fingerprint", "?"),
           strcmp(text_of(key, "kind", ""), "rsa2048") ? "keyAgreement" : "keyEncipherment");
    fputs(text_of(key, "public_key", ""), stdout);
}

/* What the registry knows of one key or certificate, borrowed from *result; NULL: nothing. */
static int ask_endorsement(struct run *run, const char *kind, struct json_object **result,
                           struct json_object **found)
{
    struct json_object *request = request_of("ek-cert"), *keys;
    int rc;

    *found = NULL;
    put_instance(request, run->args[0]);
    rc = ask(run, request, result);
    keys = rc ? NULL : member(*result, "endorsement");
    for (size_t i = 0; i < xlv_json_count(keys); i++)
        if (!strcmp(text_of(json_object_array_get_idx(keys, i), "kind", ""), kind))
            *found = json_object_array_get_idx(keys, i);
    return rc;
}

static int note_identity(struct run *run, const char *uuid)
{
    struct xlv_states states = { .registry = NULL };
    struct xlv_instance instance;
    struct xlv_uuid parsed;
    int rc = xlv_uuid_parse(&parsed, uuid)
                 ? xlv_fail(&run->e, XLV_E_INVALID, "the answer is no instance")
                 : xlv_states_init(&states, run->settings, false, &run->e);

    if (!rc)
        rc = xlv_registry_get(states.registry, &parsed, &instance, &run->e);
    if (!rc)
        rc = xlv_states_identify(&states, &instance, &run->e);
    xlv_states_deinit(&states);
    return rc;
}

void note_identity_or_warn(struct run *run, const char *uuid)
{
    struct xlv_error e = run->e;
    int rc;

    xlv_error_clear(&run->e);
    rc = note_identity(run, uuid);
    progress_stop();
    if (rc)
        fprintf(stderr, "xl-vtpm: warning: its endorsement keys could not be noted (%s); xl-vtpm "
                "ek-cert tries it again\n", run->e.text[0] ? run->e.text : xlv_strerror(rc));
    run->e = e;
}

/* A TPM that was made elsewhere, or by an earlier version: its state is looked into, once, by who
 * may read it. */
static int find_endorsement(struct run *run, const char *kind, struct json_object **result,
                            struct json_object **found)
{
    int rc = ask_endorsement(run, kind, result, found);

    if (rc || xlv_json_count(member(*result, "endorsement")))
        return rc;
    rc = note_identity(run, text_of(*result, "uuid", ""));
    if (rc == -EACCES || rc == -EPERM || rc == XLV_E_EMPTY) {
        xlv_error_clear(&run->e);
        return 0;
    }
    if (rc)
        return rc;
    json_object_put(*result);
    *result = NULL;
    return ask_endorsement(run, kind, result, found);
}

/* XLV_CERTIFICATES: of whichever key it is. */
static unsigned place_of(const char *kind)
{
    unsigned i = 0;

    while (i < XLV_CERTIFICATES && (!kind || strcmp(kind, xlv_certificate_name(i))))
        i++;
    return i;
}

static int install(struct run *run, unsigned place, struct json_object **result)
{
    struct xlv_states states = { .registry = NULL };
    struct xlv_certificate *certificate = calloc(1, sizeof(*certificate));
    struct json_object *shown = NULL, *key;
    struct xlv_instance instance;
    struct xlv_uuid uuid;
    bool noted = false;
    int rc = certificate ? xlv_certificate_read(run->install, certificate, &run->e)
                         : xlv_fail(&run->e, -ENOMEM, "no memory for a certificate");

    if (!rc)
        rc = look_up(run, run->args[0], &shown, &uuid);
    if (!rc)
        rc = refuse_if_served(run, &uuid);
    if (!rc)
        rc = xlv_states_init(&states, run->settings, false, &run->e);
    if (!rc)
        rc = xlv_states_certify(&states, &uuid, certificate, place, &noted, &instance, &run->e);
    xlv_states_deinit(&states);
    progress_stop();
    if (!rc && place != XLV_CERTIFICATE_PLATFORM && !certificate->for_ek)
        fprintf(stderr, "xl-vtpm: warning: the certificate does not say that it is an endorsement "
                "key's (extKeyUsage 2.23.133.8.1): verifiers may refuse it\n");
    if (!rc && run->json)
        rc = ask_endorsement(run, "", result, &key);
    else if (!rc)
        printf("instance %s, uuid %s: %s\n", text_of(shown, "number", "?"),
               text_of(shown, "uuid", "?"),
               noted ? "the certificate is noted here; a TPM 1.2 takes none once it is made"
                     : "its TPM has this certificate now");
    json_object_put(shown);
    free(certificate);
    return rc;
}

int run_ek_cert(struct run *run, struct json_object **result)
{
    const char *kind = run->key ? run->key : "rsa2048";
    struct json_object *key;
    int rc;

    if (run->install)
        return install(run, place_of(run->key), result);
    rc = find_endorsement(run, kind, result, &key);
    /* in JSON all is told; then nothing was asked for that has to be there */
    if (rc || (run->json && !run->key && !run->csr))
        return rc;
    if (!key || !member(key, run->csr ? "public_key" : "certificate"))
        return xlv_fail(&run->e, XLV_E_NOT_FOUND, "instance %s has no %s %s; xl-vtpm show %s tells "
                        "what there is", text_of(*result, "number", "?"), kind,
                        run->csr ? "key" : "certificate", text_of(*result, "number", "?"));
    if (run->json)
        return 0;
    if (run->csr)
        print_request(*result, key);
    else
        fputs(text_of(key, "certificate", ""), stdout);
    return 0;
}
