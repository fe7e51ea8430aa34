/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One device of the daemon: may it be served, by which process, and what its
 * next step does. The steps themselves are the table of device.h.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "libxl-vtpm/admission.h"
#include "libxl-vtpm/daemon-internal.h"

/* How long the frontend of a device that ends may take to reach 6, from our 5 on; libxl
 * waits 10 s. The process has its own time, STOP_END_US, and both run at once. */
#define HOLD_US (3 * 1000 * 1000ull)

/* Driver domain: libxl has to see the 6 before our directory goes; it waits 10 s for that. */
#define LEAF_US (1000 * 1000ull)

/* For the command that runs, before the process is killed. Losing is safe (journal). */
#define STOP_END_US (3 * 1000 * 1000ull)
#define STOP_CLOSE_US (5 * 1000 * 1000ull)

/* Processes that one frontend may cause in a row, by new rings or by closing and coming
 * back; then it waits. A driver that is reloaded by hand or by a test stays below. */
#define CONNECTS_BURST 20u
#define CONNECTS_WINDOW_US (10 * 1000 * 1000ull)
#define CONNECTS_PAUSE_US (2 * 1000 * 1000ull)

/* A device that is frozen looks that often whether it still is; thawing does not wait for it. */
#define FROZEN_US (10 * 1000 * 1000ull)

/* Until the instance of a device that lost it is looked for again. */
#define UNRESOLVED_US (1000 * 1000ull)

void xlv_dev_push(struct device *d, enum xlv_device_event event)
{
    if (d->nevents == EVENTS_MAX) {
        xlv_log_about(&d->subject, XLV_LOG_ERROR, "event %s lost: too many at once",
                      xlv_device_event_name(event));
        return;
    }
    d->events[d->nevents++] = event;
    xlv_dev_mark(d, false);
}

/* --- admission --- */

/* The sentence for the administrator; longer text is cut. */
static void __attribute__((format(printf, 2, 3))) explain(struct device *d, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(d->reason, sizeof(d->reason), fmt, ap);
    va_end(ap);
}

static void note_refusal(struct device *d)
{
    struct xlv_daemon *m = d->daemon;
    struct xlv_refusal *r = &m->refusals[m->next_refusal++ % REFUSALS_KEPT];

    r->time_s = time(NULL);
    r->domid = d->domid;
    r->devid = d->devid;
    snprintf(r->reason, sizeof(r->reason), "%s", d->reason);
    if (d->slot)
        d->slot->refusal = *r;
}

/* Finds the instance; *result is what admission is told. False: try again later. */
bool xlv_dev_resolve(struct device *d, int *result, struct xlv_error *e)
{
    struct xlv_daemon *m = d->daemon;
    struct xlv_lookup lookup;
    struct xlv_instance instance;
    struct xlv_slot *slot = NULL;
    struct xlv_domain_facts facts;
    enum xlv_rule rule;
    int rc;

    d->subject.uuid = NULL;
    d->subject.instance = 0;
    rc = xlv_dev_identify(d, e);
    if (rc == XLV_E_GONE) {
        xlv_daemon_lost(m);
        return false;
    }
    if (rc == XLV_E_NOT_FOUND || (rc < 0 && !e->text[0])) {
        /* the directory goes while we read it, or xenstored is short of something */
        xlv_dev_look_later(d);
        return false;
    }
    if (rc) {
        *result = rc;
        return true;
    }
    d->subject.uuid = &d->uuid;
    lookup = (struct xlv_lookup){
        .uuid = d->uuid,
        .domain_name = d->domain_name,
        .devid = d->devid,
        .unknown_uuid = m->settings->unknown_uuid,
        .default_version = m->settings->default_tpm_version,
    };
    /* whatever TPM it had, a new one is not it; and made here, it would be in the way of that one */
    xlv_domains_ask(m->domains, d->domid, &facts);
    if (facts.restored && !facts.has_run)
        lookup.unknown_uuid = XLV_UNKNOWN_UUID_REFUSE;
    rc = xlv_registry_resolve(m->registry, &lookup, &instance, &rule, e);
    if (rc == XLV_E_REFUSED && lookup.unknown_uuid != m->settings->unknown_uuid) {
        xlv_error_clear(e);
        xlv_fail(e, rc, "it was restored or has migrated here, and its TPM did not come along; see "
                 "xl-vtpm-move(8)");
    }
    if (!rc)
        rc = xlv_instances_slot(m->instances, &instance, &slot, e);
    if (!rc) {
        if (d->slot && d->slot != slot && d->claim.slot)
            xlv_claim_release(m->instances, &d->claim);
        d->slot = slot;
        d->subject.uuid = &slot->info.uuid;
        d->subject.instance = slot->number;
        if (rule != XLV_RULE_UUID)
            xlv_log_about(&d->subject, XLV_LOG_NOTICE,
                          "instance %" PRIu64 " for domain %s by rule: %s", slot->number,
                          xlv_dev_domain(d), xlv_rule_name(rule));
        if (rule == XLV_RULE_ASSIGNED && !d->domain_name[0])
            /* in a driver domain: a line without a uuid means a new TPM at every create */
            xlv_log_about(&d->subject, XLV_LOG_NOTICE,
                          "the name of domain %u may not be read here: only this uuid finds it "
                          "again, so the guest's vtpm line has to give it", d->domid);
    }
    *result = rc;
    return true;
}

