/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the hypervisor knows of a domain: see domain.h. */
#include "config.h"

#include "libxl-vtpm/domain.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <openssl/evp.h>
#include <xenctrl.h> /* first: what the headers below need, it defines */
#include <xengnttab.h>

#include <xen/hvm/save.h>
#include <xen/io/xs_wire.h>

#include "common/log.h"

struct xlv_domains {
    xc_interface *xc;
    xengnttab_handle *gnttab; /* NULL: no marks */
};

int xlv_domains_open(struct xlv_domains **out, struct xlv_error *e)
{
    struct xlv_domains *domains = calloc(1, sizeof(*domains));

    *out = NULL;
    if (!domains)
        return xlv_fail(e, -ENOMEM, "no memory for the domains");
    domains->xc = xc_interface_open(NULL, NULL, 0);
    if (!domains->xc) {
        xlv_log(XLV_LOG_NOTICE, "the hypervisor's control interface cannot be opened: %s; created "
                "and restored domains are not told apart", strerror(errno));
        free(domains);
        return 0;
    }
    domains->gnttab = xengnttab_open(NULL, 0);
    if (!domains->gnttab)
        xlv_log(XLV_LOG_WARNING, "the grant table device cannot be opened: %s; one save of a "
                "domain is not told from another", strerror(errno));
    *out = domains;
    return 0;
}

void xlv_domains_close(struct xlv_domains *domains)
{
    if (!domains)
        return;
    if (domains->gnttab)
        xengnttab_close(domains->gnttab);
    xc_interface_close(domains->xc);
    free(domains);
}

void xlv_domains_ask(struct xlv_domains *domains, uint32_t domid, struct xlv_domain_facts *facts)
{
    uint32_t mode, khz, incarnation = 0;
    uint64_t elapsed;
    xc_dominfo_t info;
    int n;

    *facts = (struct xlv_domain_facts){ .told = false };
    if (!domains)
        return;
    /* gives the first domain from domid on */
    n = xc_domain_getinfo(domains->xc, domid, 1, &info);
    if (n < 0 && errno != ESRCH)
        return;
    if (n < 1 || info.domid != domid) {
        facts->told = true;
        return;
    }
    if (xc_domain_get_tsc_info(domains->xc, domid, &mode, &elapsed, &khz, &incarnation))
        return;
    facts->told = true;
    facts->exists = true;
    facts->has_run = !info.paused || info.cpu_time;
    facts->restored = incarnation > 1;
    facts->suspended = info.shutdown && info.shutdown_reason == SHUTDOWN_suspend;
    facts->soft_reset = info.shutdown && info.shutdown_reason == SHUTDOWN_soft_reset;
    /* libxc tells of a crash apart */
    facts->shut_down = (info.shutdown && !facts->suspended && !facts->soft_reset) || info.crashed;
    facts->over = !facts->soft_reset && (info.dying || info.paused || facts->shut_down);
}

static bool ring_mark(struct xlv_domains *domains, uint32_t domid, int64_t *mark)
{
    const volatile struct xenstore_domain_interface *ring;
    void *page;

    if (!domains->gnttab)
        return false;
    page = xengnttab_map_grant_ref(domains->gnttab, domid, GNTTAB_RESERVED_XENSTORE, PROT_READ);
    if (!page)
        return false;
    ring = page;
    *mark = ring->req_prod;
    xengnttab_unmap(domains->gnttab, page, 1);
    return true;
}

static bool register_mark(struct xlv_domains *domains, uint32_t domid, int64_t *mark)
{
    HVM_SAVE_TYPE(CPU) cpu;
    struct {
        uint64_t r[20];
        uint8_t fpu[sizeof(cpu.fpu_regs)];
    } what;
    unsigned char digest[EVP_MAX_MD_SIZE];
    uint64_t number;

    if (xc_domain_hvm_getcontext_partial(domains->xc, domid, HVM_SAVE_CODE(CPU), 0, &cpu,
                                         sizeof(cpu)))
        return false;
    memset(&what, 0, sizeof(what));
    memcpy(what.r,
           (const uint64_t[20]){ cpu.rax, cpu.rbx, cpu.rcx, cpu.rdx, cpu.rbp, cpu.rsi, cpu.rdi,
                                 cpu.rsp, cpu.r8, cpu.r9, cpu.r10, cpu.r11, cpu.r12, cpu.r13,
                                 cpu.r14, cpu.r15, cpu.rip, cpu.rflags, cpu.cr2, cpu.cr3 },
           sizeof(what.r));
    memcpy(what.fpu, cpu.fpu_regs, sizeof(what.fpu));
    if (!EVP_Q_digest(NULL, "SHA256", NULL, &what, sizeof(what), digest, NULL))
        return false;
    memcpy(&number, digest, sizeof(number));
    *mark = (int64_t)(number & INT64_MAX);
    return true;
}

bool xlv_domains_mark(struct xlv_domains *domains, uint32_t domid, int64_t *mark)
{
    xc_dominfo_t info;

    if (!domains || xc_domain_getinfo(domains->xc, domid, 1, &info) != 1 || info.domid != domid)
        return false;
    return info.hvm ? register_mark(domains, domid, mark) : ring_mark(domains, domid, mark);
}
