/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libxlvtpm: persistent virtual TPMs of Xen guests, for toolstacks and tools.
 * See libxlvtpm(3); compile and link with `pkg-config --cflags --libs libxlvtpm`.
 *
 * Functions that can fail return 0, a negative errno (something that should
 * not happen: no memory, I/O error), or a positive enum xlvtpm_outcome that
 * the caller is expected to handle; and they put one sentence for people into
 * *error, which may be NULL. Results are written on success only, objects that
 * could not be made are NULL. All text is UTF-8 and NUL-terminated.
 *
 * Objects belong to the caller and are freed with their own function; the
 * text that an accessor returns belongs to its object. An object may be used
 * by one thread at a time, different objects by different threads.
 */
#ifndef LIBXL_VTPM_H
#define LIBXL_VTPM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum xlvtpm_outcome {
    XLVTPM_NOT_FOUND = 1,   /* no such instance or binding; no daemon; no file */
    XLVTPM_EXISTS = 2,      /* an instance has that uuid already */
    XLVTPM_INVALID = 3,     /* input that does not parse or is out of bounds */
    XLVTPM_IN_USE = 4,      /* held by a running domain */
    XLVTPM_REFUSED = 5,     /* the configured policy says no */
    XLVTPM_CORRUPT = 7,     /* a file is damaged; nothing was changed */
    XLVTPM_WRONG_KEY = 8,   /* sealed with another master key */
    XLVTPM_WRONG_OWNER = 9, /* a state of another instance */
    XLVTPM_VERSION = 10,    /* written by a newer version */
    XLVTPM_GONE = 13,       /* the daemon went away in the middle of a call */
};

struct xlvtpm_error {
    char text[512];
};

/* Short words for a return code of either kind; never NULL. */
const char *xlvtpm_strerror(int code);

/* The version of the library that runs, as in "0.1.0". */
const char *xlvtpm_version(void);

/*
 * Spec: one entry of `vtpm = [ 'backend=0,uuid=...' ]`, read as xl reads it.
 */
struct xlvtpm_spec;

/* XLVTPM_INVALID: xl would not take it; the sentence begins with what xl prints. */
int xlvtpm_spec_parse(struct xlvtpm_spec **spec, const char *text, struct xlvtpm_error *error);

/* From its parts: backend a domain number or name, uuid NULL for none. */
int xlvtpm_spec_make(struct xlvtpm_spec **spec, const char *backend, const char *uuid,
                     struct xlvtpm_error *error);
void xlvtpm_spec_free(struct xlvtpm_spec *spec);

const char *xlvtpm_spec_backend(const struct xlvtpm_spec *spec); /* as written */
/* The backend's number where it is written as one, else -1: a name. */
int64_t xlvtpm_spec_backend_domid(const struct xlvtpm_spec *spec);
const char *xlvtpm_spec_uuid(const struct xlvtpm_spec *spec); /* lower case; NULL: none */
const char *xlvtpm_spec_text(const struct xlvtpm_spec *spec); /* as an entry of vtpm = [] */
/* What xl accepts and surely is a mistake: sentences, index from 0; NULL: no more. */
const char *xlvtpm_spec_warning(const struct xlvtpm_spec *spec, unsigned index);

/*
 * Client: the daemon of this host where it runs, else its files.
 */
struct xlvtpm_client;

#define XLVTPM_DAEMON_ONLY 1u /* XLVTPM_NOT_FOUND where none runs */
#define XLVTPM_FILES_ONLY 2u

/* config NULL: /etc/xen/xl-vtpm.conf, which may be missing. */
int xlvtpm_open(struct xlvtpm_client **client, const char *config, unsigned flags,
                struct xlvtpm_error *error);
void xlvtpm_close(struct xlvtpm_client *client);
bool xlvtpm_online(const struct xlvtpm_client *client); /* a daemon answers */

/* An instance: one persistent TPM, as it was when it was asked for. */
struct xlvtpm_instance;

