/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * xl-vtpm: the administrator's command. The table of commands, the table of
 * options, exit codes, and the run of one command. What the commands do is in
 * xl-vtpm-<topic>.c; how to add one is in xl-vtpm.h. All knowledge is the
 * daemon's, the registry's, or of a room of its own (recover, rekey, doctor...).
 */
#include "config.h"

#include "libxl-vtpm/xl-vtpm.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "common/log.h"
#include "libxl-vtpm/registry.h"

static const struct command {
    const char *name;
    int min, max; /* arguments */
    enum { ANY, DAEMON, NEITHER } needs; /* NEITHER: settings and client are its own affair */
    const char *takes; /* options, but for those that all take; separated by spaces */
    int (*run)(struct run *run, struct json_object **result);
    const char *synopsis, *help;
} commands[] = {
    { "list", 0, 0, ANY, "deleted", run_list, "[--deleted]", "the instances of this host" },
    { "show", 1, 1, ANY, "", run_show, "UUID|NUMBER", "one instance in full" },
    { "stats", 0, 1, ANY, "prometheus", run_stats, "[--prometheus] [UUID|NUMBER]",
      "what was counted: commands, commits, how long they took" },
    { "monitor", 0, 1, DAEMON, "", run_monitor, "[UUID|NUMBER]",
      "what the daemon does and notices, line by line, until it is interrupted" },
    { "create", 0, 1, ANY, "tpm-version label", run_create,
      "[--tpm-version 1.2|2.0] [--label TEXT] [UUID]",
      "an instance ahead of its first use; prints its uuid" },
    { "bind", 2, 2, ANY, "devid", run_bind, "[--devid N] DOMAIN UUID|NUMBER",
      "this domain's device gets that TPM where its line names none that is known" },
    { "unbind", 1, 1, ANY, "devid", run_unbind, "[--devid N] DOMAIN", "undo a binding" },
    { "release", 1, 1, ANY, "", run_release, "UUID|NUMBER", "out of quarantine" },
    { "accept", 1, 1, ANY, "reset kept", run_accept, "[--reset|--kept] UUID|NUMBER",
      "what the next restored domain gets, though its save is not the latest" },
    { "label", 2, 2, ANY, "", run_label, "UUID|NUMBER TEXT", "give it a label, or none with \"\"" },
    { "delete", 1, 1, ANY, "yes", run_delete, "[--yes] UUID|NUMBER",
      "serve it to nobody any more; it can be had back" },
    { "undelete", 1, 1, ANY, "", run_undelete, "UUID|NUMBER", "have a deleted one back" },
    { "purge", 0, 1, ANY, "yes expired", run_purge, "[--yes] UUID|NUMBER | --expired",
      "remove a deleted one for ever, or all that were deleted long enough ago" },
    { "measure", 1, 1, ANY, "on off default", run_measure, "--on|--off|--default UUID|NUMBER",
      "whether kernel, ramdisk and command line are measured at its boots" },
    { "measured", 0, 1, ANY, "kernel ramdisk cmdline", run_measured,
      "[--kernel FILE [--ramdisk FILE] [--cmdline TEXT]] [UUID|NUMBER]",
      "what was measured at the last boot, compared with the files now; or what will be" },
    { "pcrs", 1, 1, ANY, "", run_pcrs, "UUID|NUMBER", "what the PCRs of its TPM are now" },
    { "recover", 1, 1, ANY, "use-slot yes release", run_recover,
      "[--use-slot 0|1] [--yes] [--release] UUID|NUMBER",
      "what can be read of a state; choose what to go on with" },
    { "rekey", 0, 0, ANY, "", run_rekey, "", "change the master key" },
    { "share", 1, 1, ANY, "", run_share, "UUID|NUMBER",
      "put an instance on storage that other hosts have, too" },
    { "unshare", 1, 1, ANY, "", run_unshare, "UUID|NUMBER", "and back" },
    { "ca", 1, 1, ANY, "", run_ca, "init|show|export", "the CA that signs for new TPMs" },
    { "ek-cert", 1, 1, ANY, "key csr install", run_ek_cert,
      "[--key rsa2048|p384|p256|platform] [--csr | --install FILE] UUID|NUMBER",
      "the certificate of a TPM's endorsement key, what another CA needs to make one, or one of it "
      "into the TPM" },
    { "export", 2, 2, ANY, "swtpm swtpm-key passphrase-file", run_export,
      "[--passphrase-file FILE | --swtpm [--swtpm-key KEY]] UUID|NUMBER FILE",
      "one TPM into a file: an archive under a passphrase, or a state file of swtpm" },
    { "import", 1, 2, ANY, "passphrase-file swtpm-key tpm-version label replace", run_import,
      "[--passphrase-file FILE | --swtpm-key KEY] [--tpm-version 1.2|2.0] [--label TEXT] "
      "[--replace] FILE [UUID]",
      "an instance from such a file; prints its uuid" },
    { "clear", 1, 1, ANY, "yes", run_clear, "[--yes] UUID|NUMBER",
      "a TPM without its owner and lockout; its endorsement key stays" },
    { "reset", 1, 1, ANY, "yes", run_reset, "[--yes] UUID|NUMBER",
      "a new TPM under the same uuid; the old one is deleted, and can be had back" },
    { "clone", 1, 1, ANY, "new-identity keep-identity uuid label", run_clone,
      "--new-identity|--keep-identity [--uuid UUID] [--label TEXT] UUID|NUMBER",
      "another instance with what that one holds; prints its uuid" },
    { "backup", 1, 1, ANY, "with-keys", run_backup, "[--with-keys] DIRECTORY",
      "registry and states of all TPMs, while their guests run, into a new directory" },
    { "restore", 1, 1, ANY, "", run_restore, "DIRECTORY",
      "all that is in a backup, onto a host that has no TPMs" },
    { "check", 1, 1, ANY, "", run_check, "FILE",
      "what each vtpm entry of a domain's configuration will get" },
    { "status", 0, 0, DAEMON, "", run_status, "", "how the daemon is" },
    { "doctor", 0, 0, NEITHER, "", run_doctor, "", "what is wrong on this host, and what to do" },
};
#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