struct device *xlv_dev_of_claim(struct xlv_claim *claim)
{
    return claim ? (struct device *)((char *)claim - offsetof(struct device, claim)) : NULL;
}

/* Is the kept state of the instance, or the one that its holder will leave, of the save that
 * this domain was restored from? */
static bool is_its_save(const struct device *d, const struct device *holder)
{
    struct xlv_daemon *m = d->daemon;
    const struct xlv_suspended *s = &d->slot->info.suspended;
    struct xlv_domain_facts facts;
    int64_t mark, other;

    if (!xlv_domains_mark(m->domains, d->domid, &mark))
        return false;
    if (s->at_s && !strcmp(s->domain_uuid, d->domain_uuid) && s->mark == mark)
        return true;
    /* a migration within this host: the domain that is left behind is not gone yet */
    if (!holder || holder == d || strcmp(holder->domain_uuid, d->domain_uuid))
        return false;
    xlv_domains_ask(m->domains, holder->domid, &facts);
    return facts.suspended && xlv_domains_mark(m->domains, holder->domid, &other) && other == mark;
}

/* What the domain is: created or restored, and does it run already? */
static void ask_domain(struct device *d, const struct device *holder, struct xlv_admission *facts)
{
    const struct xlv_instance *info = &d->slot->info;
    struct xlv_domain_facts domain;

    xlv_domains_ask(d->daemon->domains, d->domid, &domain);
    facts->untold = !domain.told;
    facts->restored = domain.restored && !domain.has_run;
    facts->late = domain.has_run;
    facts->accept = info->accept;
    facts->refuse_untold = !d->daemon->settings->untold_is_created;
    facts->refuse_late = d->daemon->settings->refuse_late_attach;
    d->boot = XLV_BOOT_FRESH;
    d->use = facts->late ? XLV_USE_LATE : XLV_USE_BOOT;
    if (!facts->past) {
        d->unseen = !domain.told      ? "the hypervisor does not tell whether it was just created"
                    : domain.has_run  ? "its TPM was attached when it ran already"
                    : domain.restored ? "it was not booted but restored"
                                      : NULL;
        d->boot_seen = d->unseen ? BOOT_NOT_SEEN : BOOT_SEEN;
    }
    if (facts->past) {
        /* its journal knows; but the first process of a restored domain may not have come to
         * begin one before a daemon went away */
        d->use = XLV_USE_AGAIN;
        if (domain.restored && info->suspended.at_s &&
            !strcmp(info->suspended.domain_uuid, d->domain_uuid)) {
            d->boot = XLV_BOOT_KEPT;
            d->use = XLV_USE_BOOT;
        }
        return;
    }
    if (!facts->restored)
        return;
    facts->kept = is_its_save(d, holder);
    if (facts->accept != XLV_ACCEPT_RESET)
        d->boot = XLV_BOOT_KEPT;
}

