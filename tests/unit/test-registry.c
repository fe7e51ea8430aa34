/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The registry: the rules of lookup, what several processes do to each other,
 * and what is left after a crash, on a bad disk, with a bad file.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "common/fd.h"
#include "libxl-vtpm/registry.h"

static char dir[64];

static int setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/xlv-registry-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    char command[128];

    (void)state;
    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    return system(command);
}

static const char *in_dir(const char *name)
{
    static char path[2][256];
    static int which;

    which = !which;
    snprintf(path[which], sizeof(path[which]), "%s/%s", dir, name);
    return path[which];
}

static struct xlv_registry *open_it(void)
{
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_registry *r;

    if (xlv_registry_open(&r, dir, true, &e))
        fail_msg("%s", e.text);
    return r;
}

/* Runs SQL past the registry, as nobody should. */
static void sql(const char *text)
{
    sqlite3 *db;
    char *why = NULL;

    assert_int_equal(sqlite3_open(in_dir("vtpm.db"), &db), SQLITE_OK);
    sqlite3_busy_timeout(db, 5000);
    if (sqlite3_exec(db, text, NULL, NULL, &why) != SQLITE_OK)
        fail_msg("%s: %s", text, why);
    sqlite3_close(db);
}

static struct xlv_uuid uuid_of(unsigned n)
{
    struct xlv_uuid u = { .b = { 0xdc, 0xdb, 0x12, 0x4b, 0x9f, 0xed, 0x40, 0x40, 0xb1 } };

    for (int i = 0; i < 4; i++)
        u.b[12 + i] = (uint8_t)(n >> (8 * (3 - i)));
    return u;
}

static struct xlv_lookup lookup_of(unsigned n, const char *domain, unsigned devid)
{
    return (struct xlv_lookup){
        .uuid = uuid_of(n),
        .domain_name = domain,
        .devid = devid,
        .unknown_uuid = XLV_UNKNOWN_UUID_ASSIGN,
        .default_version = XLV_TPM_2_0,
    };
}

/* Resolves and gives the number; the rule must be the one expected. */
static uint64_t resolve(struct xlv_registry *r, unsigned n, const char *domain, unsigned devid,
                        enum xlv_rule expected)
{
    struct xlv_lookup lookup = lookup_of(n, domain, devid);
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_instance instance;
    enum xlv_rule rule;

    if (xlv_registry_resolve(r, &lookup, &instance, &rule, &e))
        fail_msg("%s", e.text);
    if (rule != expected)
        fail_msg("uuid %u, domain %s: %s instead of %s", n, domain ? domain : "(null)",
                 xlv_rule_name(rule), xlv_rule_name(expected));
    return instance.number;
}

static void the_same_uuid_is_the_same_instance_for_ever(void **state)
{
    struct xlv_registry *r = open_it();
    uint64_t first = resolve(r, 1, "web", 0, XLV_RULE_ASSIGNED);

    (void)state;
    assert_int_equal(first, 1);
    assert_int_equal(resolve(r, 1, "web", 0, XLV_RULE_UUID), first);
    assert_int_equal(resolve(r, 1, "another", 0, XLV_RULE_UUID), first);
    assert_int_equal(resolve(r, 1, NULL, 0, XLV_RULE_UUID), first);
    assert_int_equal(resolve(r, 2, "db", 0, XLV_RULE_ASSIGNED), 2);
    xlv_registry_close(r);
    r = open_it();
    assert_int_equal(resolve(r, 1, "web", 0, XLV_RULE_UUID), first);
    xlv_registry_close(r);
}

static void a_guest_without_a_uuid_keeps_its_tpm_by_its_name(void **state)
{
    struct xlv_registry *r = open_it();
    uint64_t number = resolve(r, 1, "web", 0, XLV_RULE_ASSIGNED);

    (void)state;
    assert_int_equal(resolve(r, 2, "web", 0, XLV_RULE_BINDING), number);
    assert_int_equal(resolve(r, 3, "web", 0, XLV_RULE_BINDING), number);
    /* its second device, and another domain, are others */
    assert_int_not_equal(resolve(r, 4, "web", 1, XLV_RULE_ASSIGNED), number);
    assert_int_not_equal(resolve(r, 5, "WEB", 0, XLV_RULE_ASSIGNED), number);
    /* without a name there is only the uuid */
    assert_int_not_equal(resolve(r, 6, NULL, 0, XLV_RULE_ASSIGNED), number);
    assert_int_not_equal(resolve(r, 7, "", 0, XLV_RULE_ASSIGNED), number);
    xlv_registry_close(r);
}

static void a_domain_being_received_is_found_by_its_own_name(void **state)
{
    struct xlv_registry *r = open_it();
    uint64_t number = resolve(r, 1, "web", 0, XLV_RULE_ASSIGNED);
    uint64_t other;

    (void)state;
    assert_int_equal(resolve(r, 2, "web--incoming", 0, XLV_RULE_BINDING), number);
    other = resolve(r, 3, "new--incoming", 0, XLV_RULE_ASSIGNED);
    assert_int_equal(resolve(r, 4, "new", 0, XLV_RULE_BINDING), other);
    /* the suffix alone is a name */
    assert_int_not_equal(resolve(r, 5, "--incoming", 0, XLV_RULE_ASSIGNED), other);
    xlv_registry_close(r);
}

static void dropping_the_uuid_from_the_line_keeps_the_tpm(void **state)
{
    struct xlv_registry *r = open_it();
    struct xlv_uuid u = uuid_of(1);
    struct xlv_instance made;

    (void)state;
    assert_int_equal(xlv_registry_create(r, &u, XLV_TPM_1_2, "made first", &made, NULL), 0);
    assert_int_equal(resolve(r, 1, "web", 0, XLV_RULE_UUID), made.number);
    assert_int_equal(resolve(r, 2, "web", 0, XLV_RULE_BINDING), made.number);
    xlv_registry_close(r);
}

static void an_automatic_binding_follows_the_last_use_an_administrators_stays(void **state)
{
    struct xlv_registry *r = open_it();
    struct xlv_uuid u = uuid_of(2);
    struct xlv_instance made;

    (void)state;
    assert_int_equal(resolve(r, 1, "web", 0, XLV_RULE_ASSIGNED), 1);
    assert_int_equal(xlv_registry_create(r, &u, XLV_TPM_2_0, NULL, &made, NULL), 0);
    assert_int_equal(resolve(r, 2, "web", 0, XLV_RULE_UUID), 2);
    assert_int_equal(resolve(r, 9, "web", 0, XLV_RULE_BINDING), 2);

    assert_int_equal(xlv_registry_bind(r, 1, "web", 0, NULL), 0);
    assert_int_equal(resolve(r, 2, "web", 0, XLV_RULE_UUID), 2);
    assert_int_equal(resolve(r, 9, "web", 0, XLV_RULE_BINDING), 1);
    xlv_registry_close(r);
}

static void refuse_makes_no_instance_and_says_what_to_do(void **state)
{
    struct xlv_registry *r = open_it();
    struct xlv_lookup lookup = lookup_of(1, "web", 0);
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_instance instance;
    enum xlv_rule rule;

    (void)state;
    lookup.unknown_uuid = XLV_UNKNOWN_UUID_REFUSE;
    assert_int_equal(xlv_registry_resolve(r, &lookup, &instance, &rule, &e), XLV_E_REFUSED);
    assert_non_null(strstr(e.text, "web"));
    assert_non_null(strstr(e.text, "xl-vtpm create"));
    assert_int_equal(xlv_registry_get_number(r, 1, &instance, NULL), XLV_E_NOT_FOUND);
    assert_int_equal(xlv_registry_create(r, &lookup.uuid, XLV_TPM_2_0, NULL, &instance, NULL), 0);
    assert_int_equal(xlv_registry_resolve(r, &lookup, &instance, &rule, NULL), 0);
    assert_int_equal(rule, XLV_RULE_UUID);
    xlv_registry_close(r);
}