/*
 * Where an option goes in struct run: a bool where it has no value, else a
 * const char *. Those without help are for the commands that list them.
 */
static const struct option_entry {
    const char *name;
    char letter; /* 0: none */
    bool value;
    size_t at;
    const char *help;
} entries[] = {
#define FLAG(name, letter, member, help) { name, letter, false, offsetof(struct run, member), help }
#define TEXT(name, letter, member, help) { name, letter, true, offsetof(struct run, member), help }
    FLAG("json", 'j', json, "print JSON"),
    TEXT("config", 'c', config, "FILE, instead of " XLV_SYSCONFDIR "/xen/xl-vtpm.conf"),
    FLAG("offline", 0, offline, "use the files, even where the daemon runs"),
    FLAG("verbose", 'v', verbose, "say where an answer comes from"),
    FLAG("help", 'h', help, "of a command, or this"),
    FLAG("version", 'V', version, "of this program"),
    TEXT("tpm-version", 0, tpm_version, NULL),
    TEXT("label", 0, label, NULL),
    TEXT("devid", 0, devid, NULL),
    TEXT("use-slot", 0, use_slot, NULL),
    TEXT("key", 0, key, NULL),
    FLAG("csr", 0, csr, NULL),
    TEXT("install", 0, install, NULL),
    FLAG("release", 0, release, NULL),
    FLAG("yes", 0, yes, NULL),
    FLAG("reset", 0, reset, NULL),
    FLAG("kept", 0, kept, NULL),
    FLAG("swtpm", 0, swtpm, NULL),
    TEXT("swtpm-key", 0, swtpm_key, NULL),
    TEXT("passphrase-file", 0, passphrase_file, NULL),
    FLAG("replace", 0, replace, NULL),
    FLAG("deleted", 0, deleted, NULL),
    FLAG("prometheus", 0, prometheus, NULL),
    FLAG("expired", 0, expired, NULL),
    FLAG("with-keys", 0, with_keys, NULL),
    FLAG("new-identity", 0, new_identity, NULL),
    FLAG("keep-identity", 0, keep_identity, NULL),
    TEXT("uuid", 0, uuid, NULL),
    FLAG("on", 0, on, NULL),
    FLAG("off", 0, off, NULL),
    FLAG("default", 0, as_set, NULL),
    TEXT("kernel", 0, kernel, NULL),
    TEXT("ramdisk", 0, ramdisk, NULL),
    TEXT("cmdline", 0, cmdline, NULL),
};
#define ENTRIES (sizeof(entries) / sizeof(entries[0]))
#define OPTION_FIRST 256 /* above all letters; then the place in entries */

