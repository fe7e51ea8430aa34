/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * xl-vtpmd: serves the vTPM devices of this backend domain.
 *
 * main() reads the settings, sends log lines where they belong, takes signals
 * into the event loop, and tells systemd how things are. Everything else is in
 * daemon.c. It never detaches itself: systemd, an init's supervisor or setsid
 * do that better (xl-vtpmd(8) has the lines).
 */
#include "config.h"

#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* fields are our own; the macros would add the sink's place in this file to each line */
#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>
#include <systemd/sd-journal.h>

#include "common/log.h"
#include "libxl-vtpm/control-server.h"
#include "libxl-vtpm/daemon.h"
#include "libxl-vtpm/privileges.h"
#include "libxl-vtpm/scopes.h"
#include "libxl-vtpm/settings.h"

static void usage(FILE *to)
{
    fputs("usage: xl-vtpmd [--foreground] [--config FILE]\n"
          "Serves the vTPM devices of Xen guests; stays in the foreground.\n"
          "\n"
          "  --config FILE   read FILE, not the default " XLV_SYSCONFDIR "/xen/xl-vtpm.conf\n"
          "  --foreground    as always; accepted so that service files can say it\n"
          "  --version       print the version and exit\n"
          "  --help          print this and exit\n"
          "\n"
          "See xl-vtpmd(8) and xl-vtpm.conf(5).\n",
          to);
}

/* A line with fields, where our standard error is the journal. */
static void journal_sink(enum xlv_log_level level, const struct xlv_log_subject *subject,
                         const char *text)
{
    static const int priority[] = { 3, 4, 5, 6, 7 };
    char uuid[XLV_UUID_TEXT], fields[4][64], message[1200], prefix[96];
    struct iovec iov[7];
    char level_field[16];
    int n = 0, k = 0;

    prefix[0] = '\0';
    snprintf(level_field, sizeof(level_field), "PRIORITY=%d", priority[level]);
    iov[n++] = (struct iovec){ level_field, strlen(level_field) };
    iov[n++] = (struct iovec){ (char *)"SYSLOG_IDENTIFIER=xl-vtpmd", 26 };
    if (subject && subject->domid >= 0) {
        snprintf(fields[k], sizeof(fields[k]), "XLV_DOMID=%d", subject->domid);
        iov[n++] = (struct iovec){ fields[k], strlen(fields[k]) };
        k++;
        snprintf(fields[k], sizeof(fields[k]), "XLV_DEVID=%d", subject->devid);
        iov[n++] = (struct iovec){ fields[k], strlen(fields[k]) };
        k++;
        snprintf(prefix, sizeof(prefix), "dom %d/%d: ", subject->domid, subject->devid);
    }
    if (subject && subject->uuid) {
        snprintf(fields[k], sizeof(fields[k]), "XLV_UUID=%s",
                 xlv_uuid_format(subject->uuid, uuid));
        iov[n++] = (struct iovec){ fields[k], strlen(fields[k]) };
        k++;
    }
    if (subject && subject->instance) {
        snprintf(fields[k], sizeof(fields[k]), "XLV_INSTANCE=%llu",
                 (unsigned long long)subject->instance);
        iov[n++] = (struct iovec){ fields[k], strlen(fields[k]) };
        k++;
    }
    snprintf(message, sizeof(message), "MESSAGE=%s%s", prefix, text);
    iov[n++] = (struct iovec){ message, strlen(message) };
    (void)sd_journal_sendv(iov, n);
}

/* Is our standard error the journal's stream? systemd says which one that is. */
static int stderr_is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat st;

    return stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 &&
           fstat(STDERR_FILENO, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}

static void on_ready(void *opaque)
{
    struct xlv_daemon **daemon = opaque;

    xlv_log(XLV_LOG_NOTICE, "xl-vtpmd %s is ready, %u devices", PACKAGE_VERSION,
            *daemon ? xlv_daemon_devices(*daemon) : 0);
    (void)sd_notify(0, "READY=1\nSTATUS=Serving vTPM devices.");
}

static int block_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    signal(SIGPIPE, SIG_IGN);
    return pthread_sigmask(SIG_BLOCK, &set, NULL);
}

