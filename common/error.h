/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The one error contract of this project.
 *
 * A function that can fail returns int:
 *     0   success
 *   < 0   a negative errno: something that should not happen here (no memory,
 *         I/O error); callers forward it unchanged
 *   > 0   a named outcome of enum xlv_outcome that the caller is expected to
 *         handle
 *
 * Where people need to know more than the number, the last argument is a
 * struct xlv_error that takes one sentence: what failed, on which domain,
 * instance or file, why, and what to do. It may be NULL. The innermost
 * function that knows the facts fills it; those above do not overwrite it.
 */
#ifndef XLV_ERROR_H
#define XLV_ERROR_H

#include "include/limits.h"

enum xlv_outcome {
    XLV_E_OK = 0,
    XLV_E_NOT_FOUND,     /* no such instance, binding, record, node */
    XLV_E_EXISTS,        /* already there */
    XLV_E_INVALID,       /* input that does not parse or is out of bounds */
    XLV_E_IN_USE,        /* instance or device held by somebody else */
    XLV_E_REFUSED,       /* policy or permission says no */
    XLV_E_EMPTY,         /* a store or journal nobody has written yet */
    XLV_E_CORRUPT,       /* checksum, seal or structure does not verify */
    XLV_E_WRONG_KEY,     /* sealed with another key */
    XLV_E_WRONG_OWNER,   /* intact, but of another instance */
    XLV_E_VERSION,       /* written by a newer format than we know */
    XLV_E_TPM,           /* libtpms answered with an error */
    XLV_E_CONFLICT,      /* a transaction has to be tried again */
    XLV_E_GONE,          /* the peer or the object went away meanwhile */
    XLV_E_FORBIDDEN,     /* something was done that the sandbox does not allow */
};

struct xlv_error {
    char text[XLV_TEXT_MAX]; /* one sentence, no newline; "" when unset */
};

#define XLV_ERROR_INIT { .text = "" }

/*
 * Puts the sentence into e (when e is not NULL and still empty) and returns
 * code, so that a failing function can end with `return xlv_fail(e, -EIO, ...)`.
 * Longer text is cut, never refused.
 */
int xlv_fail(struct xlv_error *e, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#ifdef __clang_analyzer__
/* What the analyser cannot see across files: code comes back, and is not 0. */
#define xlv_fail(e, code, ...)                     \
    ({                                             \
        int failed_ = (code);                      \
        (void)(xlv_fail)(e, failed_, __VA_ARGS__); \
        if (!failed_)                              \
            __builtin_unreachable();               \
        failed_;                                   \
    })
#endif

/* Forgets the text. */
void xlv_error_clear(struct xlv_error *e);

/* Short words for a return code of either kind ("no such file or directory",
 * "in use"); static or thread-local storage, never NULL. */
const char *xlv_strerror(int code);

#endif