static int exit_code_of(int rc)
{
    switch (rc) {
    case 0:
        return EXIT_FINE;
    case XLV_E_NOT_FOUND:
        return EXIT_NOT_FOUND;
    case XLV_E_EXISTS:
    case XLV_E_IN_USE:
    case XLV_E_REFUSED:
        return EXIT_REFUSED;
    case XLV_E_INVALID:
        return EXIT_INVALID;
    case XLV_E_CONFLICT:
        return EXIT_UNFINISHED;
    default:
        return EXIT_FAILED;
    }
}

static void print_help(const struct command *command)
{
    if (command) {
        printf("usage: xl-vtpm [OPTION...] %s %s\n%s\n", command->name, command->synopsis,
               command->help);
        return;
    }
    puts("usage: xl-vtpm [OPTION...] COMMAND [ARGUMENT...]\n");
    for (size_t i = 0; i < COMMANDS; i++)
        printf("  %s %s\n      %s\n", commands[i].name, commands[i].synopsis, commands[i].help);
    putchar('\n');
    for (size_t i = 0; i < ENTRIES; i++) {
        char letter[] = { '-', entries[i].letter, ',', ' ', '\0' };

        if (entries[i].help)
            printf("  %4s--%-10s %s\n", entries[i].letter ? letter : "", entries[i].name,
                   entries[i].help);
    }
    puts("\nxl-vtpm(8) has it all.");
}

