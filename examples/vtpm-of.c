/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What would this vtpm entry get? A small client of libxlvtpm.
 *
 *   cc -o vtpm-of vtpm-of.c $(pkg-config --cflags --libs libxlvtpm)
 *   ./vtpm-of 'backend=0,uuid=dcdb124b-9fed-4040-b149-dd2dfd8d094c' [DOMAIN [CONFIG]]
 */
#include <stdio.h>

#include <libxl-vtpm.h>

static int complain(int code, const struct xlvtpm_error *error)
{
    fprintf(stderr, "vtpm-of: %s\n", error->text[0] ? error->text : xlvtpm_strerror(code));
    return 1;
}

static int answer(struct xlvtpm_client *client, const struct xlvtpm_spec *spec, const char *domain)
{
    struct xlvtpm_instance *instance;
    struct xlvtpm_error error;
    enum xlvtpm_rule rule;
    int rc = xlvtpm_check(client, xlvtpm_spec_uuid(spec), domain, 0, &rule, &instance, &error);

    if (rc)
        return complain(rc, &error);
    if (rule == XLVTPM_RULE_ASSIGNED)
        puts("a new TPM, made at the first use");
    else
        printf("instance %llu, TPM %s, %s\n",
               (unsigned long long)xlvtpm_instance_number(instance),
               xlvtpm_instance_tpm_version(instance),
               rule == XLVTPM_RULE_UUID ? "by its uuid" : "by the domain's name");
    xlvtpm_instance_free(instance);
    return 0;
}

int main(int argc, char **argv)
{
    struct xlvtpm_client *client;
    struct xlvtpm_error error;
    struct xlvtpm_spec *spec;
    const char *warning;
    int rc;

    if (argc < 2 || argc > 4) {
        fprintf(stderr, "usage: vtpm-of SPEC [DOMAIN [CONFIG]]\n");
        return 2;
    }
    rc = xlvtpm_spec_parse(&spec, argv[1], &error);
    if (rc)
        return complain(rc, &error);
    for (unsigned i = 0; (warning = xlvtpm_spec_warning(spec, i)); i++)
        fprintf(stderr, "vtpm-of: warning: %s\n", warning);
    rc = xlvtpm_open(&client, argc > 3 ? argv[3] : NULL, 0, &error);
    if (rc) {
        complain(rc, &error);
    } else {
        rc = answer(client, spec, argc > 2 ? argv[2] : NULL);
        xlvtpm_close(client);
    }
    xlvtpm_spec_free(spec);
    return rc ? 1 : 0;
}
