/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What xl-vtpm doctor says of the host itself: a root directory of ours takes the place of the
 * real /proc, /sys and /dev. The rest is in test-doctor-files.sh and tests/integration/test-states.c. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ftw.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libxl-vtpm/doctor.h"

static char root[64], config[96];

static void make(const char *path, const char *text)
{
    char full[256];
    FILE *f;

    snprintf(full, sizeof(full), "%s%s", root, path);
    for (char *p = full + strlen(root) + 1; (p = strchr(p, '/')); p++) {
        *p = '\0';
        mkdir(full, 0700);
        *p = '/';
    }
    f = fopen(full, "we");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int up(void **state)
{
    (void)state;
    snprintf(root, sizeof(root), "/tmp/test-doctor.XXXXXX");
    if (!mkdtemp(root))
        return -1;
    snprintf(config, sizeof(config), "%s/conf", root);
    make("/conf", "");
    return 0;
}

static int unlink_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static int down(void **state)
{
    (void)state;
    return nftw(root, unlink_one, 8, FTW_DEPTH | FTW_PHYS);
}

static const char *string(struct json_object *json, const char *key)
{
    struct json_object *value = NULL;

    json_object_object_get_ex(json, key, &value);
    return value ? json_object_get_string(value) : "";
}

/* "result: text" of the first finding of this check whose text has `word`; "" if there is none.
 * Whatever it says, a finding that is not ok says what to do. */
static const char *finding(const char *check, const char *word)
{
    static char found[1200];
    struct xlv_doctor what = { .config = config, .root = root };
    struct json_object *report = NULL, *checks = NULL;
    enum xlv_doctor_result worst;

    found[0] = '\0';
    assert_int_equal(xlv_doctor(&what, &worst, &report, NULL), 0);
    json_object_object_get_ex(report, "checks", &checks);
    for (size_t i = json_object_array_length(checks); i-- > 0;) {
        struct json_object *one = json_object_array_get_idx(checks, i);

        if (strcmp(string(one, "result"), "ok"))
            assert_true(strlen(string(one, "advice")) > 5);
        if (!strcmp(string(one, "check"), check) && strstr(string(one, "text"), word))
            snprintf(found, sizeof(found), "%s: %s", string(one, "result"), string(one, "text"));
    }
    json_object_put(report);
    return found;
}

#define ASSERT_BEGINS(text, with) assert_memory_equal(text, with, strlen(with))

static void a_host_without_xen(void **state)
{
    (void)state;
    ASSERT_BEGINS(finding("xen", ""), "problem: this is no Xen host");
    assert_string_equal(finding("devices", ""), "");     /* not asked for */
    assert_string_equal(finding("xenstore", ""), "");
}

static void domain_0(void **state)
{
    (void)state;
    make("/sys/hypervisor/type", "xen\n");
    make("/proc/xen/capabilities", "control_d\n");
    ASSERT_BEGINS(finding("xen", ""), "ok: this is domain 0");
    ASSERT_BEGINS(finding("xenstore", ""), "problem: cannot connect to xenstore");
}

static void a_driver_domain(void **state)
{
    (void)state;
    make("/sys/hypervisor/type", "xen\n");
    ASSERT_BEGINS(finding("xen", ""), "ok: this is a Xen domain");
    make("/sys/hypervisor/type", "kvm\n");
    ASSERT_BEGINS(finding("xen", ""), "problem: this is no Xen host");
}

static void each_device_is_missed(void **state)
{
    static const char *const names[] = { "evtchn", "gntdev", "xenbus" };
    char path[64], want[96];

    (void)state;
    make("/sys/hypervisor/type", "xen\n");
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof(path), "/dev/xen/%s", names[i]);
        snprintf(want, sizeof(want), "problem: there is no %s", path);
        ASSERT_BEGINS(finding("devices", names[i]), want);
        make(path, "");
        snprintf(want, sizeof(want), "ok: %s is there", path);
        assert_string_equal(finding("devices", names[i]), want);
    }
}

static void libtpms_is_found(void **state)
{
    (void)state;
    ASSERT_BEGINS(finding("libtpms", ""), "ok: libtpms 0.");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_host_without_xen, up, down),
        cmocka_unit_test_setup_teardown(domain_0, up, down),
        cmocka_unit_test_setup_teardown(a_driver_domain, up, down),
        cmocka_unit_test_setup_teardown(each_device_is_missed, up, down),
        cmocka_unit_test_setup_teardown(libtpms_is_found, up, down),
    };

    return cmocka_run_group_tests_name("doctor", tests, NULL, NULL);
}
