/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Cancelling a running command: see cancel.h. */
#include "config.h"

#include "backend/cancel.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "backend/engine.h"
#include "backend/ring.h"

static bool ready;
static timer_t timer;
static const void *volatile watched; /* NULL: no command runs */
static volatile sig_atomic_t armed, stepped_back;
static int niceness; /* the call below sets it, too */

/* struct sched_attr of the kernel's (include/uapi/linux/sched/types.h, the first version), which
 * libcs declare or not. */
struct scheduling {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

/* Of the length of a turn on the processor; 0: the system's own. Never of its share. */
static void ask_for_slice(unsigned ms)
{
    const struct scheduling wanted = {
        .size = sizeof(wanted), .policy = SCHED_OTHER, .nice = niceness,
        .runtime = ms * UINT64_C(1000000),
    };

    /* a wish: a kernel that does not know it schedules as ever */
    (void)syscall(SYS_sched_setattr, 0, &wanted, 0);
}

static void arm(void)
{
    static const struct itimerspec once = {
        .it_value = { .tv_nsec = XLV_CANCEL_POLL_MS * 1000000L },
    };

    armed = 1;
    (void)timer_settime(timer, 0, &once, NULL);
}

static void on_alarm(int signal_number)
{
    const void *page = watched;
    int saved = errno;

    (void)signal_number;
    if (!page) {
        armed = 0;
        return;
    }
    if (xlv_ring_state(page) == XLV_RING_CANCEL)
        xlv_engine_cancel();
    if (!stepped_back) {
        stepped_back = 1;
        ask_for_slice(XLV_LONG_SLICE_MS);
    }
    /* again: libtpms clears the flag when it starts, which may come after this */
    arm();
    errno = saved;
}

int xlv_cancel_init(struct xlv_error *e)
{
    struct sigaction action = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };
    struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM };

    if (ready)
        return 0;
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGALRM, &action, NULL) < 0 ||
        timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer) < 0)
        return xlv_fail(e, -errno, "the timer for cancelled commands cannot be made (%s)",
                        strerror(errno));
    niceness = getpriority(PRIO_PROCESS, 0);
    watched = NULL;
    armed = stepped_back = 0;
    ready = true;
    return 0;
}

void xlv_cancel_begin(const void *page)
{
    if (!ready)
        return;
    /* this order: a handler that comes between the two lines either arms the
     * timer itself or has left armed == 0 */
    watched = page;
    if (!armed)
        arm();
}

void xlv_cancel_end(void)
{
    /* this order: a handler that comes in between steps back no more */
    watched = NULL;
    if (stepped_back) {
        stepped_back = 0;
        ask_for_slice(0);
    }
}

void xlv_cancel_deinit(void)
{
    if (!ready)
        return;
    watched = NULL;
    (void)timer_delete(timer);
    (void)signal(SIGALRM, SIG_IGN);
    ready = false;
}