/* Three descriptors for each device soon pass 1024, the usual limit, which is there for the
 * sake of programs that call select(). */
static void lift_file_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int on_hangup(sd_event_source *source, const struct signalfd_siginfo *info, void *opaque)
{
    (void)source;
    (void)info;
    (void)opaque;
    xlv_log(XLV_LOG_NOTICE, "settings are read at the start only; restart the service, running "
                            "TPMs run on meanwhile");
    return 0;
}

static int serve(const struct xlv_settings *settings)
{
    struct xlv_control_server *control = NULL;
    struct xlv_daemon *daemon = NULL;
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_daemon_config config;
    struct xlv_scopes *scopes = NULL;
    sd_event *event = NULL;
    int r;

    r = block_signals();
    if (r == 0)
        r = sd_event_default(&event);
    if (r >= 0)
        r = sd_event_add_signal(event, NULL, SIGTERM, NULL, NULL);
    if (r >= 0)
        r = sd_event_add_signal(event, NULL, SIGINT, NULL, NULL);
    if (r >= 0)
        r = sd_event_add_signal(event, NULL, SIGHUP, on_hangup, NULL);
    if (r >= 0)
        r = sd_event_set_watchdog(event, true);
    if (r < 0) {
        xlv_log(XLV_LOG_ERROR, "cannot set up the event loop: %s", strerror(r < 0 ? -r : r));
        sd_event_unref(event);
        return EXIT_FAILURE;
    }
    if (sd_booted() > 0)
        scopes = xlv_scopes_new(event, sd_bus_open_system);
    config = (struct xlv_daemon_config){
        .event = event, .settings = settings, .scopes = scopes, .ready = on_ready,
        .opaque = &daemon,
    };
    r = xlv_daemon_new(&daemon, &config, &e);
    if (!r)
        r = xlv_control_server_new(&control, event, daemon, settings, &e);
    if (!r) {
        r = sd_event_loop(event);
        if (r < 0)
            xlv_fail(&e, r, "the event loop failed: %s", strerror(-r));
    }
    if (r)
        xlv_log(XLV_LOG_ERROR, "%s", e.text[0] ? e.text : xlv_strerror(r));
    else
        xlv_log(XLV_LOG_NOTICE, "stopping; running TPMs run on and are found again");
    (void)sd_notify(0, "STOPPING=1");
    xlv_control_server_free(control);
    xlv_daemon_free(daemon);
    xlv_scopes_free(scopes);
    sd_event_unref(event);
    return r ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "config", required_argument, NULL, 'c' },
        { "foreground", no_argument, NULL, 'f' },
        { "version", no_argument, NULL, 'v' },
        { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    struct xlv_settings settings;
    struct xlv_error e = XLV_ERROR_INIT;
    const char *path = NULL;
    int option, rc;

    while ((option = getopt_long(argc, argv, "c:fh", options, NULL)) != -1)
        switch (option) {
        case 'c':
            path = optarg;
            break;
        case 'f':
            break;
        case 'v':
            printf("xl-vtpmd %s\n", PACKAGE_VERSION);
            return EXIT_SUCCESS;
        case 'h':
            usage(stdout);
            return EXIT_SUCCESS;
        default:
            usage(stderr);
            return 2;
        }
    if (optind < argc) {
        fprintf(stderr, "xl-vtpmd: what is %s for?\n", argv[optind]);
        usage(stderr);
        return 2;
    }
    if (stderr_is_journal())
        xlv_log_set_sink(journal_sink);
    /* nothing that we make is for others */
    umask(077);
    lift_file_limit();
    rc = xlv_settings_load(&settings, path, &e);
    if (rc) {
        xlv_log(XLV_LOG_ERROR, "%s", e.text[0] ? e.text : xlv_strerror(rc));
        return EXIT_FAILURE;
    }
    xlv_log_set_level(settings.log_level);
    rc = xlv_privileges_limit(&e);
    if (rc) {
        xlv_log(XLV_LOG_ERROR, "%s", e.text);
        rc = EXIT_FAILURE;
    } else {
        rc = serve(&settings);
    }
    xlv_settings_deinit(&settings);
    return rc;
}
