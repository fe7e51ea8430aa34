/* SPDX-License-Identifier: GPL-2.0-or-later */
/* xl-vtpm: what takes longer than a second says so, on a terminal; see xl-vtpm.h. */
#include "config.h"

#include "libxl-vtpm/xl-vtpm.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

/* The command may be anywhere when its second is over: who tells is a signal handler, which reads
 * the text that is not being written. */
static char texts[2][96];
static atomic_uint current, seconds;
static char name[32];
static bool running;

static void put_number(char *at, unsigned number)
{
    char digits[12];
    size_t n = 0;

    do
        digits[n++] = (char)('0' + number % 10);
    while (number /= 10);
    while (n)
        *at++ = digits[--n];
    *at = '\0';
}

static void on_alarm(int signal)
{
    char line[sizeof(texts[0]) + 32] = "\r";

    (void)signal;
    strcat(line, texts[current & 1]);
    put_number(line + strlen(line), ++seconds);
    strcat(line, " s ");
    (void)!write(STDERR_FILENO, line, strlen(line));
}

static void set_timer(time_t each_s)
{
    const struct itimerval timer = { { each_s, 0 }, { each_s, 0 } };

    (void)setitimer(ITIMER_REAL, &timer, NULL);
}

void progress_start(const char *command)
{
    const struct sigaction action = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };

    if (command)
        snprintf(name, sizeof(name), "xl-vtpm %s: ", command);
    if (!name[0] || !isatty(STDERR_FILENO) || sigaction(SIGALRM, &action, NULL))
        return;
    running = true;
    memcpy(texts[current & 1], name, sizeof(name));
    set_timer(1);
}

void progress_count(unsigned done, unsigned of, void *opaque)
{
    unsigned next = current + 1;

    (void)opaque;
    snprintf(texts[next & 1], sizeof(texts[0]), "%s%u of %u instances, ", name, done, of);
    current = next;
}

void progress_stop(void)
{
    char blank[sizeof(texts[0]) + 16] = "\r";

    if (!running)
        return;
    set_timer(0);
    running = false;
    if (!seconds)
        return;
    memset(blank + 1, ' ', sizeof(blank) - 2);
    blank[sizeof(blank) - 1] = '\r';
    (void)!write(STDERR_FILENO, blank, sizeof(blank));
    seconds = 0;
}
