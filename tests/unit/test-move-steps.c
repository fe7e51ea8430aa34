/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The messages of a handover; its steps are in test-move.sh and test-migrate.c. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "libxl-vtpm/move-steps.h"

static int up(void **state)
{
    (void)state;
    return signal(SIGPIPE, SIG_IGN) == SIG_ERR;
}

static void say(int fd, enum xlv_move_type type, const char *text)
{
    struct xlv_move_peer there = { .in = -1, .out = fd };

    assert_int_equal(xlv_move_say(&there, type, (const uint8_t *)text, strlen(text), NULL), 0);
}

/* Speaks to a peer that has hung up, and said that before. */
static int say_after(enum xlv_move_type type, const char *text, struct xlv_error *e)
{
    int to[2], from[2], rc;

    assert_int_equal(pipe2(to, O_CLOEXEC), 0);
    assert_int_equal(pipe2(from, O_CLOEXEC), 0);
    say(from[1], XLV_MOVE_DATA, "something before it");
    say(from[1], type, text);
    close(from[1]);
    close(to[0]);
    rc = xlv_move_say(&(struct xlv_move_peer){ .in = from[0], .out = to[1] }, XLV_MOVE_COMMIT, NULL,
                      0, e);
    close(from[0]);
    close(to[1]);
    return rc;
}

/* Where it is late, too: a host that refuses at once may have hung up before it is spoken to. */
static void a_refusal_is_heard_of_one_that_hung_up(void **state)
{
    struct xlv_error e = XLV_ERROR_INIT;

    (void)state;
    assert_int_equal(say_after(XLV_MOVE_REFUSED, "there is no registry", &e), XLV_E_REFUSED);
    assert_string_equal(e.text, "the other host refuses: there is no registry");
}

static void one_that_hung_up_without_a_word_cannot_be_written_to(void **state)
{
    struct xlv_error e = XLV_ERROR_INIT;

    (void)state;
    assert_int_equal(say_after(XLV_MOVE_ACCEPT, "", &e), -EPIPE);
    assert_string_equal(e.text, "cannot write to the other host: Broken pipe");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_refusal_is_heard_of_one_that_hung_up),
        cmocka_unit_test(one_that_hung_up_without_a_word_cannot_be_written_to),
    };

    return cmocka_run_group_tests(tests, up, NULL);
}