static void decide(struct device *d)
{
    struct xlv_daemon *m = d->daemon;
    struct xlv_admission facts = { .incoming = false };
    struct xlv_error e = XLV_ERROR_INIT;
    struct device *holder = NULL;
    const struct device *by;
    enum xlv_admission_why why;

    if (!m->xs || !xlv_dev_resolve(d, &facts.resolved, &e))
        return;
    facts.incoming = d->incoming;
    facts.past = d->found || d->came_back;
    if (!facts.resolved) {
        facts.life = d->slot->info.life;
        facts.handover = d->slot->info.handover;
        facts.on_its_way = facts.handover == XLV_HANDOVER_DEPARTED &&
                           xlv_instances_on_its_way(m->instances, &d->slot->info);
        holder = xlv_dev_of_claim(d->slot->holder);
        if (holder && holder != d) {
            facts.holder = xlv_admission_holder(holder->state, &holder->view);
            /* what says that it closes may wait in the queue behind us */
            if (facts.holder == XLV_HOLDER_LIVE && xlv_dev_look_at(holder) == 0) {
                facts.holder = xlv_admission_holder(holder->state, &holder->view);
                xlv_dev_mark(holder, true);
            }
        }
        ask_domain(d, holder, &facts);
    }
    why = xlv_admission_decide(&facts);
    by = holder ? holder : d; /* it is told of only where there is one */
    switch (why) {
    case XLV_WHY_ADMITTED:
    case XLV_WHY_WAITS:
        if (why == XLV_WHY_WAITS)
            xlv_log_about(
                &d->subject, XLV_LOG_NOTICE,
                "domain %s waits for its instance, which domain %s (%u), device %u, still "
                "has",
                xlv_dev_domain(d), xlv_dev_domain(by), by->domid, by->devid);
        if (d->found && d->written >= XLV_XENBUS_INIT_WAIT && d->written < XLV_XENBUS_CLOSING) {
            xlv_dev_write_nodes(d);
            xlv_dev_push(d, XLV_EVENT_ADMIT_FOUND);
        } else {
            xlv_dev_push(d, XLV_EVENT_ADMIT);
        }
        return;
    case XLV_WHY_ELSEWHERE:
        d->told = "its TPM is on another host";
        explain(d,
                "domain %s gets no TPM: instance %" PRIu64 " is %s (other host: %s, token %s); "
                "see HANDOVER in xl-vtpm-move(8)",
                xlv_dev_domain(d), d->slot->number, xlv_handover_name(d->slot->info.handover),
                d->slot->info.handover_peer, d->slot->info.handover_token);
        break;
    case XLV_WHY_QUARANTINED:
        d->told = "its instance is quarantined";
        explain(d,
                "domain %s gets no TPM: instance %" PRIu64 " is quarantined after failures; look "
                "into the log for the cause, mend it, then `xl-vtpm release %" PRIu64 "`",
                xlv_dev_domain(d), d->slot->number, d->slot->number);
        break;
    case XLV_WHY_IN_USE:
        d->told = "its instance is in use";
        explain(d,
                "domain %s gets no TPM: instance %" PRIu64 " is in use by domain %s (%u), device "
                "%u; shut that domain down, or give this one another uuid",
                xlv_dev_domain(d), d->slot->number, xlv_dev_domain(by), by->domid, by->devid);
        break;
    case XLV_WHY_UNTOLD:
        d->told = "it cannot be told whether the domain was restored";
        explain(d,
                "domain %s gets no TPM: it cannot be told whether it was created or restored, for "
                "the hypervisor does not tell us; if no domain is ever restored with a TPM from "
                "here, set untold-boot = created in xl-vtpm.conf",
                xlv_dev_domain(d));
        break;
    case XLV_WHY_OTHER_SAVE:
        d->told = "its TPM has gone on since it was saved";
        explain(d,
                "domain %s gets no TPM: it was restored from a save file, and %s; restore the "
                "latest one, or choose: `xl-vtpm accept %" PRIu64 " --reset` gives the next "
                "restored domain its TPM as after a reset%s",
                xlv_dev_domain(d),
                d->slot->info.suspended.at_s
                    ? "the state that is kept of its TPM is not certainly of that save"
                    : "its TPM has gone on since that save",
                d->slot->number,
                d->slot->info.suspended.at_s ? ", --kept gives it that state all the same" : "");
        break;
    case XLV_WHY_LATE:
        d->told = "it runs already";
        explain(d,
                "domain %s gets no TPM: it runs already, so the TPM would not have seen its boot, "
                "and late-attach = refuse in xl-vtpm.conf",
                xlv_dev_domain(d));
        break;
    case XLV_WHY_UNRESOLVED:
        d->told = facts.resolved == XLV_E_REFUSED ? "its uuid is not known here"
                                                  : "no instance could be found";
        explain(d, "domain %s gets no TPM: %s", xlv_dev_domain(d),
                e.text[0] ? e.text : xlv_strerror(facts.resolved));
        break;
    }
    note_refusal(d);
    xlv_log_about(&d->subject, XLV_LOG_ERROR, "%s", d->reason);
    /* where libxl does not wait for the answer, deleting the state would only confuse it */
    xlv_dev_push(d, facts.past ? XLV_EVENT_FATAL : XLV_EVENT_REFUSE);
}

void xlv_dev_granted(struct xlv_claim *claim)
{
    struct device *d = xlv_dev_of_claim(claim);

    if (d->state == XLV_DEVICE_WAITING)
        xlv_dev_push(d, XLV_EVENT_CLAIMED);
}

void xlv_dev_denied(struct xlv_claim *claim, const char *text)
{
    struct device *d = xlv_dev_of_claim(claim);

    if (d->state != XLV_DEVICE_WAITING)
        return;
    d->told = "its TPM cannot be used";
    explain(d, "domain %s gets no TPM: %s", xlv_dev_domain(d), text);
    note_refusal(d);
    xlv_log_about(&d->subject, XLV_LOG_ERROR, "%s", d->reason);
    xlv_dev_push(d, XLV_EVENT_FATAL);
}

/* --- its process --- */

static void note_use(struct device *d)
{
    struct xlv_error e = XLV_ERROR_INIT;

    if (xlv_registry_used(d->daemon->registry, d->slot->number, d->domain_name,
                          d->domain_uuid[0] ? d->domain_uuid : NULL, d->use, &e))
        xlv_log_about(&d->subject, XLV_LOG_WARNING, "cannot note the use of the instance: %s",
                      e.text);
    else if (d->use != XLV_USE_AGAIN)
        d->slot->info.suspended = (struct xlv_suspended){ .mark = -1 };
    d->use = XLV_USE_AGAIN;
}

