/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of a device's life: see device.h. */
#include "libxl-vtpm/device.h"

#include <string.h>

#include "include/limits.h"

#define S(name) XLV_DEVICE_##name
#define TO(next_, actions_) { .legal = true, .step = { .actions = (actions_), .next = S(next_) } }

#define STOP XLV_ACT_STOP
#define RELEASE XLV_ACT_RELEASE
#define ERROR XLV_ACT_ERROR
#define REFUSE XLV_ACT_REFUSE
#define INIT_WAIT XLV_ACT_INIT_WAIT
#define TO_4 XLV_ACT_STATE_CONNECTED
#define TO_5 XLV_ACT_STATE_CLOSING
#define TO_6 XLV_ACT_STATE_CLOSED
#define CLAIM XLV_ACT_CLAIM
#define START XLV_ACT_START
#define ARM_RETRY XLV_ACT_ARM_RETRY
#define ARM_DEADLINE XLV_ACT_ARM_DEADLINE
#define LEAF XLV_ACT_REMOVE_LEAF
#define FORGET XLV_ACT_FORGET

/* The end as the toolstack wants it, where no process is in the way. */
#define END_WITHOUT_PROCESS(extra) \
    [XLV_SEE_END] = TO(ENDING_HOLD, (extra) | TO_5 | ARM_DEADLINE), \
    [XLV_SEE_END_CLOSED] = TO(ENDED, (extra) | TO_6 | LEAF), \
    [XLV_SEE_GONE] = TO(GONE, (extra) | FORGET)

/* The end while a process serves: it has to be gone before we say Closed. */
#define END_WITH_PROCESS \
    [XLV_SEE_END] = TO(ENDING, TO_5 | STOP), \
    [XLV_SEE_END_CLOSED] = TO(ENDING, TO_5 | STOP), \
    [XLV_SEE_GONE] = TO(VANISHING, STOP)

/* It was told to stop already; told again, it has the shorter time of an end. */
#define END_WHILE_STOPPING(extra) \
    [XLV_SEE_END] = TO(ENDING, (extra) | STOP), \
    [XLV_SEE_END_CLOSED] = TO(ENDING, (extra) | STOP)

/* Whatever the frontend says makes no difference in this state. */
#define FRONTEND_IGNORED(same) \
    [XLV_SEE_NOTHING] = TO(same, 0), \
    [XLV_SEE_INIT] = TO(same, 0), \
    [XLV_SEE_RING] = TO(same, 0), \
    [XLV_SEE_NEW_RING] = TO(same, 0), \
    [XLV_SEE_CLOSING] = TO(same, 0), \
    [XLV_SEE_CLOSED] = TO(same, 0)

#define END_IGNORED(same) \
    [XLV_SEE_END] = TO(same, 0), \
    [XLV_SEE_END_CLOSED] = TO(same, 0)