/* A daemon does nothing else meanwhile. */
static void so_many_are_purged_at_once(void **state)
{
    struct xlv_registry *r = open_it();
    struct xlv_instance instance;
    struct xlv_uuid uuid;
    unsigned count;
    bool more;

    (void)state;
    for (unsigned i = 0; i < XLV_PURGE_AT_ONCE + 2; i++) {
        xlv_uuid_generate(&uuid);
        assert_int_equal(xlv_registry_create(r, &uuid, XLV_TPM_2_0, NULL, &instance, NULL), 0);
        assert_int_equal(xlv_registry_delete(r, instance.number, NULL), 0);
    }
    assert_int_equal(xlv_registry_purge_older(r, 0, 0, &count, &more, NULL), 0);
    assert_int_equal(count, XLV_PURGE_AT_ONCE);
    assert_true(more);
    assert_int_equal(xlv_registry_purge_older(r, 0, count, &count, &more, NULL), 0);
    assert_int_equal(count, 2);
    assert_false(more);
    xlv_registry_close(r);
}

static void what_was_deleted_is_refused_and_not_made_anew(void **state)
{
    struct xlv_registry *r = open_it();
    struct xlv_lookup by_uuid = lookup_of(1, "web", 0), by_name = lookup_of(2, "web", 0);
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_instance instance;
    enum xlv_rule rule;

    (void)state;
    assert_int_equal(xlv_registry_resolve(r, &by_uuid, &instance, &rule, NULL), 0);
    assert_int_equal(instance.number, 1);
    assert_int_equal(xlv_registry_undelete(r, 1, NULL), XLV_E_INVALID);
    assert_int_equal(xlv_registry_purge(r, 1, NULL), XLV_E_INVALID);
    assert_int_equal(xlv_registry_delete(r, 2, NULL), XLV_E_NOT_FOUND);
    assert_int_equal(xlv_registry_delete(r, 1, NULL), 0);
    assert_int_equal(xlv_registry_delete(r, 1, NULL), XLV_E_EXISTS);
    /* neither by its uuid nor by its domain */
    assert_int_equal(xlv_registry_resolve(r, &by_uuid, &instance, &rule, &e), XLV_E_REFUSED);
    assert_non_null(strstr(e.text, "undelete 1"));
    assert_int_equal(xlv_registry_resolve(r, &by_name, &instance, &rule, NULL), XLV_E_REFUSED);
    assert_int_equal(xlv_registry_preview(r, &by_name, &instance, &rule, NULL), XLV_E_REFUSED);
    assert_int_equal(xlv_registry_create(r, &by_uuid.uuid, XLV_TPM_2_0, NULL, &instance, NULL),
                     XLV_E_EXISTS);
    assert_int_equal(xlv_registry_bind(r, 1, "db", 0, NULL), XLV_E_REFUSED);
    assert_int_equal(xlv_registry_get_number(r, 2, &instance, NULL), XLV_E_NOT_FOUND);
    /* and back again, with all that belonged to it */
    assert_int_equal(xlv_registry_undelete(r, 1, NULL), 0);
    assert_int_equal(xlv_registry_resolve(r, &by_name, &instance, &rule, NULL), 0);
    assert_int_equal(instance.number, 1);
    assert_int_equal(rule, XLV_RULE_BINDING);
    /* gone for good: the uuid is unknown, the number is not used again */
    assert_int_equal(xlv_registry_delete(r, 1, NULL), 0);
    assert_int_equal(xlv_registry_purge(r, 1, NULL), 0);
    assert_int_equal(xlv_registry_resolve(r, &by_uuid, &instance, &rule, NULL), 0);
    assert_int_equal(rule, XLV_RULE_ASSIGNED);
    assert_int_equal(instance.number, 2);
    xlv_registry_close(r);
}

static void preview_tells_the_same_and_changes_nothing(void **state)
{
    struct xlv_registry *r = open_it();
    struct xlv_lookup lookup = lookup_of(1, "web", 0);
    struct xlv_instance instance;
    enum xlv_rule rule;

    (void)state;
    lookup.default_version = XLV_TPM_1_2;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(xlv_registry_preview(r, &lookup, &instance, &rule, NULL), 0);
        assert_int_equal(rule, XLV_RULE_ASSIGNED);
        assert_int_equal(instance.number, 0);
        assert_int_equal(instance.tpm_version, XLV_TPM_1_2);
    }
    resolve(r, 1, "web", 0, XLV_RULE_ASSIGNED);
    assert_int_equal(xlv_registry_preview(r, &lookup, &instance, &rule, NULL), 0);
    assert_int_equal(rule, XLV_RULE_UUID);
    memset(&lookup.uuid, 0, sizeof(lookup.uuid)); /* a line without one */
    assert_int_equal(xlv_registry_preview(r, &lookup, &instance, &rule, NULL), 0);
    assert_int_equal(rule, XLV_RULE_BINDING);
    assert_int_equal(instance.number, 1);
    lookup.domain_name = "other";
    assert_int_equal(xlv_registry_preview(r, &lookup, &instance, &rule, NULL), 0);
    assert_int_equal(rule, XLV_RULE_ASSIGNED);
    lookup.uuid = uuid_of(1);
    assert_int_equal(xlv_registry_preview(r, &lookup, &instance, &rule, NULL), 0);
    memset(&lookup.uuid, 0, sizeof(lookup.uuid));
    assert_int_equal(xlv_registry_preview(r, &lookup, &instance, &rule, NULL), 0);
    assert_int_equal(rule, XLV_RULE_ASSIGNED); /* previewing uuid 1 bound nothing */
    xlv_registry_close(r);
}

static void what_was_noted_is_there_after_reopening(void **state)
{
    struct xlv_registry *r = open_it();
    struct xlv_uuid u = uuid_of(1);
    struct xlv_instance i, got;
    time_t before = time(NULL);

    (void)state;
    assert_int_equal(xlv_registry_create(r, &u, XLV_TPM_1_2, "Büro", &i, NULL), 0);
    assert_int_equal(i.life, XLV_LIFE_NEW);
    assert_int_equal(xlv_registry_create(r, &u, XLV_TPM_1_2, NULL, &i, NULL), XLV_E_EXISTS);
    assert_int_equal(xlv_registry_set_life(r, 1, XLV_LIFE_READY, NULL), 0);
    assert_int_equal(xlv_registry_used(r, 1, "web", "11111111-2222-4333-8444-555555555555",
                                       XLV_USE_BOOT, NULL),
                     0);
    assert_int_equal(xlv_registry_set_life(r, 2, XLV_LIFE_READY, NULL), XLV_E_NOT_FOUND);
    assert_int_equal(xlv_registry_used(r, 2, NULL, NULL, XLV_USE_BOOT, NULL), XLV_E_NOT_FOUND);
    xlv_registry_close(r);
    r = open_it();
    assert_int_equal(xlv_registry_get(r, &u, &got, NULL), 0);
    assert_int_equal(got.number, 1);
    assert_true(xlv_uuid_equal(&got.uuid, &u));
    assert_int_equal(got.tpm_version, XLV_TPM_1_2);
    assert_int_equal(got.life, XLV_LIFE_READY);
    assert_string_equal(got.label, "Büro");
    assert_string_equal(got.directory, "instances/1");
    assert_string_equal(got.last_domain_name, "web");
    assert_string_equal(got.last_domain_uuid, "11111111-2222-4333-8444-555555555555");
    assert_in_range(got.created_s, before, time(NULL));
    assert_in_range(got.last_used_s, before, time(NULL));
    assert_int_equal(xlv_registry_set_label(r, 1, NULL, NULL), 0);
    assert_int_equal(xlv_registry_used(r, 1, NULL, "no uuid", XLV_USE_AGAIN, NULL), 0);
    assert_int_equal(xlv_registry_get_number(r, 1, &got, NULL), 0);
    assert_string_equal(got.label, "");
    assert_string_equal(got.last_domain_name, "");
    assert_string_equal(got.last_domain_uuid, "");
    xlv_registry_close(r);
}