void xlv_dev_took_up_boot(struct device *d)
{
    const struct xlv_suspended *s = &d->slot->info.suspended;

    d->boot = XLV_BOOT_FRESH;
    d->use = XLV_USE_AGAIN;
    if (!s->at_s)
        return;
    /* the daemon before us did not come to note it; or it is this very domain that was
     * suspended, and the process still has to be told */
    if (s->domid != d->domid) {
        d->use = XLV_USE_BOOT;
        note_use(d);
    } else {
        d->slot->kept_s = s->at_s;
    }
}

/* Into a cgroup of its own: who found it in the daemon's does it now. */
static void put_apart(struct device *d)
{
    xlv_scopes_put(d->daemon->config.scopes, xlv_child_pid(d->child), d->slot->number, d->domid,
                   d->devid);
}

static void on_child_ready(struct xlv_child *child, void *opaque)
{
    uint8_t log[XLV_EVENTLOG_MAX];
    struct device *d = opaque;
    size_t log_length;

    d->attached_s = time(NULL);
    /* from here on the journal knows the domain */
    d->boot = XLV_BOOT_FRESH;
    xlv_log_about(&d->subject, XLV_LOG_NOTICE,
                  "domain %s is served by process %ld (ring %u, event channel %u)",
                  xlv_dev_domain(d), (long)xlv_child_pid(child), d->served.ring.ring_ref,
                  d->served.ring.event_channel);
    put_apart(d);
    xlv_instances_event_log(d->daemon->instances, d->slot, log, &log_length);
    if (log_length)
        xlv_dev_write_event_log(d, log, log_length);
    /* Once per connection: a process that follows a killed one is no new use. Ahead of all that is
     * seen from now on: the domain may be suspended already, which this would undo. */
    if (!d->noted_use) {
        d->noted_use = true;
        note_use(d);
    }
    xlv_dev_push(d, XLV_EVENT_READY);
    xlv_dev_run(d);
}

/* What an adopted process serves, where xenstore or the registry did not let us find that out when
 * this daemon started. By their word, if they can give it now; only else by the process's, and not
 * where another device was given the instance meanwhile. */
static void find_by_status(struct device *d, const struct xlv_msg_status *status)
{
    struct xlv_daemon *m = d->daemon;
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_instance instance;
    struct xlv_slot *slot;
    int rc;

    if (m->xs && xlv_dev_resolve(d, &rc, &e) && !rc) {
        xlv_dev_took_up_boot(d);
        xlv_claim_take(m->instances, d->slot, &d->claim);
        return;
    }
    xlv_error_clear(&e);
    if (xlv_registry_get_number(m->registry, status->instance, &instance, &e) ||
        !xlv_uuid_equal(&status->uuid, &instance.uuid) ||
        xlv_instances_slot(m->instances, &instance, &slot, &e)) {
        if (e.text[0])
            xlv_log_about(&d->subject, XLV_LOG_ERROR, "%s", e.text);
        return;
    }
    if (slot->holder || status->domid != d->domid || status->devid != d->devid)
        return;
    d->slot = slot;
    d->subject.uuid = &slot->info.uuid;
    d->subject.instance = slot->number;
    if (m->xs)
        (void)xlv_dev_identify_domain(d); /* for a save of it; without, that is of nobody's */
    xlv_dev_took_up_boot(d);
    xlv_claim_take(m->instances, slot, &d->claim);
}

static void on_child_status(struct xlv_child *child, const struct xlv_msg_status *status,
                            void *opaque)
{
    struct device *d = opaque;

    d->status = *status;
    d->has_status = true;
    xlv_daemon_refresh_answered(d);
    if (d->state != XLV_DEVICE_ADOPTING)
        return;
    d->attached_s = d->attached_s ? d->attached_s : time(NULL);
    if (!d->slot)
        find_by_status(d, status);
    d->served = (struct xlv_served){
        .any = true,
        .ring = { .ring_ref = status->ring_ref, .event_channel = status->event_channel },
        .stale = !d->slot || status->instance != d->slot->number ||
                 !xlv_uuid_equal(&status->uuid, &d->slot->info.uuid) || status->domid != d->domid ||
                 status->devid != d->devid,
    };
    xlv_log_about(&d->subject, XLV_LOG_NOTICE, "found process %ld of an earlier daemon%s",
                  (long)xlv_child_pid(child),
                  d->served.stale ? "; it serves another instance, so it has to end"
                                  : ", it serves on");
    if (!d->served.stale)
        put_apart(d);
    xlv_dev_push(d, XLV_EVENT_ADOPTED);
    xlv_dev_run(d);
}

static const char *failure_hint(int code)
{
    switch (code) {
    case XLV_E_CORRUPT:
    case XLV_E_EMPTY:
    case XLV_E_WRONG_OWNER:
        return "; nothing was changed, see xl-vtpm-state(5) on how to recover";
    case XLV_E_WRONG_KEY:
        return "; nothing was changed, put the right master key back";
    case XLV_E_VERSION:
        return "; nothing was changed, use the newer libxl-vtpm that wrote it";
    default:
        return "";
    }
}

/* How an end, or a start that failed, goes on: EXIT or FATAL. */
static enum xlv_device_event judge(struct device *d, const struct xlv_child_end *end)
{
    struct xlv_daemon *m = d->daemon;
    struct xlv_backoff none = { .failures = 0 };
    enum xlv_verdict verdict;

