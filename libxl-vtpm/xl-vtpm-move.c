/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * xl-vtpm-move: hands instances over to another host. `send` starts ssh, which starts `receive`
 * there, and speaks with it over a pipe each way; the protocol is in move.h. `migrate` is started
 * by `xl migrate -s`, and does the same with `migrate-receive`; see migrate.h.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/log.h"
#include "libxl-vtpm/migrate.h"
#include "libxl-vtpm/move.h"
#include "libxl-vtpm/settings.h"

/* Of `xl migrate-receive`, which has a few. */
#define ARGUMENTS_MAX 32

/* Documented in xl-vtpm-move(8); the first five as of xl-vtpm(8). */
enum { EXIT_FINE, EXIT_FAILED, EXIT_USAGE, EXIT_NOT_FOUND, EXIT_REFUSED, EXIT_UNCONFIRMED = 6 };

static const char help[] =
    "usage: xl-vtpm-move [-c FILE] [-e COMMAND] send UUID HOST\n"
    "       xl-vtpm-move [-c FILE] receive\n"
    "       xl-vtpm-move [-c FILE] --yes resume-here UUID\n"
    "hands a vTPM, whose domain is shut down or saved, over to another host: xl-vtpm-move(8)\n"
    "       xl migrate -s 'xl-vtpm-move migrate' DOMAIN HOST\n"
    "migrates a domain with its vTPMs\n";

static int usage(void)
{
    fputs(help, stderr);
    return EXIT_USAGE;
}

static int exit_code_of(int rc)
{
    switch (rc) {
    case 0:
        return EXIT_FINE;
    case XLV_E_NOT_FOUND:
        return EXIT_NOT_FOUND;
    case XLV_E_IN_USE:
    case XLV_E_REFUSED:
    case XLV_E_CONFLICT:
        return EXIT_REFUSED;
    case XLV_E_GONE:
        return EXIT_UNCONFIRMED;
    default:
        return EXIT_FAILED;
    }
}

/* Its standard input is *out, its standard output *in. */
static int start(const char *const *argv, pid_t *pid, int *in, int *out, struct xlv_error *e)
{
    int to[2], from[2];

    if (pipe2(to, O_CLOEXEC))
        return xlv_fail(e, -errno, "no pipe: %s", strerror(errno));
    if (pipe2(from, O_CLOEXEC)) {
        int rc = xlv_fail(e, -errno, "no pipe: %s", strerror(errno));

        xlv_close(&to[0]);
        xlv_close(&to[1]);
        return rc;
    }
    *pid = fork();
    if (*pid == 0) {
        signal(SIGPIPE, SIG_DFL);
        if (dup2(to[0], 0) == 0 && dup2(from[1], 1) == 1)
            execvp(argv[0], (char *const *)argv);
        fprintf(stderr, "xl-vtpm-move: cannot start %s: %s\n", argv[0], strerror(errno));
        _exit(127);
    }
    xlv_close(&to[0]);
    xlv_close(&from[1]);
    *in = from[0];
    *out = to[1];
    if (*pid > 0)
        return 0;
    xlv_close(in);
    xlv_close(out);
    return xlv_fail(e, -errno, "cannot start %s: %s", argv[0], strerror(errno));
}

/* ssh with its options is a command line, as rsync's -e is; host and the rest are not. rest: of
 * arguments that end with NULL. */
static int start_there(const char *command, const char *host, const char *verb, char **rest,
                       pid_t *pid, int *in, int *out, struct xlv_error *e)
{
    const char *argv[ARGUMENTS_MAX + 8] = { "sh", "-c", "exec $0 \"$@\"", command, host,
                                            "xl-vtpm-move", verb };
    size_t n = 7;

    for (size_t i = 0; rest[i]; i++) {
        if (i == ARGUMENTS_MAX)
            return xlv_fail(e, XLV_E_INVALID, "too many arguments");
        argv[n++] = rest[i];
    }
    return start(argv, pid, in, out, e);
}