static const struct {
    bool legal;
    struct xlv_device_step step;
} table[XLV_DEVICE_STATES][XLV_DEVICE_EVENTS] = {
    [S(UNDECIDED)] = {
        FRONTEND_IGNORED(UNDECIDED),
        END_WITHOUT_PROCESS(0),
        [XLV_EVENT_ADMIT] = TO(WAITING, INIT_WAIT | CLAIM),
        [XLV_EVENT_ADMIT_FOUND] = TO(WAITING, CLAIM),
        [XLV_EVENT_REFUSE] = TO(REFUSED, ERROR | REFUSE),
        [XLV_EVENT_FATAL] = TO(FAILED, ERROR | TO_5),
    },
    [S(REFUSED)] = {
        [XLV_SEE_NOTHING] = TO(REFUSED, 0),
        [XLV_SEE_INIT] = TO(REFUSED, 0),
        [XLV_SEE_RING] = TO(REFUSED, 0),
        [XLV_SEE_NEW_RING] = TO(REFUSED, 0),
        [XLV_SEE_CLOSING] = TO(REFUSED, 0),
        /* with no state node libxl removes the frontend only, and leaves the rest to us */
        [XLV_SEE_CLOSED] = TO(REFUSED, LEAF),
        [XLV_SEE_END] = TO(REFUSED, 0),
        [XLV_SEE_END_CLOSED] = TO(REFUSED, LEAF),
        [XLV_SEE_GONE] = TO(GONE, FORGET),
    },
    [S(WAITING)] = {
        [XLV_SEE_NOTHING] = TO(WAITING, 0),
        [XLV_SEE_INIT] = TO(WAITING, 0),
        [XLV_SEE_RING] = TO(WAITING, 0),
        [XLV_SEE_NEW_RING] = TO(WAITING, 0),
        [XLV_SEE_CLOSING] = TO(HOLDING, RELEASE | TO_5),
        [XLV_SEE_CLOSED] = TO(CLOSED, RELEASE | TO_6),
        END_WITHOUT_PROCESS(RELEASE),
        [XLV_EVENT_CLAIMED] = TO(OPEN, 0),
        [XLV_EVENT_FATAL] = TO(FAILED, RELEASE | ERROR | TO_5),
    },
    [S(OPEN)] = {
        [XLV_SEE_NOTHING] = TO(OPEN, 0),
        [XLV_SEE_INIT] = TO(OPEN, 0),
        [XLV_SEE_RING] = TO(STARTING, START),
        [XLV_SEE_NEW_RING] = TO(STARTING, START),
        [XLV_SEE_CLOSING] = TO(HOLDING, RELEASE | TO_5),
        [XLV_SEE_CLOSED] = TO(CLOSED, RELEASE | TO_6),
        END_WITHOUT_PROCESS(RELEASE),
    },
    [S(STARTING)] = {
        [XLV_SEE_NOTHING] = TO(STARTING, 0),
        [XLV_SEE_INIT] = TO(REPLACING, STOP | INIT_WAIT),
        [XLV_SEE_RING] = TO(STARTING, 0),
        [XLV_SEE_NEW_RING] = TO(REPLACING, STOP),
        [XLV_SEE_CLOSING] = TO(CLOSING, TO_5 | STOP),
        [XLV_SEE_CLOSED] = TO(CLOSING, TO_5 | STOP),
        END_WITH_PROCESS,
        [XLV_EVENT_READY] = TO(SERVING, TO_4),
        [XLV_EVENT_EXIT] = TO(RESTARTING, ARM_RETRY),
        [XLV_EVENT_FATAL] = TO(FAILED, RELEASE | ERROR | TO_5),
    },
    [S(SERVING)] = {
        [XLV_SEE_NOTHING] = TO(SERVING, 0),
        [XLV_SEE_INIT] = TO(REPLACING, STOP | INIT_WAIT),
        [XLV_SEE_RING] = TO(SERVING, 0),
        [XLV_SEE_NEW_RING] = TO(REPLACING, STOP),
        [XLV_SEE_CLOSING] = TO(CLOSING, TO_5 | STOP),
        [XLV_SEE_CLOSED] = TO(CLOSING, TO_5 | STOP),
        END_WITH_PROCESS,
        [XLV_EVENT_EXIT] = TO(RESTARTING, ARM_RETRY),
        [XLV_EVENT_FATAL] = TO(FAILED, RELEASE | ERROR | TO_5),
    },
    [S(RESTARTING)] = {
        [XLV_SEE_NOTHING] = TO(RESTARTING, 0),
        [XLV_SEE_INIT] = TO(RESTARTING, 0),
        [XLV_SEE_RING] = TO(RESTARTING, 0),
        [XLV_SEE_NEW_RING] = TO(RESTARTING, 0),
        [XLV_SEE_CLOSING] = TO(HOLDING, RELEASE | TO_5),
        [XLV_SEE_CLOSED] = TO(CLOSED, RELEASE | TO_6),
        END_WITHOUT_PROCESS(RELEASE),
        [XLV_EVENT_RETRY] = TO(OPEN, 0),
        [XLV_EVENT_FATAL] = TO(FAILED, RELEASE | ERROR | TO_5),
    },
    [S(REPLACING)] = {
        [XLV_SEE_NOTHING] = TO(REPLACING, 0),
        [XLV_SEE_INIT] = TO(REPLACING, 0),
        [XLV_SEE_RING] = TO(REPLACING, 0),
        [XLV_SEE_NEW_RING] = TO(REPLACING, 0),
        [XLV_SEE_CLOSING] = TO(CLOSING, TO_5),
        [XLV_SEE_CLOSED] = TO(CLOSING, TO_5),
        END_WHILE_STOPPING(TO_5),
        [XLV_SEE_GONE] = TO(VANISHING, 0),
        [XLV_EVENT_READY] = TO(REPLACING, 0),
        [XLV_EVENT_EXIT] = TO(RESTARTING, ARM_RETRY),
        [XLV_EVENT_FATAL] = TO(FAILED, RELEASE | ERROR | TO_5),
    },
    [S(CLOSING)] = {
        FRONTEND_IGNORED(CLOSING),
        END_WHILE_STOPPING(0),
        [XLV_SEE_GONE] = TO(VANISHING, 0),
        [XLV_EVENT_READY] = TO(CLOSING, 0),
        [XLV_EVENT_EXIT] = TO(HOLDING, RELEASE),
        [XLV_EVENT_FATAL] = TO(HOLDING, RELEASE),
    },
    [S(HOLDING)] = {
        [XLV_SEE_NOTHING] = TO(HOLDING, 0),
        /* it was at 6 while we did not look */
        [XLV_SEE_INIT] = TO(CLOSED, TO_6),
        [XLV_SEE_RING] = TO(CLOSED, TO_6),
        [XLV_SEE_NEW_RING] = TO(CLOSED, TO_6),
        [XLV_SEE_CLOSING] = TO(HOLDING, 0),
        [XLV_SEE_CLOSED] = TO(CLOSED, TO_6),
        END_WITHOUT_PROCESS(RELEASE),
    },
    [S(CLOSED)] = {
        [XLV_SEE_NOTHING] = TO(CLOSED, 0),
        [XLV_SEE_INIT] = TO(UNDECIDED, 0),
        [XLV_SEE_RING] = TO(UNDECIDED, 0),
        [XLV_SEE_NEW_RING] = TO(UNDECIDED, 0),
        [XLV_SEE_CLOSING] = TO(CLOSED, 0),
        [XLV_SEE_CLOSED] = TO(CLOSED, 0),
        /* the instance was let go; but the boot of its domain ends only now */
        [XLV_SEE_END] = TO(ENDED, RELEASE | TO_6 | LEAF),
        [XLV_SEE_END_CLOSED] = TO(ENDED, RELEASE | TO_6 | LEAF),
        [XLV_SEE_GONE] = TO(GONE, RELEASE | FORGET),
    },
    [S(ENDING)] = {
        FRONTEND_IGNORED(ENDING),
        END_IGNORED(ENDING),
        [XLV_SEE_GONE] = TO(VANISHING, 0),
        [XLV_EVENT_READY] = TO(ENDING, 0),
        [XLV_EVENT_EXIT] = TO(ENDING_HOLD, RELEASE | ARM_DEADLINE),
        [XLV_EVENT_FATAL] = TO(ENDING_HOLD, RELEASE | ARM_DEADLINE),
    },
    [S(ENDING_HOLD)] = {
        FRONTEND_IGNORED(ENDING_HOLD),
        [XLV_SEE_END] = TO(ENDING_HOLD, 0),
        [XLV_SEE_END_CLOSED] = TO(ENDED, TO_6 | LEAF),
        [XLV_SEE_GONE] = TO(GONE, FORGET),
        [XLV_EVENT_DEADLINE] = TO(ENDED, TO_6 | LEAF),
    },
    [S(ENDED)] = {
        FRONTEND_IGNORED(ENDED),
        END_IGNORED(ENDED),
        [XLV_SEE_GONE] = TO(GONE, FORGET),
    },
    [S(FAILED)] = {
        [XLV_SEE_NOTHING] = TO(FAILED, 0),
        [XLV_SEE_INIT] = TO(FAILED, 0),
        [XLV_SEE_RING] = TO(FAILED, 0),
        [XLV_SEE_NEW_RING] = TO(FAILED, 0),
        [XLV_SEE_CLOSING] = TO(FAILED, 0),
        [XLV_SEE_CLOSED] = TO(FAILED, TO_6),
        /* back to 5 from 6 would make the toolstack wait for nothing */
        [XLV_SEE_END] = TO(ENDED, TO_6 | LEAF),
        [XLV_SEE_END_CLOSED] = TO(ENDED, TO_6 | LEAF),
        [XLV_SEE_GONE] = TO(GONE, FORGET),
    },
    [S(VANISHING)] = {
        FRONTEND_IGNORED(VANISHING),
        END_IGNORED(VANISHING),
        [XLV_SEE_GONE] = TO(VANISHING, 0),
        [XLV_EVENT_READY] = TO(VANISHING, 0),
        [XLV_EVENT_EXIT] = TO(GONE, RELEASE | FORGET),
        [XLV_EVENT_FATAL] = TO(GONE, RELEASE | FORGET),
    },
    [S(ADOPTING)] = {
        /* decided when the process has told what it serves */
        FRONTEND_IGNORED(ADOPTING),
        END_IGNORED(ADOPTING),
        [XLV_SEE_GONE] = TO(ADOPTING, 0),
        [XLV_EVENT_ADOPTED] = TO(SERVING, TO_4),
        [XLV_EVENT_EXIT] = TO(RESTARTING, ARM_RETRY),
        [XLV_EVENT_FATAL] = TO(RESTARTING, ARM_RETRY),
    },
};