    verdict = xlv_backoff_judge(d->slot ? &d->slot->backoff : &none, end, &d->retry_us);
    switch (verdict) {
    case XLV_VERDICT_RETRY:
        if (end->how != XLV_CHILD_CLEAN && xlv_ratelimit_pass(&d->limit))
            xlv_log_about(&d->subject, XLV_LOG_WARNING,
                          "the backend of domain %s: %s; the next try is in %.2f s",
                          xlv_dev_domain(d), end->text, (double)d->retry_us / 1e6);
        return XLV_EVENT_EXIT;
    case XLV_VERDICT_QUARANTINE:
        explain(d,
                "domain %s loses its TPM: its backend failed %u times in a row in the same way: "
                "%s",
                xlv_dev_domain(d), d->slot ? d->slot->backoff.same : 0, end->text);
        if (d->slot)
            xlv_instances_quarantine(m->instances, d->slot, end->text);
        break;
    case XLV_VERDICT_FATAL:
        explain(d, "domain %s gets no TPM: %s%s", xlv_dev_domain(d), end->text,
                failure_hint(end->code));
        break;
    }
    d->told = "its TPM cannot be used";
    note_refusal(d);
    xlv_log_about(&d->subject, XLV_LOG_ERROR, "%s", d->reason);
    return XLV_EVENT_FATAL;
}

/* The guest made its process end: how often lately, and what did starting it cost? */
static void count_connect(struct device *d, const struct xlv_child_end *end)
{
    uint64_t now = xlv_daemon_now(d->daemon);

    if (now - d->connects_since_us > CONNECTS_WINDOW_US) {
        d->connects_since_us = now;
        d->connects = 0;
    }
    if (++d->connects > CONNECTS_BURST)
        d->not_before_us = now + CONNECTS_PAUSE_US;
    d->starts_paid_us = xlv_start_paid(d->starts_paid_us, now, end->start_us);
    if (d->not_before_us < d->starts_paid_us)
        d->not_before_us = d->starts_paid_us;
}

static void on_child_gone(struct xlv_child *child, const struct xlv_child_end *end, void *opaque)
{
    struct device *d = opaque;
    struct xlv_daemon *m = d->daemon;
    enum xlv_device_event event = XLV_EVENT_EXIT;
    bool asked = d->state == XLV_DEVICE_REPLACING || d->state == XLV_DEVICE_CLOSING ||
                 d->state == XLV_DEVICE_ENDING || d->state == XLV_DEVICE_VANISHING;

    d->child = NULL;
    d->served = (struct xlv_served){ .any = false };
    xlv_daemon_refresh_answered(d);
    xlv_listener_remove(m->listener_dirfd, d->domid, d->devid);
    d->retry_us = 0;
    if (!asked) {
        event = judge(d, end);
    } else if (end->how == XLV_CHILD_CLEAN) {
        xlv_log_about(&d->subject, XLV_LOG_INFO, "process %ld stopped", (long)xlv_child_pid(child));
        if (d->ended == XLV_STOP_DOMAIN_END && d->over && end->bye && d->slot)
            xlv_instances_drop_journal(m->instances, d->slot);
    } else {
        xlv_log_about(&d->subject, XLV_LOG_WARNING, "the backend of domain %s, told to stop: %s",
                      xlv_dev_domain(d), end->text);
    }
    if (d->state == XLV_DEVICE_REPLACING || d->state == XLV_DEVICE_CLOSING)
        count_connect(d, end);
    if (d->ended == XLV_STOP_FREEZE) {
        d->ended = 0;
        xlv_dev_froze(d, end->how == XLV_CHILD_CLEAN && end->bye);
    }
    /* what ended in order has kept its state if that is what it was told: the suspend may have come
     * after it was told that the driver had closed */
    if (d->ended == XLV_STOP_SUSPEND && d->slot)
        xlv_instances_kept(m->instances, d->slot, end->how == XLV_CHILD_CLEAN && end->bye &&
                                                  xlv_child_told(child) == XLV_STOP_SUSPEND);
    /* the boot goes on: with a new process, which has been told nothing */
    if (d->state == XLV_DEVICE_REPLACING)
        d->ended = 0;
    xlv_dev_push(d, event);
    xlv_dev_run(d);
}

const struct xlv_child_ops xlv_dev_child_ops = {
    .ready = on_child_ready,
    .status = on_child_status,
    .gone = on_child_gone,
};

/*
 * What the process shall measure if it begins the boot. It alone knows whether it
 * does, so this is found out for each of them.
 */
static void find_booted(struct device *d, struct xlv_device_launch *launch,
                        struct xlv_booted *booted, struct xlv_error *why)
{
    const struct xlv_settings *settings = d->daemon->settings;
    enum xlv_measuring measure = d->slot->info.measure_boot;

