/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The small rooms of common/: errors, uuids, log lines, descriptors. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/error.h"
#include "common/fd.h"
#include "common/log.h"
#include "common/uuid.h"

static void error_keeps_the_innermost_sentence(void **state)
{
    struct xlv_error e = XLV_ERROR_INIT;

    (void)state;
    assert_int_equal(xlv_fail(&e, -EIO, "slot %d cannot be read", 1), -EIO);
    assert_int_equal(xlv_fail(&e, -EINVAL, "outer words"), -EINVAL);
    assert_string_equal(e.text, "slot 1 cannot be read");
    xlv_error_clear(&e);
    assert_string_equal(e.text, "");
    assert_int_equal(xlv_fail(NULL, XLV_E_IN_USE, "nobody listens"), XLV_E_IN_USE);
}

static void error_text_is_cut_and_printable(void **state)
{
    struct xlv_error e = XLV_ERROR_INIT;
    char longer[2 * XLV_TEXT_MAX];

    (void)state;
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    longer[3] = '\n';
    longer[4] = '\033';
    xlv_fail(&e, -EIO, "%s", longer);
    assert_int_equal(strlen(e.text), XLV_TEXT_MAX - 1);
    assert_memory_equal(e.text, "xxx??x", 6);
}

static void every_outcome_has_words(void **state)
{
    (void)state;
    for (int code = 0; code <= XLV_E_FORBIDDEN; code++)
        assert_string_not_equal(xlv_strerror(code), "unknown outcome");
    assert_string_equal(xlv_strerror(XLV_E_FORBIDDEN + 1), "unknown outcome");
    assert_string_equal(xlv_strerror(-ENOENT), strerror(ENOENT));
}

static void uuid_accepts_what_xl_accepts(void **state)
{
    static const char *const bad[] = {
        "", "x", "dcdb124b9fed4040b149dd2dfd8d094c", "{dcdb124b-9fed-4040-b149-dd2dfd8d094c}",
        "dcdb124b-9fed-4040-b149-dd2dfd8d094", "dcdb124b-9fed-4040-b149-dd2dfd8d094cc",
        "dcdb124b-9fed-4040-b149-dd2dfd8d094g", " dcdb124b-9fed-4040-b149-dd2dfd8d094c",
    };
    struct xlv_uuid u, v;
    char text[XLV_UUID_TEXT];

    (void)state;
    assert_int_equal(xlv_uuid_parse(&u, "DCDB124B-9fed-4040-b149-dd2dfd8d094c"), 0);
    assert_string_equal(xlv_uuid_format(&u, text), "dcdb124b-9fed-4040-b149-dd2dfd8d094c");
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(xlv_uuid_parse(&v, bad[i]), XLV_E_INVALID);
    xlv_uuid_generate(&v);
    assert_false(xlv_uuid_equal(&u, &v));
    assert_false(xlv_uuid_is_nil(&v));
}

static char captured[2048];

static void capture(enum xlv_log_level level, const struct xlv_log_subject *subject,
                    const char *text)
{
    (void)level;
    (void)subject;
    strncat(captured, text, sizeof(captured) - strlen(captured) - 2);
    strcat(captured, "\n");
}

static void log_drops_what_is_above_the_level(void **state)
{
    enum xlv_log_level level;

    (void)state;
    captured[0] = '\0';
    xlv_log_set_sink(capture);
    assert_int_equal(xlv_log_level_parse(&level, "warning"), 0);
    xlv_log_set_level(level);
    xlv_log(XLV_LOG_INFO, "quiet");
    xlv_log(XLV_LOG_ERROR, "loud\n%s", "\033[2J");
    assert_string_equal(captured, "loud??[2J\n");
    assert_int_equal(xlv_log_level_parse(&level, "loud"), XLV_E_INVALID);
    xlv_log_set_level(XLV_LOG_INFO);
    xlv_log_set_sink(NULL);
}

