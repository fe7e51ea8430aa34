/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What xl 4.17 makes of one entry of vtpm = [ ... ]. Used twice: for our parser
 * (test-spec.c), and for the real xl (tests/integration/test-xl-spec.c), so that
 * neither the parser nor this table can be wrong alone.
 */
#ifndef SPEC_CASES_H
#define SPEC_CASES_H

#include <stdint.h>

#define U "dcdb124b-9fed-4040-b149-dd2dfd8d094c"
#define V "11111111-2222-4333-8444-555555555555"
#define NIL "00000000-0000-0000-0000-000000000000"

static const struct {
    const char *text;
    const char *backend; /* NULL: refused */
    int64_t domid;       /* -1: by name */
    const char *uuid;    /* NULL: none; where refused: how xl's message begins */
    unsigned warnings;
} spec_cases[] = {
    { "backend=0,uuid=" U, "0", 0, U, 0 },
    { "uuid=" U ",backend=0", "0", 0, U, 0 },
    { "backend=0", "0", 0, NULL, 0 },
    { "backend=Domain-0,uuid=" U, "Domain-0", -1, U, 0 },
    { "backend=007", "007", 7, NULL, 0 },
    { "backend=0, uuid=" U, "0", 0, U, 0 },
    { "   backend=0,    uuid=" U, "0", 0, U, 0 },
    { ",,backend=0,,uuid=" U ",,", "0", 0, U, 0 },
    { "backend=0,uuid=DCDB124B-9FED-4040-B149-DD2DFD8D094C", "0", 0, U, 0 },
    { "backend=a=b", "a=b", -1, NULL, 0 },
    { "backend=-1", "-1", -1, NULL, 0 },
    { "backend=0,", "0", 0, NULL, 0 },
    { "backend=0, ", "0", 0, NULL, 0 },

    /* accepted, but surely not meant */
    { "backend=,uuid=" U, "", 0, U, 1 },
    { "backend=0 ,uuid=" U, "0 ", -1, U, 1 },
    { "backend= 0,uuid=" U, " 0", -1, U, 1 },
    { "backend=0,backend=dd,uuid=" U, "dd", -1, U, 1 },
    { "backend=0,uuid=" V ",uuid=" U, "0", 0, U, 1 },
    { "backend=0,uuid=" U ",ro", "0", 0, U, 1 },
    { "backend=0,ro,uuid=" U, "0", 0, NULL, 1 },
    { "backend=0,ro,uuid=not-a-uuid", "0", 0, NULL, 1 },
    { "backend=0,ro,colour=red", "0", 0, NULL, 1 },
    { "backend=0, ,uuid=" U, "0", 0, NULL, 1 },
    { "backend=0,uuid=" NIL, "0", 0, NULL, 1 },
    { "backend=40000", "40000", 40000, NULL, 1 },
    { "backend=4294967296", "4294967296", 0, NULL, 1 },
    { "backend=99999999999999999999999", "99999999999999999999999", UINT32_MAX, NULL, 1 },
    { "backend=,backend=,uuid=" V ",uuid=" NIL ",x", "", 0, NULL, 5 },

    /* refused */
    { "", NULL, 0, "vtpm spec missing required backend field!", 0 },
    { ",", NULL, 0, "vtpm spec missing required backend field!", 0 },
    { " ", NULL, 0, "vtpm spec missing required backend field!", 0 },
    { "backend", NULL, 0, "vtpm spec missing required backend field!", 0 },
    { "0," U, NULL, 0, "vtpm spec missing required backend field!", 0 },
    { "uuid=" U, NULL, 0, "vtpm spec missing required backend field!", 0 },
    { "ro,backend=0", NULL, 0, "vtpm spec missing required backend field!", 0 },
    { "backend=0,uuid=", NULL, 0, "Failed to parse vtpm UUID: ", 0 },
    { "backend=0,uuid=" U " ", NULL, 0, "Failed to parse vtpm UUID: " U " ", 0 },
    { "backend=0,uuid= " U, NULL, 0, "Failed to parse vtpm UUID:  " U, 0 },
    { "backend=0,uuid={" U "}", NULL, 0, "Failed to parse vtpm UUID: {" U "}", 0 },
    { "backend=0,uuid=dcdb124b9fed4040b149dd2dfd8d094c", NULL, 0,
      "Failed to parse vtpm UUID: dcdb124b9fed4040b149dd2dfd8d094c", 0 },
    { "backend=0,uuid=xyz,uuid=" U, NULL, 0, "Failed to parse vtpm UUID: xyz", 0 },
    { "uuid=xyz", NULL, 0, "Failed to parse vtpm UUID: xyz", 0 },
    { "backend=0,colour=red", NULL, 0, "Unknown string `colour' in vtpm spec", 0 },
    { "Backend=0", NULL, 0, "Unknown string `Backend' in vtpm spec", 0 },
    { "backend =0", NULL, 0, "Unknown string `backend ' in vtpm spec", 0 },
    { "\tbackend=0", NULL, 0, "Unknown string `\tbackend' in vtpm spec", 0 },
    { "=0", NULL, 0, "Unknown string `' in vtpm spec", 0 },
    { "backend=0 uuid=" U ",instance=1", NULL, 0, "Unknown string `instance' in vtpm spec", 0 },
};

#endif