    if (measure == XLV_MEASURING_OFF ||
        (measure == XLV_MEASURING_DEFAULT && !settings->measure_boot))
        return;
    xlv_dev_read_boot_seen(d);
    if (d->boot_seen != BOOT_SEEN)
        xlv_fail(why, XLV_E_REFUSED, "%s", d->unseen ? d->unseen : "its beginning was not seen");
    else if (!xlv_booted_find(booted, settings->domain_config_dir, d->domid, d->domain_uuid, why))
        launch->booted = booted;
    launch->unmeasured = why->text;
    launch->measure = launch->booted ? XLV_MEASURE_FILES : XLV_MEASURE_ERROR;
}

static void start(struct device *d)
{
    struct xlv_daemon *m = d->daemon;
    struct xlv_booted booted = XLV_BOOTED_INIT;
    struct xlv_error why = XLV_ERROR_INIT;
    struct xlv_device_launch launch = {
        .boot = d->boot,
        .domid = d->domid,
        .devid = d->devid,
        .ring = d->view.ring,
        .subject = &d->subject,
        .ops = &xlv_dev_child_ops,
        .opaque = d,
    };
    struct xlv_child_end failure = { .how = XLV_CHILD_NOT_STARTED };
    struct xlv_error e = XLV_ERROR_INIT;
    uint64_t now = xlv_daemon_now(m);
    int rc;

    if (d->frozen) {
        d->retry_us = FROZEN_US;
        xlv_dev_push(d, XLV_EVENT_EXIT);
        return;
    }
    if (now < d->not_before_us) {
        d->retry_us = d->not_before_us - now;
        if (xlv_ratelimit_pass(&d->limit))
            xlv_log_about(&d->subject, XLV_LOG_WARNING,
                          "domain %s connects again and again; it waits %.1f s",
                          xlv_dev_domain(d), (double)d->retry_us / 1e6);
        xlv_dev_push(d, XLV_EVENT_EXIT);
        return;
    }
    d->has_status = false;
    if (!d->slot) {
        /* taken over from a process whose instance could not be found out */
        if (m->xs && xlv_dev_resolve(d, &rc, &e) && !rc)
            xlv_claim_take(m->instances, d->slot, &d->claim);
        if (!d->slot) {
            d->retry_us = UNRESOLVED_US;
            if (e.text[0] && xlv_ratelimit_pass(&d->limit))
                xlv_log_about(&d->subject, XLV_LOG_ERROR, "domain %s has no TPM for now: %s",
                              xlv_dev_domain(d), e.text);
            xlv_dev_push(d, XLV_EVENT_EXIT);
            return;
        }
    }
    if (!d->claim.granted)
        rc = xlv_fail(&e, XLV_E_IN_USE, "its instance is held by another device");
    else {
        find_booted(d, &launch, &booted, &why);
        rc = xlv_instances_launch(m->instances, d->slot, &launch, &d->child, &e);
        xlv_booted_deinit(&booted);
    }
    if (!rc) {
        d->served = (struct xlv_served){ .any = true, .ring = launch.ring };
        return;
    }
    if (rc > 0 && rc != XLV_E_IN_USE) {
        failure.how = XLV_CHILD_FAILED;
        failure.code = rc == XLV_E_NOT_FOUND ? XLV_E_CORRUPT : rc;
    }
    snprintf(failure.text, sizeof(failure.text), "%s", e.text[0] ? e.text : xlv_strerror(rc));
    xlv_dev_push(d, judge(d, &failure));
}

void xlv_dev_look_at_domain(struct device *d)
{
    struct xlv_domain_facts domain;

    xlv_domains_ask(d->daemon->domains, d->domid, &domain);
    if (!domain.exists)
        return;
    /* libxl pauses it, releases it in xenstore, destroys its devices, resets it and makes them
     * again: from the reset on it looks like one that is about to be destroyed */
    if (domain.soft_reset && !d->soft_reset) {
        d->soft_reset = true;
        xlv_log_about(&d->subject, XLV_LOG_INFO, "domain %s is soft-reset", xlv_dev_domain(d));
    }
    if (domain.shut_down == d->shut_down)
        return;
    d->shut_down = domain.shut_down;
    if (d->shut_down)
        xlv_log_about(&d->subject, XLV_LOG_INFO, "domain %s has shut down", xlv_dev_domain(d));
}

/*
 * The boot of the domain is over, or stands still: tells which, and notes a
 * suspend before anything is done about it.
 */
static enum xlv_stop_reason end_boot(struct device *d)
{
    struct xlv_daemon *m = d->daemon;
    struct xlv_suspended suspended = { .domid = d->domid, .mark = -1 };
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_domain_facts domain;
    struct xlv_instance now;
    int64_t mark;