uint64_t xlvtpm_instance_number(const struct xlvtpm_instance *instance);
const char *xlvtpm_instance_uuid(const struct xlvtpm_instance *instance);
const char *xlvtpm_instance_tpm_version(const struct xlvtpm_instance *instance); /* "1.2", "2.0" */
const char *xlvtpm_instance_life(const struct xlvtpm_instance *instance);
const char *xlvtpm_instance_label(const struct xlvtpm_instance *instance);
/* All that is known, as the JSON object that `xl-vtpm show --json` prints. */
const char *xlvtpm_instance_json(const struct xlvtpm_instance *instance);
void xlvtpm_instance_free(struct xlvtpm_instance *instance);

int xlvtpm_find_uuid(struct xlvtpm_client *client, const char *uuid,
                     struct xlvtpm_instance **instance, struct xlvtpm_error *error);
int xlvtpm_find_number(struct xlvtpm_client *client, uint64_t number,
                       struct xlvtpm_instance **instance, struct xlvtpm_error *error);

/* All instances in order of number; list has count elements (NULL where 0). */
int xlvtpm_list(struct xlvtpm_client *client, struct xlvtpm_instance ***list, size_t *count,
                struct xlvtpm_error *error);
void xlvtpm_list_free(struct xlvtpm_instance **list, size_t count);

/*
 * Makes an instance ahead of its first use. uuid NULL: a random one;
 * tpm_version "1.2", "2.0" or NULL (as configured); label may be NULL.
 */
int xlvtpm_create(struct xlvtpm_client *client, const char *uuid, const char *tpm_version,
                  const char *label, struct xlvtpm_instance **instance,
                  struct xlvtpm_error *error);

/* Binds a domain's device to an instance, in place of an older binding. */
int xlvtpm_bind(struct xlvtpm_client *client, const char *domain, unsigned devid,
                const char *uuid, struct xlvtpm_error *error);
int xlvtpm_unbind(struct xlvtpm_client *client, const char *domain, unsigned devid,
                  struct xlvtpm_error *error);

enum xlvtpm_rule {
    XLVTPM_RULE_UUID = 1,     /* the uuid is an instance's */
    XLVTPM_RULE_BINDING = 2,  /* the domain's device is bound to one */
    XLVTPM_RULE_ASSIGNED = 3, /* a new instance would be made; *instance is NULL */
};

/*
 * What a device would get, without changing anything. uuid NULL: none is given
 * and libxl makes one up; domain NULL: unknown. XLVTPM_REFUSED: nothing, *error
 * says why.
 */
int xlvtpm_check(struct xlvtpm_client *client, const char *uuid, const char *domain,
                 unsigned devid, enum xlvtpm_rule *rule, struct xlvtpm_instance **instance,
                 struct xlvtpm_error *error);

/*
 * Any call of the control protocol: request is a JSON object with a member
 * "call"; *result, JSON text, is freed with free(). xl-vtpm(8) lists the calls.
 */
int xlvtpm_call(struct xlvtpm_client *client, const char *request, char **result,
                struct xlvtpm_error *error);

/*
 * With libxl: for programs that include <libxl.h> before this header. These
 * are in the header so that the library itself depends on no version of Xen.
 */
#ifdef LIBXL_H

#include <string.h>

/* Fills *vtpm, which is initialised here and disposed of by the caller. 0 or a libxl error. */
static inline int xlvtpm_spec_to_libxl(const struct xlvtpm_spec *spec, libxl_device_vtpm *vtpm)
{
    libxl_device_vtpm_init(vtpm);
    vtpm->backend_domname = strdup(xlvtpm_spec_backend(spec));
    if (!vtpm->backend_domname)
        return ERROR_NOMEM;
    if (xlvtpm_spec_uuid(spec) && libxl_uuid_from_string(&vtpm->uuid, xlvtpm_spec_uuid(spec)))
        return ERROR_INVAL;
    return 0;
}

/* Attaches a vTPM to a domain, with its next free device number. 0 or a libxl error. */
static inline int xlvtpm_attach(libxl_ctx *ctx, uint32_t domid, const struct xlvtpm_spec *spec,
                                const libxl_asyncop_how *how)
{
    libxl_device_vtpm vtpm;
    int rc = xlvtpm_spec_to_libxl(spec, &vtpm);

    if (!rc)
        rc = libxl_device_vtpm_add(ctx, domid, &vtpm, how);
    libxl_device_vtpm_dispose(&vtpm);
    return rc;
}

#endif /* LIBXL_H */

#ifdef __cplusplus
}
#endif

#endif