int xlv_device_next(enum xlv_device_state state, enum xlv_device_event event,
                    struct xlv_device_step *step)
{
    if ((unsigned)state >= XLV_DEVICE_STATES || (unsigned)event >= XLV_DEVICE_EVENTS ||
        !table[state][event].legal)
        return XLV_E_INVALID;
    *step = table[state][event].step;
    return 0;
}

const char *xlv_device_state_name(enum xlv_device_state state)
{
    static const char *const names[XLV_DEVICE_STATES] = {
        [S(UNDECIDED)] = "undecided",
        [S(REFUSED)] = "refused",
        [S(WAITING)] = "waiting",
        [S(OPEN)] = "open",
        [S(STARTING)] = "starting",
        [S(SERVING)] = "serving",
        [S(RESTARTING)] = "restarting",
        [S(REPLACING)] = "replacing",
        [S(CLOSING)] = "closing",
        [S(HOLDING)] = "holding",
        [S(CLOSED)] = "closed",
        [S(ENDING)] = "ending",
        [S(ENDING_HOLD)] = "ending-hold",
        [S(ENDED)] = "ended",
        [S(FAILED)] = "failed",
        [S(VANISHING)] = "vanishing",
        [S(ADOPTING)] = "adopting",
        [S(GONE)] = "gone",
    };

    return (unsigned)state < XLV_DEVICE_STATES ? names[state] : "?";
}