    xlv_dev_look_at_domain(d);
    xlv_domains_ask(m->domains, d->domid, &domain);
    d->over = !(d->soft_reset && domain.exists) && (d->view.domain_dead || domain.over);
    if (!domain.told || !d->slot ||
        (domain.exists ? !domain.suspended : d->shut_down || d->soft_reset))
        return XLV_STOP_DOMAIN_END;
    /* it migrated, and took its TPM along */
    if (xlv_registry_get_number(m->registry, d->slot->number, &now, &e) == 0 &&
        now.handover == XLV_HANDOVER_DEPARTED) {
        xlv_instances_drop_journal(m->instances, d->slot);
        return XLV_STOP_DOMAIN_END;
    }
    xlv_error_clear(&e);
    /* A domain that is gone already may have been saved before we came to look: keeping its
     * state does no harm, but no save can be certain to be the one. */
    snprintf(suspended.domain_uuid, sizeof(suspended.domain_uuid), "%s", d->domain_uuid);
    if (domain.exists && xlv_domains_mark(m->domains, d->domid, &mark))
        suspended.mark = mark;
    if (xlv_instances_suspended(m->instances, d->slot, &suspended, &e))
        xlv_log_about(&d->subject, XLV_LOG_ERROR,
                      "cannot note that domain %s is suspended, so it will not be restored with "
                      "its TPM unless `xl-vtpm accept` says so: %s",
                      xlv_dev_domain(d), e.text);
    return XLV_STOP_SUSPEND;
}

/*
 * PCRs live as long as the domain's boot. A toolstack that ends a domain deletes
 * the frontend and sets online=0 in one transaction, and a detach leaves the
 * frontend there: so that is what the process is told. But the guest may delete
 * its own frontend, also right after a detach has set online=0, and both look
 * the same. So what would make the next device of this domain begin a new boot,
 * the end of the journal, waits for a domain that will not run again (d->over).
 * Where nobody sees that, the journal stays for a next domain to set aside.
 */
static bool boot_is_over(struct device *d)
{
    struct xlv_daemon *m = d->daemon;
    const struct xlv_device_view *v = &d->view;
    struct xlv_domain_facts domain;

    if ((!v->exists || !v->frontend_exists) && m->xs &&
        !xlv_xenstore_domain_exists(m->xs, d->domid))
        d->view.domain_dead = true;
    if (v->exists)
        return v->domain_dead || (!v->online && !v->frontend_exists);
    /* a toolstack that need not wait for us has cleared the nodes away already: of a domain that
     * runs, or of one that has shut down or was saved? */
    xlv_domains_ask(m->domains, d->domid, &domain);
    return v->domain_dead || (domain.told && (domain.suspended || domain.shut_down));
}

static void stop(struct device *d)
{
    const struct xlv_device_view *v = &d->view;

    d->ended = boot_is_over(d) ? end_boot(d) : XLV_STOP_FRONTEND_CLOSED;
    if (d->child)
        xlv_child_stop(d->child, d->ended, v->exists && v->online ? STOP_CLOSE_US : STOP_END_US);
}

/* May the journal of its instance be of no other device's boot? */
static bool alone(const struct device *d)
{
    for (const struct device *other = d->daemon->devices; other; other = other->next)
        if (other != d && other->slot == d->slot)
            return false;
    return true;
}

/* Lets go of the instance. */
static void release(struct device *d)
{
    struct xlv_daemon *m = d->daemon;

    /* No process to be told, for it was killed a moment ago, or ended when the guest's driver
     * did: its journal is there. */
    if (!d->ended && d->slot && (d->claim.granted || (d->came_back && !d->slot->holder)) &&
        boot_is_over(d)) {
        if (end_boot(d) == XLV_STOP_SUSPEND)
            xlv_instances_kept(m->instances, d->slot, false);
        else if (d->over && alone(d))
            xlv_instances_drop_journal(m->instances, d->slot);
    }
    xlv_claim_release(m->instances, &d->claim);
    d->ended = 0;
    d->came_back = true;
    d->noted_use = false;
}

/* --- steps --- */

/*
 * Only the directory that we ended with: libxl may have made it again, with state 1, since we
 * looked. A transaction, so that it cannot do so between the question and the removal.
 */
static int leaf_body(struct xlv_xenstore *xs, xlv_xs_transaction t, void *opaque)
{
    struct device *d = opaque;
    struct xlv_xs_value value;
    char path[128];
    bool ours;
    int rc;

    snprintf(path, sizeof(path), "%s/state", d->backend);
    rc = xlv_xenstore_read(xs, t, path, &value);
    if (d->state == XLV_DEVICE_REFUSED)
        ours = rc == XLV_E_NOT_FOUND;
    else
        ours = rc == 0 && xlv_parse_xenbus(value.text, value.length) == XLV_XENBUS_CLOSED;
    if (!ours)
        return rc;
    return xlv_xenstore_remove(xs, t, d->backend);
}

static void remove_leaf(struct device *d)
{
    struct xlv_daemon *m = d->daemon;
    bool over = d->state == XLV_DEVICE_ENDED ? !d->view.online
                                             : d->state == XLV_DEVICE_REFUSED &&
                                                   !d->view.frontend_exists;

    if (!m->xs || !over)
        return;
    if (xlv_xenstore_transact(m->xs, leaf_body, d) == XLV_E_GONE)
        xlv_daemon_lost(m);
    else
        xlv_dev_mark(d, true);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *opaque)
{
    struct device *d = opaque;

    (void)source;
    (void)usec;
    if (d->leaf) {
        d->leaf = false;
        remove_leaf(d);
        return 0;
    }
    xlv_dev_push(d, d->timer_event);
    xlv_dev_run(d);
    return 0;
}