static void line_on_stderr_names_its_subject(void **state)
{
    struct xlv_uuid u;
    struct xlv_log_subject subject = { .domid = 5, .devid = 0, .uuid = &u, .instance = 3 };
    char line[256] = "";
    int pipefd[2], saved;

    (void)state;
    unsetenv("JOURNAL_STREAM");
    assert_int_equal(xlv_uuid_parse(&u, "dcdb124b-9fed-4040-b149-dd2dfd8d094c"), 0);
    assert_int_equal(pipe(pipefd), 0);
    saved = dup(STDERR_FILENO);
    dup2(pipefd[1], STDERR_FILENO);
    xlv_log_about(&subject, XLV_LOG_WARNING, "slow disk");
    dup2(saved, STDERR_FILENO);
    assert_true(read(pipefd[0], line, sizeof(line) - 1) > 0);
    assert_string_equal(line,
                        "warning: dom 5/0 dcdb124b-9fed-4040-b149-dd2dfd8d094c #3: slow disk\n");
    close(saved);
    close(pipefd[0]);
    close(pipefd[1]);
}

static void ratelimit_passes_a_burst_only(void **state)
{
    struct xlv_ratelimit limit = XLV_RATELIMIT(3, 3600);
    int passed = 0;

    (void)state;
    for (int i = 0; i < 10; i++)
        passed += xlv_ratelimit_pass(&limit);
    assert_int_equal(passed, 3);
    assert_int_equal(limit.dropped, 7);
}

static void message_carries_bytes_and_descriptors(void **state)
{
    int pair[2], pipefd[2], fds[2] = { -1, -1 };
    char buffer[16];
    size_t length = sizeof(buffer), nfds = 2;

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(pipe(pipefd), 0);
    assert_int_equal(xlv_send_message(pair[0], "hello", 5, pipefd, 2), 0);
    assert_int_equal(xlv_receive_message(pair[1], buffer, &length, fds, &nfds), 0);
    assert_int_equal(length, 5);
    assert_int_equal(nfds, 2);
    assert_true(fcntl(fds[0], F_GETFD) & FD_CLOEXEC);
    assert_int_equal(xlv_write_all(fds[1], "x", 1), 0);
    assert_int_equal(xlv_read_all(pipefd[0], buffer, 1), 0);
    for (int i = 0; i < 2; i++) {
        xlv_close(&fds[i]);
        close(pipefd[i]);
    }

    /* longer than the room: refused, and nothing of it is left */
    length = 3;
    assert_int_equal(xlv_send_message(pair[0], "hello", 5, NULL, 0), 0);
    assert_int_equal(xlv_receive_message(pair[1], buffer, &length, NULL, NULL), XLV_E_INVALID);

    close(pair[0]);
    length = sizeof(buffer);
    assert_int_equal(xlv_receive_message(pair[1], buffer, &length, NULL, NULL), XLV_E_GONE);
    assert_int_equal(xlv_send_message(pair[1], "x", 1, NULL, 0), -EPIPE);
    close(pair[1]);
}

static void unexpected_descriptors_are_closed(void **state)
{
    int pair[2], pipefd[2];
    char buffer[16];
    size_t length = sizeof(buffer), nfds = 0;

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(pipe(pipefd), 0);
    assert_int_equal(xlv_send_message(pair[0], "hello", 5, &pipefd[1], 1), 0);
    close(pipefd[1]);
    assert_int_equal(xlv_receive_message(pair[1], buffer, &length, NULL, &nfds), XLV_E_INVALID);
    /* the only writer left was the one in the message */
    assert_int_equal(xlv_read_all(pipefd[0], buffer, 1), -ENODATA);
    close(pipefd[0]);
    close(pair[0]);
    close(pair[1]);
}

static void whole_reads_report_a_short_file(void **state)
{
    char name[] = "/tmp/xlv-common-XXXXXX", buffer[8];
    int fd = mkstemp(name);

    (void)state;
    assert_true(fd >= 0);
    unlink(name);
    assert_int_equal(xlv_pwrite_all(fd, "abcd", 4, 0), 0);
    assert_int_equal(xlv_pread_all(fd, buffer, 4, 0), 0);
    assert_int_equal(xlv_pread_all(fd, buffer, 5, 0), -ENODATA);
    xlv_close(&fd);
    assert_int_equal(fd, -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(error_keeps_the_innermost_sentence),
        cmocka_unit_test(error_text_is_cut_and_printable),
        cmocka_unit_test(every_outcome_has_words),
        cmocka_unit_test(uuid_accepts_what_xl_accepts),
        cmocka_unit_test(log_drops_what_is_above_the_level),
        cmocka_unit_test(line_on_stderr_names_its_subject),
        cmocka_unit_test(ratelimit_passes_a_burst_only),
        cmocka_unit_test(message_carries_bytes_and_descriptors),
        cmocka_unit_test(unexpected_descriptors_are_closed),
        cmocka_unit_test(whole_reads_report_a_short_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