const char *xlv_device_event_name(enum xlv_device_event event)
{
    static const char *const names[XLV_DEVICE_EVENTS] = {
        [XLV_SEE_NOTHING] = "see-nothing",
        [XLV_SEE_INIT] = "see-init",
        [XLV_SEE_RING] = "see-ring",
        [XLV_SEE_NEW_RING] = "see-new-ring",
        [XLV_SEE_CLOSING] = "see-closing",
        [XLV_SEE_CLOSED] = "see-closed",
        [XLV_SEE_END] = "see-end",
        [XLV_SEE_END_CLOSED] = "see-end-closed",
        [XLV_SEE_GONE] = "see-gone",
        [XLV_EVENT_ADMIT] = "admit",
        [XLV_EVENT_ADMIT_FOUND] = "admit-found",
        [XLV_EVENT_REFUSE] = "refuse",
        [XLV_EVENT_CLAIMED] = "claimed",
        [XLV_EVENT_READY] = "ready",
        [XLV_EVENT_EXIT] = "exit",
        [XLV_EVENT_FATAL] = "fatal",
        [XLV_EVENT_ADOPTED] = "adopted",
        [XLV_EVENT_RETRY] = "retry",
        [XLV_EVENT_DEADLINE] = "deadline",
    };

    return (unsigned)event < XLV_DEVICE_EVENTS ? names[event] : "?";
}

bool xlv_device_has_process(enum xlv_device_state state)
{
    switch (state) {
    case XLV_DEVICE_STARTING:
    case XLV_DEVICE_SERVING:
    case XLV_DEVICE_REPLACING:
    case XLV_DEVICE_CLOSING:
    case XLV_DEVICE_ENDING:
    case XLV_DEVICE_VANISHING:
    case XLV_DEVICE_ADOPTING:
        return true;
    default:
        return false;
    }
}

