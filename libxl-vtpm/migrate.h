/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The TPMs of a domain that migrates: both ends of `xl migrate -s 'xl-vtpm-move migrate'`.
 * docs/migration.md has the reasoning.
 *
 * xl starts `… migrate HOST xl migrate-receive …` and speaks with it over its standard input and
 * output as if it were the other xl; we start `xl-vtpm-move migrate-receive xl migrate-receive …`
 * there, which starts that xl, and pass on what the two say (DATA). In between, as of move.h:
 *
 *     source xl    source                           target                target xl
 *                                                <- DATA                  banner
 *     config       freeze (daemon's call)
 *     stream       DATA                          ->
 *     suspends     the daemon: frozen
 *                  for each TPM: OFFER to STORED
 *     stream's end the last bytes, held back     ->                       makes the devices: they
 *                                                                         wait in InitWait
 *                                                <- DATA                  ready
 *     GO           registry: departed
 *                  COMMIT with GO                ->  registry: held; GO   starts the domain
 *                                                <- HELD
 *                                                <- DATA                  report
 *
 * What is looked at of xl's stream: the save file header with its JSON, and the four fixed
 * messages of tools/xl/xl.h, all unchanged since Xen 4.5.
 */
#ifndef XLV_MIGRATE_H
#define XLV_MIGRATE_H

#include "common/error.h"
#include "libxl-vtpm/settings.h"

/*
 * The source's end: xl at from_xl and to_xl, the target at in and out. Returns when xl has hung
 * up, or with what went wrong; until then the domain's TPMs stand still. XLV_E_GONE: they were
 * given away, and it was not confirmed.
 */
int xlv_migrate_send(const struct xlv_settings *settings, const char *host, int from_xl, int to_xl,
                     int in, int out, struct xlv_error *e);

/* The target's end: xl at from_xl and to_xl (closed when the source has hung up). */
int xlv_migrate_receive(const struct xlv_settings *settings, int from_xl, int *to_xl, int in,
                        int out, struct xlv_error *e);

#endif