/* The exit status of a process, as a shell tells it. */
static int await(pid_t pid)
{
    int status = 0;

    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int send_to(const struct xlv_settings *settings, const struct xlv_uuid *uuid,
                   const char *command, const char *host, struct xlv_error *e)
{
    char *nothing[] = { NULL };
    int in = -1, out = -1;
    pid_t pid = -1;
    int rc = start_there(command, host, "receive", nothing, &pid, &in, &out, e);

    if (rc)
        return rc;
    rc = xlv_move_give(settings, uuid, host, in, out, e);
    xlv_close(&in);
    xlv_close(&out);
    (void)await(pid);
    return rc;
}

/* xl is at our standard input and output. rest: what it wants to be started there. */
static int migrate(const struct xlv_settings *settings, const char *command, const char *host,
                   char **rest, struct xlv_error *e)
{
    int in = -1, out = -1;
    pid_t pid = -1;
    int rc = start_there(command, host, "migrate-receive", rest, &pid, &in, &out, e);

    if (rc)
        return rc;
    rc = xlv_migrate_send(settings, host, STDIN_FILENO, STDOUT_FILENO, in, out, e);
    xlv_close(&in);
    xlv_close(&out);
    (void)await(pid);
    return rc;
}

/* xl: the command line of `xl migrate-receive`. *status is its exit status. */
static int migrate_receive(const struct xlv_settings *settings, char **xl, int *status,
                           struct xlv_error *e)
{
    int from_xl = -1, to_xl = -1;
    pid_t pid = -1;
    int rc = start((const char *const *)xl, &pid, &from_xl, &to_xl, e);

    if (rc)
        return rc;
    rc = xlv_migrate_receive(settings, from_xl, &to_xl, STDIN_FILENO, STDOUT_FILENO, e);
    xlv_close(&from_xl);
    xlv_close(&to_xl);
    *status = await(pid);
    return rc;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "config", required_argument, NULL, 'c' }, { "rsh", required_argument, NULL, 'e' },
        { "yes", no_argument, NULL, 'y' },          { "help", no_argument, NULL, 'h' },
        { "version", no_argument, NULL, 'V' },      { NULL, 0, NULL, 0 },
    };
    const char *config = NULL, *rsh = "ssh -o ServerAliveInterval=15", *command;
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_settings settings;
    struct xlv_uuid uuid;
    bool yes = false, sends, receives, resumes, migrates, welcomes;
    int option, count, status = 0, rc;

    while ((option = getopt_long(argc, argv, "+c:e:hV", options, NULL)) != -1)
        switch (option) {
        case 'c':
            config = optarg;
            break;
        case 'e':
            rsh = optarg;
            break;
        case 'y':
            yes = true;
            break;
        case 'h':
            fputs(help, stdout);
            return EXIT_FINE;
        case 'V':
            puts("xl-vtpm-move " PACKAGE_VERSION);
            return EXIT_FINE;
        default:
            return usage();
        }
    command = argv[optind] ? argv[optind] : "";
    count = argc - optind;
    sends = !strcmp(command, "send") && count == 3;
    receives = !strcmp(command, "receive") && count == 1;
    resumes = !strcmp(command, "resume-here") && count == 2;
    migrates = !strcmp(command, "migrate") && count >= 3;
    welcomes = !strcmp(command, "migrate-receive") && count >= 2;
    if (!sends && !receives && !resumes && !migrates && !welcomes)
        return usage();
    if ((sends || resumes) && xlv_uuid_parse(&uuid, argv[optind + 1])) {
        fprintf(stderr, "xl-vtpm-move: \"%s\" is no uuid\n", argv[optind + 1]);
        return EXIT_USAGE;
    }
    if (sends && (!argv[optind + 2][0] || argv[optind + 2][0] == '-')) {
        fprintf(stderr, "xl-vtpm-move: \"%s\" is no host\n", argv[optind + 2]);
        return EXIT_USAGE;
    }
    if (resumes && !yes) {
        fputs("xl-vtpm-move: nothing was changed. If the other host has this TPM, or takes it "
              "later, there are two of it: look there with `xl-vtpm show` first, then say --yes\n",
              stderr);
        return EXIT_REFUSED;
    }
    signal(SIGPIPE, SIG_IGN);
    xlv_log_set_level(XLV_LOG_WARNING);
    rc = xlv_settings_load(&settings, config, &e);
    if (!rc) {
        rc = sends      ? send_to(&settings, &uuid, rsh, argv[optind + 2], &e)
             : migrates ? migrate(&settings, rsh, argv[optind + 1], argv + optind + 2, &e)
             : welcomes ? migrate_receive(&settings, argv + optind + 1, &status, &e)
             : receives ? xlv_move_take(&settings, STDIN_FILENO, STDOUT_FILENO, &e)
                        : xlv_move_resume_here(&settings, &uuid, &e);
        xlv_settings_deinit(&settings);
    }
    if (rc)
        fprintf(stderr, "xl-vtpm-move: %s\n", e.text[0] ? e.text : xlv_strerror(rc));
    if (sends && rc == XLV_E_GONE)
        fprintf(stderr, "xl-vtpm-move: the TPM was given to %s, which did not confirm it; this "
                "host does not serve it any more. Send it again to make sure.\n",
                argv[optind + 2]);
    else if (migrates && rc == XLV_E_GONE)
        fprintf(stderr, "xl-vtpm-move: the TPM was given to %s, which did not confirm it; look "
                "there with `xl-vtpm show`, and see xl-vtpm-move(8)\n", argv[optind + 1]);
    else if ((sends || migrates) && rc)
        fputs("xl-vtpm-move: nothing was handed over\n", stderr);
    return rc ? exit_code_of(rc) : status;
}