enum xlv_device_event xlv_device_classify(const struct xlv_device_view *view,
                                          const struct xlv_served *served)
{
    bool closed = !view->frontend_exists || view->frontend == XLV_XENBUS_CLOSED;

    if (!view->exists)
        return XLV_SEE_GONE;
    if (view->domain_dead)
        return XLV_SEE_END_CLOSED;
    if (!view->online)
        return closed ? XLV_SEE_END_CLOSED : XLV_SEE_END;
    if (closed)
        return XLV_SEE_CLOSED;
    switch (view->frontend) {
    case XLV_XENBUS_INITIALISING:
    case XLV_XENBUS_INIT_WAIT:
        return XLV_SEE_INIT;
    case XLV_XENBUS_CLOSING:
        return XLV_SEE_CLOSING;
    case XLV_XENBUS_INITIALISED:
    case XLV_XENBUS_CONNECTED:
        break;
    default:
        return XLV_SEE_NOTHING;
    }
    if (!view->has_ring)
        return XLV_SEE_NOTHING;
    if (!served->any)
        return XLV_SEE_RING;
    if (served->stale || served->ring.ring_ref != view->ring.ring_ref ||
        served->ring.event_channel != view->ring.event_channel)
        return XLV_SEE_NEW_RING;
    /* from 4 back to 3: the driver was probed again, and got the same numbers */
    if (served->was_connected && view->frontend == XLV_XENBUS_INITIALISED)
        return XLV_SEE_NEW_RING;
    return XLV_SEE_RING;
}

int xlv_parse_number(const char *text, size_t length, uint32_t max, uint32_t *number)
{
    uint64_t n = 0;

    if (length == 0 || length > 10 || (length > 1 && text[0] == '0'))
        return XLV_E_INVALID;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return XLV_E_INVALID;
        n = n * 10 + (uint64_t)(text[i] - '0');
    }
    if (n > max)
        return XLV_E_INVALID;
    *number = (uint32_t)n;
    return 0;
}

enum xlv_xenbus xlv_parse_xenbus(const char *text, size_t length)
{
    uint32_t n;

    if (xlv_parse_number(text, length, XLV_XENBUS_CLOSED, &n))
        return XLV_XENBUS_UNKNOWN;
    return (enum xlv_xenbus)n;
}

int xlv_parse_bool(const char *text, size_t length, bool *value)
{
    if ((length == 1 && text[0] == '1') || (length == 4 && !memcmp(text, "True", 4)))
        *value = true;
    else if ((length == 1 && text[0] == '0') || (length == 5 && !memcmp(text, "False", 5)))
        *value = false;
    else
        return XLV_E_INVALID;
    return 0;
}

int xlv_parse_device_path(const char *relative, uint32_t *domid, int64_t *devid)
{
    size_t n = strcspn(relative, "/");
    uint32_t dom, dev;

    if (xlv_parse_number(relative, n, XLV_DOMID_MAX, &dom))
        return XLV_E_INVALID;
    relative += n;
    if (!*relative) {
        *domid = dom;
        *devid = -1;
        return 0;
    }
    relative++;
    n = strcspn(relative, "/");
    if (xlv_parse_number(relative, n, XLV_DEVID_MAX, &dev))
        return XLV_E_INVALID;
    *domid = dom;
    *devid = dev;
    return 0;
}

int xlv_parse_listener_name(const char *name, uint32_t *domid, uint32_t *devid)
{
    size_t n = strcspn(name, "-");
    uint32_t dom, dev;

    if (name[n] != '-' || xlv_parse_number(name, n, XLV_DOMID_MAX, &dom) ||
        xlv_parse_number(name + n + 1, strlen(name + n + 1), XLV_DEVID_MAX, &dev))
        return XLV_E_INVALID;
    *domid = dom;
    *devid = dev;
    return 0;
}

bool xlv_strip_incoming(char *name)
{
    static const char suffix[] = "--incoming";
    size_t n = strlen(name), k = sizeof(suffix) - 1;

    if (n <= k || strcmp(name + n - k, suffix))
        return false;
    name[n - k] = '\0';
    return true;
}