static int collect_binding(const struct xlv_binding *b, void *opaque)
{
    char *text = opaque, one[XLV_DOMAIN_NAME_MAX + 16];

    snprintf(one, sizeof(one), "%s/%u/%c ", b->domain_name, b->devid,
             xlv_binding_origin_name(b->origin)[1]);
    strcat(text, one);
    return 0;
}

static void bindings_are_made_replaced_and_removed(void **state)
{
    struct xlv_registry *r = open_it();
    struct xlv_error e = XLV_ERROR_INIT;
    char text[256] = "";

    (void)state;
    resolve(r, 1, "web", 0, XLV_RULE_ASSIGNED);
    resolve(r, 2, "db", 0, XLV_RULE_ASSIGNED);
    assert_int_equal(xlv_registry_bind(r, 1, "db", 0, NULL), 0);
    assert_int_equal(xlv_registry_bind(r, 1, "mail--incoming", 3, NULL), 0);
    assert_int_equal(xlv_registry_each_binding(r, 1, collect_binding, text, NULL), 0);
    assert_string_equal(text, "db/0/d mail/3/d web/0/u ");
    text[0] = '\0';
    assert_int_equal(xlv_registry_each_binding(r, 2, collect_binding, text, NULL), 0);
    assert_string_equal(text, "");
    assert_int_equal(xlv_registry_unbind(r, "db", 0, NULL), 0);
    assert_int_equal(xlv_registry_unbind(r, "db", 0, &e), XLV_E_NOT_FOUND);
    assert_string_equal(e.text, "domain db, device 0 is not bound");
    xlv_error_clear(&e);
    assert_int_equal(xlv_registry_bind(r, 7, "db", 0, &e), XLV_E_NOT_FOUND);
    assert_string_equal(e.text, "there is no instance 7");
    assert_int_equal(resolve(r, 9, "db", 0, XLV_RULE_ASSIGNED), 3);
    xlv_registry_close(r);
}

static void input_out_of_bounds_is_refused(void **state)
{
    struct xlv_registry *r = open_it();
    struct xlv_lookup lookup = lookup_of(1, "web", XLV_DEVID_MAX + 1);
    char name[XLV_DOMAIN_NAME_MAX + 2], label[XLV_LABEL_MAX + 2];
    static const char *const labels[] = { "two\nlines", "\xff", "cut\xc3", "\xc0\x80", "\x7f" };
    struct xlv_instance i;
    struct xlv_uuid u = uuid_of(1), nil = { .b = { 0 } };
    enum xlv_rule rule;

    (void)state;
    assert_int_equal(xlv_registry_resolve(r, &lookup, &i, &rule, NULL), XLV_E_INVALID);
    memset(name, 'n', sizeof(name));
    name[sizeof(name) - 1] = '\0';
    lookup = lookup_of(1, name, 0);
    assert_int_equal(xlv_registry_resolve(r, &lookup, &i, &rule, NULL), XLV_E_INVALID);
    assert_int_equal(xlv_registry_bind(r, 1, "", 0, NULL), XLV_E_INVALID);
    lookup = lookup_of(1, "web", 0);
    lookup.uuid = nil;
    assert_int_equal(xlv_registry_resolve(r, &lookup, &i, &rule, NULL), XLV_E_INVALID);
    assert_int_equal(xlv_registry_create(r, &nil, XLV_TPM_2_0, NULL, &i, NULL), XLV_E_INVALID);
    for (size_t n = 0; n < sizeof(labels) / sizeof(labels[0]); n++)
        assert_int_equal(xlv_registry_create(r, &u, XLV_TPM_2_0, labels[n], &i, NULL),
                         XLV_E_INVALID);
    memset(label, 'l', sizeof(label));
    label[sizeof(label) - 1] = '\0';
    assert_int_equal(xlv_registry_create(r, &u, XLV_TPM_2_0, label, &i, NULL), XLV_E_INVALID);
    label[XLV_LABEL_MAX] = '\0';
    name[XLV_DOMAIN_NAME_MAX] = '\0';
    assert_int_equal(xlv_registry_create(r, &u, XLV_TPM_2_0, label, &i, NULL), 0);
    assert_int_equal(xlv_registry_used(r, 1, name, NULL, XLV_USE_BOOT, NULL), 0);
    assert_int_equal(xlv_registry_get_number(r, 1, &i, NULL), 0);
    assert_string_equal(i.label, label);
    assert_string_equal(i.last_domain_name, name);
    assert_int_equal(xlv_registry_get_number(r, UINT64_MAX, &i, NULL), XLV_E_NOT_FOUND);
    assert_int_equal(xlv_registry_get_number(r, 0, &i, NULL), XLV_E_NOT_FOUND);
    xlv_registry_close(r);
}

static int stop_at_two(const struct xlv_instance *i, void *opaque)
{
    *(uint64_t *)opaque += i->number;
    return i->number == 2 ? 77 : 0;
}

static int sum(const struct xlv_instance *i, void *opaque)
{
    *(uint64_t *)opaque += i->number;
    return 0;
}

static void instances_are_visited_in_order_until_told_to_stop(void **state)
{
    struct xlv_registry *r = open_it();
    uint64_t total = 0;

    (void)state;
    for (unsigned n = 1; n <= 3; n++)
        resolve(r, n, NULL, 0, XLV_RULE_ASSIGNED);
    assert_int_equal(xlv_registry_each(r, stop_at_two, &total, NULL), 77);
    assert_int_equal(total, 3);
    total = 0;
    assert_int_equal(xlv_registry_each(r, sum, &total, NULL), 0);
    assert_int_equal(total, 6);
    xlv_registry_close(r);
}