static int usage(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static int usage(const char *fmt, ...)
{
    va_list ap;

    fputs("xl-vtpm: ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputs("; xl-vtpm --help lists commands and options\n", stderr);
    return EXIT_USAGE;
}

/* Is the word among those of list? */
static bool listed(const char *list, const char *word)
{
    size_t length = strlen(word);

    for (; *list; list += strcspn(list, " "), list += strspn(list, " "))
        if (strcspn(list, " ") == length && !strncmp(list, word, length))
            return true;
    return false;
}

/* An endorsement key, or the platform's certificate; NULL is any. */
static bool is_kind(const char *key)
{
    bool known = !key;

    for (unsigned i = 0; !known && i < XLV_CERTIFICATES; i++)
        known = !strcmp(key, xlv_certificate_name(i));
    return known;
}

/* 0, or the exit code. Options may stand before and behind the command. */
static int parse(int argc, char **argv, struct run *run, const struct command **command)
{
    struct option options[ENTRIES + 1] = { { NULL, 0, NULL, 0 } };
    char letters[2 * ENTRIES + 2] = ":", *next = letters + 1;
    bool given[ENTRIES] = { false };
    int c;

    for (size_t i = 0; i < ENTRIES; i++) {
        options[i].name = entries[i].name;
        options[i].has_arg = entries[i].value ? required_argument : no_argument;
        options[i].val = OPTION_FIRST + (int)i;
        if (entries[i].letter)
            *next++ = entries[i].letter;
        if (entries[i].letter && entries[i].value)
            *next++ = ':';
    }
    *next = '\0';
    opterr = 0;
    while ((c = getopt_long(argc, argv, letters, options, NULL)) != -1) {
        size_t i = 0;

        if (c == ':')
            return usage("%s needs a value", argv[optind - 1]);
        while (i < ENTRIES && c != OPTION_FIRST + (int)i && c != entries[i].letter)
            i++;
        if (c == '?' || i == ENTRIES)
            return usage("%s is not an option here", argv[optind - 1]);
        given[i] = true;
        if (entries[i].value)
            *(const char **)(void *)((char *)run + entries[i].at) = optarg;
        else
            *(bool *)((char *)run + entries[i].at) = true;
    }
    if (optind < argc) {
        for (size_t i = 0; i < COMMANDS; i++)
            if (!strcmp(commands[i].name, argv[optind]))
                *command = &commands[i];
        if (!*command)
            return usage("there is no command %s", argv[optind]);
    }
    if (run->help || run->version)
        return 0;
    if (!*command)
        return usage("a command is needed");
    run->args = argv + optind + 1;
    run->count = argc - optind - 1;
    if (run->count < (*command)->min || run->count > (*command)->max)
        return usage("%s %s arguments", (*command)->name,
                     run->count < (*command)->min ? "needs more" : "takes fewer");
    for (size_t i = 0; i < ENTRIES; i++)
        if (given[i] && !entries[i].help && !listed((*command)->takes, entries[i].name))
            return usage("%s takes no --%s", (*command)->name, entries[i].name);
    if (run->reset && run->kept)
        return usage("--reset and --kept exclude each other");
    if (!is_kind(run->key))
        return usage("--key %s: there are rsa2048, p384, p256 and platform", run->key);
    if (run->csr && run->install)
        return usage("--csr and --install exclude each other");
    if (!strcmp((*command)->name, "measure") && run->on + run->off + run->as_set != 1)
        return usage("one of --on, --off and --default is needed");
    if (!strcmp((*command)->name, "clone") && run->new_identity == run->keep_identity)
        return usage("one of --new-identity (an endorsement key and certificates of its own) and "
                     "--keep-identity (an exact copy) is needed");
    if (run->use_slot && strcmp(run->use_slot, "0") && strcmp(run->use_slot, "1"))
        return usage("--use-slot %s: there are slots 0 and 1", run->use_slot);
    if (run->offline && (*command)->needs != ANY)
        return usage("%s cannot be answered --offline", (*command)->name);
    return 0;
}

/* Runs the command; the settings outlive the client. */
static int carry_out(const struct command *command, struct run *run)
{
    struct json_object *result = NULL;
    struct xlv_settings settings;
    int rc;

    /* what the rooms below log about a state is in the reports */
    xlv_log_set_level(run->verbose ? XLV_LOG_INFO : XLV_LOG_ERROR);
    if (command->needs == NEITHER) {
        progress_start(command->name);
        return command->run(run, &result);
    }
    rc = xlv_settings_load(&settings, run->config, &run->e);
    if (rc)
        return rc;
    run->settings = &settings;
    rc = xlv_client_new(&run->client, &settings,
                        command->needs == DAEMON ? XLV_CLIENT_DAEMON
                        : run->offline           ? XLV_CLIENT_OFFLINE
                                                 : XLV_CLIENT_EITHER,
                        &run->e);
    if (!rc && run->verbose)
        fprintf(stderr, "xl-vtpm: %s %s\n",
                xlv_client_online(run->client) ? "asking xl-vtpmd in" : "using the files in",
                xlv_client_online(run->client) ? settings.run_dir : settings.state_dir);
    if (!rc && command->run != run_monitor)
        progress_start(command->name);
    if (!rc)
        rc = command->run(run, &result);
    if (!rc && run->json && result)
        print_json(result);
    json_object_put(result);
    xlv_client_free(run->client);
    xlv_settings_deinit(&settings);
    return rc;
}

int main(int argc, char **argv)
{
    const struct rlimit none = { 0, 0 };
    struct run run = { .e = XLV_ERROR_INIT };
    const struct command *command = NULL;
    int rc;

    /* Keys, states and passphrases are in memory. A debugger may be attached still: who may do that
     * may read the files, too. */
    (void)setrlimit(RLIMIT_CORE, &none);
    rc = parse(argc, argv, &run, &command);
    if (rc)
        return rc;
    if (run.version) {
        puts("xl-vtpm " PACKAGE_VERSION);
        return EXIT_FINE;
    }
    if (run.help) {
        print_help(command);
        return EXIT_FINE;
    }
    /* what a command prints does not meet the line of its progress */
    if (command->run != run_monitor)
        setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    rc = carry_out(command, &run);
    progress_stop();
    if (run.e.text[0])
        fprintf(stderr, "xl-vtpm: %s\n", run.e.text);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "xl-vtpm: the output cannot be written: %s\n", strerror(errno));
        return rc ? exit_code_of(rc) : EXIT_FAILED;
    }
    return exit_code_of(rc);
}