static void perform(struct device *d, const struct xlv_device_step *step)
{
    struct xlv_daemon *m = d->daemon;
    unsigned a = step->actions;

    if (a & XLV_ACT_STOP)
        stop(d);
    if (a & XLV_ACT_RELEASE)
        release(d);
    if (a & (XLV_ACT_ERROR | XLV_ACT_REFUSE)) {
        xlv_dev_write_error(d, d->told ? d->told : "no TPM", a & XLV_ACT_REFUSE);
    }
    if (a & XLV_ACT_INIT_WAIT)
        xlv_dev_init_wait(d);
    if (a & XLV_ACT_STATE_CONNECTED)
        xlv_dev_set_state(d, XLV_XENBUS_CONNECTED);
    if (a & XLV_ACT_STATE_CLOSING)
        xlv_dev_set_state(d, XLV_XENBUS_CLOSING);
    if (!d->end_by_us && (d->state == XLV_DEVICE_ENDING || d->state == XLV_DEVICE_ENDING_HOLD))
        d->end_by_us = xlv_daemon_now(m) + HOLD_US;
    if (a & XLV_ACT_STATE_CLOSED)
        xlv_dev_set_state(d, XLV_XENBUS_CLOSED);
    if (a & XLV_ACT_CLAIM) {
        xlv_claim_take(m->instances, d->slot, &d->claim);
    }
    if (a & XLV_ACT_START)
        start(d);
    if (a & XLV_ACT_ARM_RETRY) {
        d->timer_event = XLV_EVENT_RETRY;
        d->leaf = false;
        if (d->retry_us)
            xlv_daemon_arm(m, &d->timer, d->retry_us, on_timer, d);
        else
            xlv_dev_push(d, XLV_EVENT_RETRY);
    }
    if (a & XLV_ACT_ARM_DEADLINE) {
        uint64_t now = xlv_daemon_now(m);

        d->timer_event = XLV_EVENT_DEADLINE;
        d->leaf = false;
        xlv_daemon_arm(m, &d->timer, d->end_by_us > now ? d->end_by_us - now : 0, on_timer, d);
    }
    if ((a & XLV_ACT_REMOVE_LEAF) && m->own != 0) {
        d->leaf = true;
        xlv_daemon_arm(m, &d->timer, LEAF_US, on_timer, d);
    }
}

/* False where nothing changed. */
static bool step(struct device *d, enum xlv_device_event event)
{
    struct xlv_device_step s;
    enum xlv_device_state before = d->state;

    if (xlv_device_next(d->state, event, &s)) {
        xlv_log_about(&d->subject, XLV_LOG_ERROR, "a mistake in the program: event %s in state %s",
                      xlv_device_event_name(event), xlv_device_state_name(d->state));
        return false;
    }
    if (s.next == before && s.actions == 0)
        return false;
    xlv_log_about(&d->subject, XLV_LOG_DEBUG, "%s: %s -> %s", xlv_device_event_name(event),
                  xlv_device_state_name(before), xlv_device_state_name(s.next));
    if (before != s.next)
        xlv_daemon_disarm(d->timer);
    /* first the state: what the actions bring about is an event of the new one */
    d->state = s.next;
    perform(d, &s);
    return before != s.next;
}

static void forget(struct device *d)
{
    struct xlv_daemon *m = d->daemon;
    uint32_t domid = d->domid, devid = d->devid;
    bool anew = d->anew;

    xlv_log_about(&d->subject, XLV_LOG_DEBUG, "forgotten");
    xlv_dev_unwatch(d);
    xlv_dev_free(d);
    if (anew)
        xlv_daemon_touch(m, domid, devid);
}

/* Brings one device to rest. May free it. */
void xlv_dev_run(struct device *d)
{
    /* the table has no cycle that a view keeps going (test-device checks it); a mistake
     * there shall not take the daemon with it */
    for (int i = 0; i < 64; i++) {
        enum xlv_device_event event;

        if (d->state == XLV_DEVICE_GONE) {
            forget(d);
            return;
        }
        if (d->nevents) {
            event = d->events[0];
            memmove(d->events, d->events + 1, --d->nevents * sizeof(d->events[0]));
            (void)step(d, event);
            continue;
        }
        if (d->look && !xlv_dev_look(d))
            return;
        /* the first look at it failed and is done again: that is not a device that is gone */
        if (!d->seen)
            return;
        event = xlv_device_classify(&d->view, &d->served);
        if (step(d, event))
            continue;
        if (d->nevents)
            continue;
        if (d->state == XLV_DEVICE_UNDECIDED) {
            decide(d);
            if (d->nevents)
                continue;
        }
        return;
    }
    xlv_log_about(&d->subject, XLV_LOG_ERROR, "a mistake in the program: no rest in state %s",
                  xlv_device_state_name(d->state));
}