static void files_are_for_their_owner_only_and_directories_exist(void **state)
{
    static const char *const names[] = { "vtpm.db", "vtpm.db-wal", "vtpm.db-shm" };
    mode_t old = umask(0);
    struct xlv_registry *r = open_it();
    struct xlv_instance i;
    struct stat st;
    int fd;

    (void)state;
    resolve(r, 1, NULL, 0, XLV_RULE_ASSIGNED);
    umask(old);
    for (size_t n = 0; n < sizeof(names) / sizeof(names[0]); n++) {
        assert_int_equal(stat(in_dir(names[n]), &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
    }
    assert_int_equal(stat(in_dir("instances"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(xlv_registry_get_number(r, 1, &i, NULL), 0);
    assert_int_equal(xlv_registry_directory(r, &i, &fd, NULL), 0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    close(fd);
    assert_int_equal(rmdir(in_dir("instances/1")), 0);
    assert_int_equal(xlv_registry_directory(r, &i, &fd, NULL), XLV_E_NOT_FOUND);
    assert_int_equal(fd, -1);
    xlv_registry_close(r);
}

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static void numbers_are_never_used_again(void **state)
{
    struct xlv_registry *r = open_it();

    (void)state;
    for (unsigned n = 1; n <= 3; n++)
        resolve(r, n, NULL, 0, XLV_RULE_ASSIGNED);
    xlv_registry_close(r);
    sql("DELETE FROM instance WHERE number = 3");
    assert_int_equal(rmdir(in_dir("instances/3")), 0);
    r = open_it();
    assert_int_equal(resolve(r, 4, NULL, 0, XLV_RULE_ASSIGNED), 4);
    /* a directory that the database knows nothing of: an old copy was put back */
    assert_int_equal(mkdir(in_dir("instances/41"), 0700), 0);
    assert_int_equal(mkdir(in_dir("instances/99x"), 0700), 0);
    assert_int_equal(mkdir(in_dir("instances/007"), 0700), 0);
    assert_int_equal(mkdir(in_dir("instances/99999999999999999999"), 0700), 0);
    assert_int_equal(resolve(r, 5, NULL, 0, XLV_RULE_ASSIGNED), 42);
    assert_int_equal(rmdir(in_dir("instances/42")), 0);
    assert_int_equal(resolve(r, 6, NULL, 0, XLV_RULE_ASSIGNED), 43);
    xlv_registry_close(r);
}

static void expect_refusal(int code, const char *words)
{
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_registry *r;

    for (int create = 0; create < 2; create++) {
        int rc;

        xlv_error_clear(&e);
        rc = xlv_registry_open(&r, dir, create, &e);
        if (rc != code || !strstr(e.text, words))
            fail_msg("create %d: %d, \"%s\" instead of %d, \"%s\"", create, rc, e.text, code,
                     words);
        assert_null(r);
        assert_non_null(strstr(e.text, dir));
    }
}

static void a_lost_database_is_not_started_afresh(void **state)
{
    struct xlv_registry *r = open_it();

    (void)state;
    resolve(r, 1, "web", 0, XLV_RULE_ASSIGNED);
    xlv_registry_close(r);
    write_text(in_dir("instances/1/state-0"), "state");

    assert_int_equal(unlink(in_dir("vtpm.db")), 0);
    expect_refusal(XLV_E_CORRUPT, "missing or empty");
    assert_int_equal(access(in_dir("vtpm.db"), F_OK), -1);
    write_text(in_dir("vtpm.db"), "");
    expect_refusal(XLV_E_CORRUPT, "missing or empty");

    /* directories without state are what a crash leaves: no reason to refuse */
    assert_int_equal(unlink(in_dir("instances/1/state-0")), 0);
    r = open_it();
    assert_int_equal(resolve(r, 1, "web", 0, XLV_RULE_ASSIGNED), 2);
    xlv_registry_close(r);
}

static void no_registry_is_told_from_a_bad_one(void **state)
{
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_registry *r;

    (void)state;
    assert_int_equal(xlv_registry_open(&r, dir, false, &e), XLV_E_NOT_FOUND);
    assert_int_equal(access(in_dir("vtpm.db"), F_OK), -1);
    assert_int_equal(xlv_registry_open(&r, in_dir("none"), false, NULL), XLV_E_NOT_FOUND);
    assert_int_equal(xlv_registry_open(&r, in_dir("none/below"), true, NULL), -ENOENT);
    assert_int_equal(xlv_registry_open(&r, in_dir("made"), true, NULL), 0);
    xlv_registry_close(r);
    write_text(in_dir("file"), "");
    assert_int_equal(xlv_registry_open(&r, in_dir("file"), true, NULL), -ENOTDIR);
}

static void what_is_not_our_database_is_left_alone(void **state)
{
    sqlite3 *db;
    char text[64];
    FILE *f;

    (void)state;
    write_text(in_dir("vtpm.db"), "this is no database, though it is long enough to be looked at "
                                  "as if it were one; more text, more text, more text, more text");
    expect_refusal(XLV_E_CORRUPT, "damaged");
    f = fopen(in_dir("vtpm.db"), "r");
    assert_non_null(fgets(text, sizeof(text), f));
    assert_memory_equal(text, "this is no database", 19);
    fclose(f);

    assert_int_equal(unlink(in_dir("vtpm.db")), 0);
    assert_int_equal(sqlite3_open(in_dir("vtpm.db"), &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "CREATE TABLE cookies (a)", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    expect_refusal(XLV_E_CORRUPT, "another program");
    assert_int_equal(unlink(in_dir("vtpm.db")), 0);
    assert_int_equal(mkdir(in_dir("vtpm.db"), 0700), 0);
    expect_refusal(XLV_E_CORRUPT, "not a file");
}

/* As after the repair that docs/registry.md describes. */
static void a_restored_dump_is_taken_and_gets_its_log_again(void **state)
{
    struct xlv_registry *r = open_it();
    char command[512];

    (void)state;
    resolve(r, 1, "web", 0, XLV_RULE_ASSIGNED);
    resolve(r, 2, "db", 0, XLV_RULE_ASSIGNED);
    xlv_registry_close(r);
    snprintf(command, sizeof(command),
             "cd '%s' && sqlite3 vtpm.db .dump | sqlite3 new.db && sqlite3 new.db "
             "'PRAGMA application_id = 1482052685; PRAGMA user_version = 3' && mv new.db vtpm.db",
             dir);
    assert_int_equal(system(command), 0);
    r = open_it();
    assert_int_equal(resolve(r, 1, "web", 0, XLV_RULE_UUID), 1);
    assert_int_equal(resolve(r, 9, "db", 0, XLV_RULE_BINDING), 2);
    assert_int_equal(resolve(r, 3, NULL, 0, XLV_RULE_ASSIGNED), 3);
    assert_int_equal(access(in_dir("vtpm.db-wal"), F_OK), 0);
    xlv_registry_close(r);
}

/* As schema 1 made it. */
static const char schema_1[] =
    "CREATE TABLE instance (number INTEGER PRIMARY KEY AUTOINCREMENT,"
    "  uuid TEXT NOT NULL UNIQUE CHECK (length(uuid) = 36),"
    "  tpm_version INTEGER NOT NULL CHECK (tpm_version IN (12, 20)),"
    "  life TEXT NOT NULL CHECK (life IN ('new', 'ready', 'quarantined')),"
    "  created INTEGER NOT NULL, last_used INTEGER NOT NULL DEFAULT 0,"
    "  last_domain_name TEXT NOT NULL DEFAULT '', last_domain_uuid TEXT NOT NULL DEFAULT '',"
    "  label TEXT NOT NULL DEFAULT '');"
    "CREATE TABLE binding (domain TEXT NOT NULL, devid INTEGER NOT NULL,"
    "  instance INTEGER NOT NULL REFERENCES instance (number) ON DELETE RESTRICT,"
    "  origin TEXT NOT NULL CHECK (origin IN ('automatic', 'administrator')),"
    "  created INTEGER NOT NULL, PRIMARY KEY (domain, devid)) WITHOUT ROWID;"
    "CREATE INDEX binding_instance ON binding (instance);"
    "INSERT INTO instance (uuid, tpm_version, life, created, label) VALUES"
    "  ('00000000-0000-4000-8000-000000000001', 12, 'ready', 1000, 'old');"
    "INSERT INTO binding VALUES ('web', 0, 1, 'administrator', 1000);"
    "PRAGMA application_id = 1482052685; PRAGMA user_version = 1";

static void an_older_schema_is_brought_up_to_date(void **state)
{
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_instance i;
    struct xlv_registry *r;

    (void)state;
    sql(schema_1);
    assert_int_equal(mkdir(in_dir("instances"), 0700), 0);
    assert_int_equal(mkdir(in_dir("instances/1"), 0700), 0);
    assert_int_equal(xlv_registry_open(&r, dir, false, &e), XLV_E_VERSION);
    assert_non_null(strstr(e.text, "start xl-vtpmd"));
    r = open_it();
    assert_int_equal(xlv_registry_get_number(r, 1, &i, NULL), 0);
    assert_string_equal(i.label, "old");
    assert_int_equal(i.tpm_version, XLV_TPM_1_2);
    assert_int_equal(i.suspended.at_s, 0);
    assert_int_equal(i.suspended.mark, -1);
    assert_int_equal(i.accept, XLV_ACCEPT_NONE);
    assert_int_equal(i.late_attach_s, 0);
    assert_int_equal(resolve(r, 9, "web", 0, XLV_RULE_BINDING), 1);
    xlv_registry_close(r);
}

static void what_is_suspended_is_over_when_a_boot_begins(void **state)
{
    const struct xlv_suspended suspended = {
        .domid = 7, .domain_uuid = "11111111-2222-4333-8444-555555555555", .mark = 0xfffffff0,
    };
    struct xlv_registry *r = open_it();
    struct xlv_instance i;

    (void)state;
    resolve(r, 1, "web", 0, XLV_RULE_ASSIGNED);
    assert_int_equal(xlv_registry_suspended(r, 2, &suspended, NULL), XLV_E_NOT_FOUND);
    assert_int_equal(xlv_registry_accept(r, 1, XLV_ACCEPT_RESET, NULL), 0);
    assert_int_equal(xlv_registry_suspended(r, 1, &suspended, NULL), 0);
    xlv_registry_close(r);
    r = open_it();
    assert_int_equal(xlv_registry_get_number(r, 1, &i, NULL), 0);
    assert_true(i.suspended.at_s > 0);
    assert_int_equal(i.suspended.domid, 7);
    assert_string_equal(i.suspended.domain_uuid, suspended.domain_uuid);
    assert_int_equal(i.suspended.mark, 0xfffffff0);
    /* what was accepted before was about another save */
    assert_int_equal(i.accept, XLV_ACCEPT_NONE);
    assert_int_equal(xlv_registry_accept(r, 1, XLV_ACCEPT_KEPT, NULL), 0);
    assert_int_equal(xlv_registry_used(r, 1, "web", NULL, XLV_USE_AGAIN, NULL), 0);
    assert_int_equal(xlv_registry_get_number(r, 1, &i, NULL), 0);
    assert_true(i.suspended.at_s > 0);
    assert_int_equal(i.accept, XLV_ACCEPT_KEPT);
    assert_int_equal(xlv_registry_used(r, 1, "web", NULL, XLV_USE_LATE, NULL), 0);
    assert_int_equal(xlv_registry_get_number(r, 1, &i, NULL), 0);
    assert_int_equal(i.suspended.at_s, 0);
    assert_int_equal(i.suspended.mark, -1);
    assert_int_equal(i.accept, XLV_ACCEPT_NONE);
    assert_true(i.late_attach_s > 0);
    /* how it is measured outlives boots */
    assert_int_equal(i.measure_boot, XLV_MEASURING_DEFAULT);
    assert_int_equal(xlv_registry_measure_boot(r, 1, XLV_MEASURING_ON, NULL), 0);
    assert_int_equal(xlv_registry_used(r, 1, "web", NULL, XLV_USE_LATE, NULL), 0);
    assert_int_equal(xlv_registry_get_number(r, 1, &i, NULL), 0);
    assert_int_equal(i.measure_boot, XLV_MEASURING_ON);
    assert_int_equal(xlv_registry_measure_boot(r, 99, XLV_MEASURING_OFF, NULL), XLV_E_NOT_FOUND);
    /* until the next boot */
    assert_int_equal(xlv_registry_used(r, 1, "web", NULL, XLV_USE_AGAIN, NULL), 0);
    assert_int_equal(xlv_registry_get_number(r, 1, &i, NULL), 0);
    assert_true(i.late_attach_s > 0);
    assert_int_equal(xlv_registry_used(r, 1, "web", NULL, XLV_USE_BOOT, NULL), 0);
    assert_int_equal(xlv_registry_get_number(r, 1, &i, NULL), 0);
    assert_int_equal(i.late_attach_s, 0);
    xlv_registry_close(r);
}

static uint32_t uid_of(struct xlv_registry *r, uint64_t number, uint32_t first, uint32_t count)
{
    struct xlv_error e = XLV_ERROR_INIT;
    uint32_t uid = 0;

    if (xlv_registry_uid(r, number, first, count, &uid, &e))
        fail_msg("%s", e.text);
    return uid;
}

static void each_instance_has_a_uid_of_its_own(void **state)
{
    struct xlv_registry *r = open_it();
    struct xlv_error e = XLV_ERROR_INIT;
    uint32_t uid;

    (void)state;
    for (unsigned i = 1; i <= 4; i++)
        resolve(r, i, NULL, 0, XLV_RULE_ASSIGNED);
    assert_int_equal(uid_of(r, 2, 5000, 3), 5000);
    assert_int_equal(uid_of(r, 1, 5000, 3), 5001);
    assert_int_equal(uid_of(r, 2, 5000, 3), 5000);
    assert_int_equal(uid_of(r, 4, 5000, 3), 5002);
    assert_int_equal(xlv_registry_uid(r, 3, 5000, 3, &uid, &e), XLV_E_REFUSED);
    assert_non_null(strstr(e.text, "backend-uid-count"));
    xlv_registry_close(r);
    /* it is recorded, also where the range grows or moves */
    r = open_it();
    assert_int_equal(uid_of(r, 1, 5000, 100), 5001);
    assert_int_equal(uid_of(r, 3, 5000, 100), 5003);
    assert_int_equal(uid_of(r, 1, 4000, 100), 4000);
    assert_int_equal(uid_of(r, 4, 4000, 2000), 5002);
    assert_int_equal(uid_of(r, 1, 5000, 100), 5001);
    /* nonsense changes nothing */
    xlv_error_clear(&e);
    assert_int_equal(xlv_registry_uid(r, 1, 0, 10, &uid, &e), XLV_E_INVALID);
    assert_int_equal(xlv_registry_uid(r, 1, 10, 0, &uid, NULL), XLV_E_INVALID);
    assert_int_equal(xlv_registry_uid(r, 1, UINT32_MAX - 1, 2, &uid, NULL), XLV_E_INVALID);
    assert_int_not_equal(xlv_registry_uid(r, 99, 5000, 100, &uid, NULL), 0);
    assert_int_equal(uid_of(r, 1, 5000, 100), 5001);
    xlv_registry_close(r);
}

static struct xlv_document document(unsigned seed, const char *serial)
{
    struct xlv_document d = { .length = 100 + seed };

    memset(d.der, (int)seed, d.length);
    memset(d.fingerprint, 'a' + (int)seed % 6, XLV_FINGERPRINT_TEXT - 1);
    snprintf(d.serial, sizeof(d.serial), "%s", serial);
    return d;
}

static void serial_numbers_are_given_once_and_the_last_endorsement_counts(void **state)
{
    static const char *const serials[] = { "40000000000000000000000000000001",
                                           "40000000000000000000000000000002",
                                           "40000000000000000000000000000003" };
    struct xlv_registry *r = open_it();
    static struct xlv_endorsement in, out, none;
    struct xlv_error e = XLV_ERROR_INIT;
    bool any = true;

    (void)state;
    resolve(r, 1, NULL, 0, XLV_RULE_ASSIGNED);
    resolve(r, 2, NULL, 0, XLV_RULE_ASSIGNED);
    assert_int_equal(xlv_registry_signed(r, &any, NULL), 0);
    assert_false(any);
    assert_int_equal(xlv_registry_endorsement(r, 1, &out, NULL), 0);
    assert_memory_equal(&out, &none, sizeof(out));

    in.key[XLV_EK_RSA_2048] = document(1, "");
    in.key[XLV_EK_P256] = document(2, "");
    in.certificate[XLV_EK_RSA_2048] = document(3, serials[0]);
    in.certificate[XLV_CERTIFICATE_PLATFORM] = document(4, serials[1]);
    assert_int_equal(xlv_registry_endorse(r, 1, &in, &e), 0);
    xlv_registry_close(r);
    r = open_it();
    assert_int_equal(xlv_registry_endorsement(r, 1, &out, NULL), 0);
    assert_memory_equal(&out, &in, sizeof(out));
    assert_int_equal(xlv_registry_signed(r, &any, NULL), 0);
    assert_true(any);

    /* the same number again, of another instance or its own: nothing is changed */
    assert_int_not_equal(xlv_registry_endorse(r, 2, &in, &e), 0);
    assert_int_not_equal(xlv_registry_endorse(r, 1, &in, NULL), 0);
    assert_int_equal(xlv_registry_endorsement(r, 2, &out, NULL), 0);
    assert_memory_equal(&out, &none, sizeof(out));
    assert_int_equal(xlv_registry_endorsement(r, 1, &out, NULL), 0);
    assert_memory_equal(&out, &in, sizeof(out));

    /* made again: other keys, fewer of them */
    memset(&in, 0, sizeof(in));
    in.key[XLV_EK_RSA_2048] = document(5, "");
    in.certificate[XLV_EK_RSA_2048] = document(6, serials[2]);
    assert_int_equal(xlv_registry_endorse(r, 1, &in, NULL), 0);
    assert_int_equal(xlv_registry_endorsement(r, 1, &out, NULL), 0);
    assert_memory_equal(&out, &in, sizeof(out));
    in.certificate[XLV_EK_RSA_2048] = document(6, serials[0]); /* no longer in use, but given */
    assert_int_not_equal(xlv_registry_endorse(r, 1, &in, NULL), 0);

    sql("UPDATE ek SET public = zeroblob(5000)");
    assert_int_equal(xlv_registry_endorsement(r, 1, &out, NULL), XLV_E_CORRUPT);
    /* an instance that is no more leaves its serial numbers */
    sql("PRAGMA foreign_keys = ON; DELETE FROM binding; DELETE FROM instance WHERE number = 1");
    assert_int_not_equal(xlv_registry_endorse(r, 2, &in, NULL), 0);
    xlv_registry_close(r);
}

/* Left with a suspended domain, come back without one: what is kept here is of the earlier stay. */
static void what_was_suspended_before_it_left_is_over_when_it_comes_back(void **state)
{
    static const char out[] = "11111111-2222-4333-8444-555555555555";
    static const char back[] = "22222222-2222-4333-8444-555555555555";
    const struct xlv_suspended suspended = {
        .domid = 7, .domain_uuid = "8f0d8f0c-4f4b-4a5e-a5a5-3c0c9e1f2a3b", .mark = 5,
    };
    struct xlv_registry *r = open_it();
    struct xlv_uuid uuid = uuid_of(1);
    struct xlv_instance i;

    (void)state;
    resolve(r, 1, "web", 0, XLV_RULE_ASSIGNED);
    assert_int_equal(xlv_registry_suspended(r, 1, &suspended, NULL), 0);
    assert_int_equal(xlv_registry_accept(r, 1, XLV_ACCEPT_KEPT, NULL), 0);
    assert_int_equal(xlv_registry_offer(r, 1, out, "b", NULL), 0);
    assert_int_equal(xlv_registry_move(r, 1, out, XLV_HANDOVER_DEPARTING, XLV_HANDOVER_DEPARTED,
                                       NULL), 0);
    assert_int_equal(xlv_registry_expect(r, &uuid, XLV_TPM_2_0, false, back, "b", &i, NULL), 0);
    assert_int_equal(i.suspended.at_s, 0);
    assert_int_equal(i.suspended.mark, -1);
    assert_string_equal(i.suspended.domain_uuid, "");
    assert_int_equal(i.accept, XLV_ACCEPT_NONE);
    xlv_registry_close(r);
}

static void a_newer_schema_is_refused(void **state)
{
    (void)state;
    xlv_registry_close(open_it());
    sql("PRAGMA user_version = 4");
    expect_refusal(XLV_E_VERSION, "newer version");
}

static void damage_is_found_and_nothing_is_overwritten(void **state)
{
    static const struct {
        const char *sql;
        const char *words;
    } damage[] = {
        { "DROP TABLE binding", "has not the tables" },
        { "ALTER TABLE instance RENAME COLUMN life TO death", "has not the tables" },
        { "PRAGMA ignore_check_constraints = 1; UPDATE instance SET tpm_version = 13",
          "CHECK constraint failed" },
        { "PRAGMA ignore_check_constraints = 1; UPDATE instance SET life = 'odd'",
          "CHECK constraint failed" },
        { "UPDATE instance SET uuid = 'xcdb124b-9fed-4040-b100-000000000001'", "no valid uuid" },
        { "UPDATE instance SET label = hex(zeroblob(200))", "no valid label" },
        { "UPDATE instance SET last_domain_name = cast(x'780078' AS TEXT)",
          "no valid domain name" },
    };
    struct xlv_instance i;

    (void)state;
    for (size_t n = 0; n < sizeof(damage) / sizeof(damage[0]); n++) {
        struct xlv_error e = XLV_ERROR_INIT;
        struct xlv_registry *r = open_it();
        uint64_t total = 0;
        int rc;

        if (xlv_registry_get_number(r, 1, &i, NULL) == XLV_E_NOT_FOUND)
            resolve(r, 1, "web", 0, XLV_RULE_ASSIGNED);
        xlv_registry_close(r);
        sql(damage[n].sql);
        rc = xlv_registry_open(&r, dir, true, &e);
        if (!rc) {
            rc = xlv_registry_each(r, sum, &total, &e);
            xlv_registry_close(r);
        }
        if (rc != XLV_E_CORRUPT || !strstr(e.text, damage[n].words))
            fail_msg("%s: %d, \"%s\"", damage[n].sql, rc, e.text);
        teardown(NULL);
        mkdir(dir, 0700);
    }
}

/* Every page in turn overwritten, and the file cut: never a crash, never a silent
 * restart; either the damage is found or nothing that counts was hit. */
static void flipped_pages_and_cut_files_are_found(void **state)
{
    struct xlv_registry *r = open_it();
    unsigned found = 0, pages;
    struct stat st;
    char *good;
    int fd;

    (void)state;
    for (unsigned n = 1; n <= 200; n++)
        resolve(r, n, "web", n % 200, XLV_RULE_ASSIGNED);
    xlv_registry_close(r);
    fd = open(in_dir("vtpm.db"), O_RDWR | O_CLOEXEC);
    assert_int_equal(fstat(fd, &st), 0);
    pages = (unsigned)(st.st_size / 4096);
    good = malloc((size_t)st.st_size);
    assert_int_equal(xlv_pread_all(fd, good, (size_t)st.st_size, 0), 0);
    assert_true(pages > 8);
    for (unsigned page = 0; page < 2 * pages; page++) {
        struct xlv_error e = XLV_ERROR_INIT;
        int rc;

        if (page < pages) {
            char junk[4096];

            memset(junk, 0xa5, sizeof(junk));
            assert_int_equal(xlv_pwrite_all(fd, junk, sizeof(junk), page * 4096), 0);
        } else if (page > pages) {
            assert_int_equal(ftruncate(fd, (page - pages) * 4096), 0);
        }
        rc = xlv_registry_open(&r, dir, page % 2, &e);
        if (page == pages) {
            assert_int_equal(rc, 0);
            xlv_registry_close(r);
        } else {
            if (rc != XLV_E_CORRUPT)
                fail_msg("page %u of %u: %d, \"%s\"", page, pages, rc, e.text);
            found++;
        }
        assert_int_equal(ftruncate(fd, st.st_size), 0);
        assert_int_equal(xlv_pwrite_all(fd, good, (size_t)st.st_size, 0), 0);
    }
    assert_int_equal(found, 2 * pages - 1);
    r = open_it();
    assert_int_equal(resolve(r, 77, NULL, 0, XLV_RULE_UUID), 77);
    xlv_registry_close(r);
    free(good);
    close(fd);
}

/*
 * Runs f in a child; its return value is the child's exit status (0 to 255).
 */
static int in_child(int (*f)(void *), void *opaque)
{
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0)
        _exit(f(opaque));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFEXITED(status))
        fail_msg("the child ended with signal %d", WTERMSIG(status));
    return WEXITSTATUS(status);
}

#define EXPECT(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "# line %d: %s\n", __LINE__, #condition); \
            return 1; \
        } \
    } while (0)

static int use_a_read_only_directory(void *opaque)
{
    struct xlv_lookup known = lookup_of(1, "web", 0), unknown = lookup_of(2, "db", 0);
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_instance i;
    struct xlv_registry *r;
    enum xlv_rule rule;

    (void)opaque;
    /* a real read-only disk: root passes over permissions */
    EXPECT(unshare(CLONE_NEWNS) == 0);
    EXPECT(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    EXPECT(mount(dir, dir, NULL, MS_BIND, NULL) == 0);
    EXPECT(mount(NULL, dir, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL) == 0);
    EXPECT(xlv_registry_open(&r, dir, false, &e) == 0);
    EXPECT(xlv_registry_preview(r, &known, &i, &rule, &e) == 0 && i.number == 1);
    EXPECT(xlv_registry_resolve(r, &known, &i, &rule, &e) == 0 && i.number == 1);
    EXPECT(xlv_registry_resolve(r, &unknown, &i, &rule, &e) == -EROFS);
    EXPECT(strstr(e.text, "read-only"));
    xlv_error_clear(&e);
    EXPECT(xlv_registry_bind(r, 1, "x", 0, &e) == -EROFS);
    xlv_registry_close(r);
    return 0;
}

static void on_a_read_only_disk_reading_works_and_writing_says_why(void **state)
{
    struct xlv_registry *r = open_it();

    (void)state;
    resolve(r, 1, "web", 0, XLV_RULE_ASSIGNED);
    xlv_registry_close(r);
    if (geteuid() != 0) {
        print_message("not root: no read-only mount can be made\n");
        skip();
    }
    assert_int_equal(in_child(use_a_read_only_directory, NULL), 0);
    r = open_it();
    assert_int_equal(resolve(r, 2, "db", 0, XLV_RULE_ASSIGNED), 2);
    xlv_registry_close(r);
}

static int use_a_full_disk(void *opaque)
{
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_instance i;
    struct xlv_registry *r;
    enum xlv_rule rule;
    unsigned made = 0;
    struct stat st;
    char path[128];
    int rc = 0, fd;

    (void)opaque;
    EXPECT(unshare(CLONE_NEWNS) == 0);
    EXPECT(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    EXPECT(mount("tmpfs", dir, "tmpfs", 0, "size=1m,mode=0700") == 0);
    EXPECT(xlv_registry_open(&r, dir, true, &e) == 0);
    /* another file takes the room, until the registry has none to grow */
    snprintf(path, sizeof(path), "%s/filler", dir);
    fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    for (char block[4096] = ""; write(fd, block, sizeof(block)) > 0;)
        ;
    for (unsigned n = 1; n < 1000; n++) {
        struct xlv_lookup lookup = lookup_of(n, "web", n % 200);

        lookup.domain_name = NULL;
        rc = xlv_registry_resolve(r, &lookup, &i, &rule, &e);
        if (rc)
            break;
        made = n;
    }
    EXPECT(rc == -ENOSPC || rc == -EIO);
    EXPECT(strstr(e.text, "full") || strstr(e.text, "No space"));
    /* a failed assignment left no directory, and what was there is served */
    snprintf(path, sizeof(path), "%s/instances/%u", dir, made + 1);
    EXPECT(stat(path, &st) < 0);
    for (unsigned n = 1; n <= made; n++) {
        struct xlv_lookup lookup = lookup_of(n, NULL, 0);

        EXPECT(xlv_registry_resolve(r, &lookup, &i, &rule, NULL) == 0);
        EXPECT(i.number == n && rule == XLV_RULE_UUID);
    }
    /* room again: it goes on, in this process and the next */
    EXPECT(ftruncate(fd, 0) == 0);
    close(fd);
    for (int again = 0; again < 2; again++) {
        struct xlv_lookup lookup = lookup_of(made + 1, NULL, 0);

        EXPECT(xlv_registry_resolve(r, &lookup, &i, &rule, NULL) == 0);
        EXPECT(i.number == made + 1);
        xlv_registry_close(r);
        EXPECT(xlv_registry_open(&r, dir, true, NULL) == 0);
    }
    xlv_registry_close(r);
    return 0;
}

static void on_a_full_disk_nothing_is_lost(void **state)
{
    (void)state;
    if (geteuid() != 0) {
        print_message("not root: no small tmpfs can be mounted\n");
        skip();
    }
    assert_int_equal(in_child(use_a_full_disk, NULL), 0);
}

/* Where a file must not grow (RLIMIT_FSIZE gives EFBIG, as a quota gives EDQUOT). */
static int use_a_bounded_file(void *opaque)
{
    const struct rlimit small = { .rlim_cur = 32768, .rlim_max = RLIM_INFINITY };
    const struct rlimit none = { .rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY };
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_instance i;
    struct xlv_registry *r;
    enum xlv_rule rule;
    unsigned made = 0;
    int rc = 0;

    (void)opaque;
    signal(SIGXFSZ, SIG_IGN);
    EXPECT(setrlimit(RLIMIT_FSIZE, &small) == 0);
    rc = xlv_registry_open(&r, dir, true, &e);
    for (unsigned n = 1; !rc && n < 1000; n++) {
        struct xlv_lookup lookup = lookup_of(n, NULL, 0);

        rc = xlv_registry_resolve(r, &lookup, &i, &rule, &e);
        made += !rc;
    }
    EXPECT(rc < 0 && e.text[0]);
    xlv_registry_close(r);
    EXPECT(setrlimit(RLIMIT_FSIZE, &none) == 0);
    EXPECT(xlv_registry_open(&r, dir, true, NULL) == 0);
    for (unsigned n = 1; n <= made; n++) {
        struct xlv_lookup lookup = lookup_of(n, NULL, 0);

        EXPECT(xlv_registry_resolve(r, &lookup, &i, &rule, NULL) == 0);
        EXPECT(rule == XLV_RULE_UUID);
    }
    xlv_registry_close(r);
    return 0;
}

static void where_the_file_may_not_grow_nothing_is_lost(void **state)
{
    (void)state;
    assert_int_equal(in_child(use_a_bounded_file, NULL), 0);
}

#define RACERS 6
#define RACE_UUIDS 12

/* Opens (makes) the registry and resolves all uuids; numbers go into the pipe. */
static int race(void *opaque)
{
    int *ends = opaque;
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_registry *r;
    char go;

    /* all wait for one byte each and then run at once */
    EXPECT(read(ends[0], &go, 1) == 1);
    if (xlv_registry_open(&r, dir, true, &e)) {
        fprintf(stderr, "# %s\n", e.text);
        return 1;
    }
    for (unsigned n = 1; n <= RACE_UUIDS; n++) {
        struct xlv_lookup lookup = lookup_of(n, "web", n);
        uint64_t pair[2] = { n };
        struct xlv_instance i;
        enum xlv_rule rule;

        if (xlv_registry_resolve(r, &lookup, &i, &rule, &e)) {
            fprintf(stderr, "# %s\n", e.text);
            return 1;
        }
        pair[1] = i.number;
        EXPECT(write(ends[3], pair, sizeof(pair)) == sizeof(pair));
    }
    xlv_registry_close(r);
    return 0;
}

/* Opens what is there again and again until it is a registry; anything but "not yet" is a
 * failure. */
static int open_until_there(void)
{
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_registry *r;
    int rc;

    do {
        xlv_error_clear(&e);
        rc = xlv_registry_open(&r, dir, false, &e);
    } while (rc == XLV_E_NOT_FOUND || rc == -EBUSY);
    if (rc) {
        fprintf(stderr, "# %s\n", e.text);
        return 1;
    }
    xlv_registry_close(r);
    return 0;
}

/* Looked at while it was being set up, it was once "a database of another program". */
static void a_registry_is_there_or_not_yet_but_never_half(void **state)
{
    (void)state;
    for (int round = 0; round < 200; round++) {
        pid_t pids[2];
        int status, refused = 0;

        for (int i = 0; i < 2; i++) {
            pids[i] = fork();
            assert_true(pids[i] >= 0);
            if (pids[i] == 0)
                _exit(open_until_there());
        }
        xlv_registry_close(open_it());
        for (int i = 0; i < 2; i++) {
            assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
            refused += status != 0;
        }
        assert_int_equal(refused, 0);
        teardown(NULL);
        mkdir(dir, 0700);
    }
}

static void processes_that_meet_the_same_uuid_get_the_same_instance(void **state)
{
    (void)state;
    for (int round = 0; round < 5; round++) {
        uint64_t number[RACE_UUIDS + 1] = { 0 }, pair[2], total = 0;
        pid_t pids[RACERS];
        int ends[4], status;
        struct xlv_registry *r;

        assert_int_equal(pipe(ends), 0);
        assert_int_equal(pipe(ends + 2), 0);
        for (int i = 0; i < RACERS; i++) {
            pids[i] = fork();
            assert_true(pids[i] >= 0);
            if (pids[i] == 0)
                _exit(race(ends));
        }
        close(ends[3]);
        assert_int_equal(write(ends[1], "xxxxxxxx", RACERS), RACERS);
        while (read(ends[2], pair, sizeof(pair)) == sizeof(pair)) {
            if (number[pair[0]] && number[pair[0]] != pair[1])
                fail_msg("uuid %" PRIu64 " is %" PRIu64 " and %" PRIu64, pair[0], number[pair[0]],
                         pair[1]);
            number[pair[0]] = pair[1];
        }
        for (int i = 0; i < RACERS; i++) {
            assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
            assert_int_equal(status, 0);
        }
        for (unsigned n = 1; n <= RACE_UUIDS; n++)
            assert_true(number[n] >= 1 && number[n] <= RACE_UUIDS);
        r = open_it();
        assert_int_equal(xlv_registry_each(r, sum, &total, NULL), 0);
        assert_int_equal(total, RACE_UUIDS * (RACE_UUIDS + 1) / 2);
        xlv_registry_close(r);
        close(ends[0]);
        close(ends[1]);
        close(ends[2]);
        teardown(NULL);
        mkdir(dir, 0700);
    }
}

/* Assigns from *next on, telling each that was acknowledged, until it is killed. */
static void assign_for_ever(int out, unsigned next)
{
    struct xlv_registry *r;

    if (xlv_registry_open(&r, dir, true, NULL))
        _exit(1);
    for (;; next++) {
        struct xlv_lookup lookup = lookup_of(next, "web", next % 200);
        uint64_t pair[2] = { next };
        struct xlv_instance i;
        enum xlv_rule rule;

        lookup.domain_name = NULL;
        if (xlv_registry_resolve(r, &lookup, &i, &rule, NULL))
            _exit(2);
        pair[1] = i.number;
        if (write(out, pair, sizeof(pair)) != sizeof(pair))
            _exit(3);
    }
}

static void a_kill_at_any_instant_loses_no_acknowledged_assignment(void **state)
{
    enum { KILLS = 60, MANY = 100000 };
    uint64_t *number = calloc(MANY, sizeof(*number));
    unsigned next = 1, acknowledged = 0;
    unsigned short seed[3] = { 1, 2, 3 };

    (void)state;
    for (int kills = 0; kills < KILLS; kills++) {
        /* some die while they open, most in the middle of an assignment */
        struct timespec life = { .tv_nsec = nrand48(seed) % 60000000 };
        struct xlv_error e = XLV_ERROR_INIT;
        struct xlv_registry *r;
        uint64_t pair[2], highest = 0;
        int ends[2], status;
        pid_t pid;

        assert_int_equal(pipe(ends), 0);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0)
            assign_for_ever(ends[1], next);
        close(ends[1]);
        nanosleep(&life, NULL);
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));
        while (read(ends[0], pair, sizeof(pair)) == sizeof(pair)) {
            assert_true(pair[0] < MANY);
            assert_int_equal(number[pair[0]], 0);
            number[pair[0]] = pair[1];
            next = (unsigned)pair[0] + 1;
            acknowledged++;
        }
        close(ends[0]);
        if (xlv_registry_open(&r, dir, true, &e))
            fail_msg("after kill %d: %s", kills, e.text);
        for (unsigned n = 1; n < next; n++) {
            struct xlv_uuid u = uuid_of(n);
            struct xlv_instance i;
            int fd;

            if (xlv_registry_get(r, &u, &i, &e))
                fail_msg("after kill %d: %s", kills, e.text);
            assert_int_equal(i.number, number[n]);
            assert_true(i.number > highest);
            highest = i.number;
            if (n + 20 > next) {
                assert_int_equal(xlv_registry_directory(r, &i, &fd, NULL), 0);
                close(fd);
            }
        }
        xlv_registry_close(r);
    }
    print_message("%d kills, %u assignments acknowledged, none lost\n", KILLS, acknowledged);
    assert_true(acknowledged > KILLS);
    free(number);
}

static void a_path_with_odd_characters_is_opened(void **state)
{
    char path[256], file[512];
    struct xlv_registry *r;

    (void)state;
    snprintf(path, sizeof(path), "%s/a b?c#d%%41e", dir);
    assert_int_equal(xlv_registry_open(&r, path, true, NULL), 0);
    resolve(r, 1, "web", 0, XLV_RULE_ASSIGNED);
    xlv_registry_close(r);
    snprintf(file, sizeof(file), "%s/vtpm.db", path);
    assert_int_equal(access(file, F_OK), 0);
    assert_int_equal(xlv_registry_open(&r, path, false, NULL), 0);
    assert_int_equal(resolve(r, 1, "web", 0, XLV_RULE_UUID), 1);
    xlv_registry_close(r);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_same_uuid_is_the_same_instance_for_ever),
        TEST(a_guest_without_a_uuid_keeps_its_tpm_by_its_name),
        TEST(a_domain_being_received_is_found_by_its_own_name),
        TEST(dropping_the_uuid_from_the_line_keeps_the_tpm),
        TEST(an_automatic_binding_follows_the_last_use_an_administrators_stays),
        TEST(refuse_makes_no_instance_and_says_what_to_do),
        TEST(what_was_deleted_is_refused_and_not_made_anew),
        TEST(so_many_are_purged_at_once),
        TEST(preview_tells_the_same_and_changes_nothing),
        TEST(what_was_noted_is_there_after_reopening),
        TEST(bindings_are_made_replaced_and_removed),
        TEST(input_out_of_bounds_is_refused),
        TEST(instances_are_visited_in_order_until_told_to_stop),
        TEST(files_are_for_their_owner_only_and_directories_exist),
        TEST(numbers_are_never_used_again),
        TEST(a_lost_database_is_not_started_afresh),
        TEST(no_registry_is_told_from_a_bad_one),
        TEST(what_is_not_our_database_is_left_alone),
        TEST(a_restored_dump_is_taken_and_gets_its_log_again),
        TEST(an_older_schema_is_brought_up_to_date),
        TEST(what_is_suspended_is_over_when_a_boot_begins),
        TEST(what_was_suspended_before_it_left_is_over_when_it_comes_back),
        TEST(a_newer_schema_is_refused),
        TEST(each_instance_has_a_uid_of_its_own),
        TEST(serial_numbers_are_given_once_and_the_last_endorsement_counts),
        TEST(damage_is_found_and_nothing_is_overwritten),
        TEST(flipped_pages_and_cut_files_are_found),
        TEST(on_a_read_only_disk_reading_works_and_writing_says_why),
        TEST(on_a_full_disk_nothing_is_lost),
        TEST(where_the_file_may_not_grow_nothing_is_lost),
        TEST(a_registry_is_there_or_not_yet_but_never_half),
        TEST(processes_that_meet_the_same_uuid_get_the_same_instance),
        TEST(a_kill_at_any_instant_loses_no_acknowledged_assignment),
        TEST(a_path_with_odd_characters_is_opened),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
