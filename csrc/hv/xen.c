/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv.h on Xen: libxengnttab (gntdev to map, gntalloc to share) and libxenevtchn. Compiled in where
 * these are found (XA_HAVE_XEN).
 *
 * Every share and map opens its device anew: objects need no lock between them, and closing one
 * frees whatever it still had.
 */
#ifdef XA_HAVE_XEN

#include "hv_ops.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <xenevtchn.h>
#include <xengnttab.h>
#include <xentoollog.h>

struct xen_share {
    struct xa_share base;
    xengntshr_handle *device;
};

struct xen_map {
    struct xa_map base;
    xengnttab_handle *device;
};

struct xen_evtchn {
    struct xa_evtchn base;
    xenevtchn_handle *device;
};

static void log_nothing(struct xentoollog_logger *logger, xentoollog_level level, int error,
                        const char *context, const char *format, va_list arguments)
{
    (void) logger;
    (void) level;
    (void) error;
    (void) context;
    (void) format;
    (void) arguments;
}

static void progress_nothing(struct xentoollog_logger *logger, const char *context,
                             const char *doing, int percent, unsigned long done,
                             unsigned long total)
{
    (void) logger;
    (void) context;
    (void) doing;
    (void) percent;
    (void) done;
    (void) total;
}

static void keep_logger(struct xentoollog_logger *logger)
{
    (void) logger;
}

/* Without a logger the libraries write to stderr: a line for each wrong reference that a guest
 * cares to send. What went wrong reaches our caller as errno. */
static struct xentoollog_logger silent = {
    .vmessage = log_nothing,
    .progress = progress_nothing,
    .destroy = keep_logger,
};

/* The error of a library call that failed, for those that leave errno alone. */
static int last_error(void)
{
    return errno > 0 ? -errno : -EIO;
}

/* Of opening a device. ENOENT would say that a grant or a port is not there. */
static int open_error(void)
{
    return errno == ENOENT ? -ENODEV : last_error();
}

static int connect_store(struct xa_hv *hv)
{
    static const char *const sockets[] = {"/run/xenstored/socket", "/var/run/xenstored/socket"};
    const char *named = getenv("XENSTORED_PATH");
    int fd;

    (void) hv;
    if (named != NULL && named[0] != '\0')
        return xa_hv_connect_unix(named);
    for (size_t i = 0; i < sizeof(sockets) / sizeof(sockets[0]); i++) {
        fd = xa_hv_connect_unix(sockets[i]);
        /* No daemon in this domain: it is another one's, and reached through the kernel. Nor do
         * daemons let anybody but root in; who may open the kernel's device is the system's choice.
         */
        if (fd != -ENOENT && fd != -ECONNREFUSED && fd != -EACCES)
            return fd;
    }
    fd = open("/dev/xen/xenbus", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    return fd < 0 ? open_error() : fd;
}

static int share_new(struct xa_hv *hv, uint16_t remote, uint32_t pages, uint32_t *grefs,
                     struct xa_share **share)
{
    struct xen_share *new = calloc(1, sizeof(*new));
    int result;

    (void) hv;
    if (new == NULL)
        return -ENOMEM;
    new->base = (struct xa_share){.ops = &xa_hv_xen, .pages = pages};
    errno = 0;
    new->device = xengntshr_open(&silent, 0);
    if (new->device != NULL)
        new->base.memory = xengntshr_share_pages(new->device, remote, (int) pages, grefs, 1);
    if (new->base.memory == NULL) {
        result = new->device != NULL ? last_error() : open_error();
        if (new->device != NULL)
            xengntshr_close(new->device);
        free(new);
        return result;
    }
    *share = &new->base;
    return 0;
}

static void share_free(struct xa_share *base)
{
    struct xen_share *share = (struct xen_share *) base;

    xengntshr_unshare(share->device, base->memory, base->pages);
    xengntshr_close(share->device);
    free(share);
}

static int map_new(struct xa_hv *hv, uint16_t remote, uint32_t pages, const uint32_t *grefs,
                   bool writable, struct xa_map **map)
{
    struct xen_map *new = calloc(1, sizeof(*new));
    int result;

    (void) hv;
    if (new == NULL)
        return -ENOMEM;
    new->base = (struct xa_map){.ops = &xa_hv_xen, .pages = pages};
    errno = 0;
    new->device = xengnttab_open(&silent, 0);
    if (new->device != NULL)
        /* The library only reads the references, though its prototype does not say so. */
        new->base.memory =
            xengnttab_map_domain_grant_refs(new->device, pages, remote, (uint32_t *) grefs,
                                            writable ? PROT_READ | PROT_WRITE : PROT_READ);
    if (new->base.memory == NULL) {
        result = new->device != NULL ? last_error() : open_error();
        if (new->device != NULL)
            xengnttab_close(new->device);
        free(new);
        return result;
    }
    *map = &new->base;
    return 0;
}

static void map_free(struct xa_map *base)
{
    struct xen_map *map = (struct xen_map *) base;

    xengnttab_unmap(map->device, base->memory, base->pages);
    xengnttab_close(map->device);
    free(map);
}

static int evtchn_open(struct xa_hv *hv, struct xa_evtchn **evtchn)
{
    struct xen_evtchn *new = calloc(1, sizeof(*new));
    int flags, result;

    (void) hv;
    if (new == NULL)
        return -ENOMEM;
    new->base.ops = &xa_hv_xen;
    errno = 0;
    new->device = xenevtchn_open(&silent, 0);
    if (new->device == NULL) {
        result = open_error();
        free(new);
        return result;
    }
    new->base.fd = xenevtchn_fd(new->device);
    flags = fcntl(new->base.fd, F_GETFL);
    if (flags < 0 || fcntl(new->base.fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        result = last_error();
        xenevtchn_close(new->device);
        free(new);
        return result;
    }
    *evtchn = &new->base;
    return 0;
}

static void evtchn_close(struct xa_evtchn *base)
{
    struct xen_evtchn *evtchn = (struct xen_evtchn *) base;

    xenevtchn_close(evtchn->device);
    free(evtchn);
}

/* The library's handle stays too: it has no other way to be let go of than closing the device. */
static void evtchn_abandon(struct xa_evtchn *base)
{
    free(base);
}

static xenevtchn_handle *device_of(struct xa_evtchn *base)
{
    return ((struct xen_evtchn *) base)->device;
}

static int bound(xenevtchn_port_or_error_t result, uint32_t *port)
{
    if (result < 0)
        return last_error();
    *port = (uint32_t) result;
    return 0;
}

static int alloc_unbound(struct xa_evtchn *base, uint16_t remote, uint32_t *port)
{
    return bound(xenevtchn_bind_unbound_port(device_of(base), remote), port);
}

static int bind_interdomain(struct xa_evtchn *base, uint16_t remote, uint32_t remote_port,
                            uint32_t *port)
{
    return bound(xenevtchn_bind_interdomain(device_of(base), remote, remote_port), port);
}

static int unbind(struct xa_evtchn *base, uint32_t port)
{
    return xenevtchn_unbind(device_of(base), port) < 0 ? last_error() : 0;
}

static int notify(struct xa_evtchn *base, uint32_t port)
{
    return xenevtchn_notify(device_of(base), port) < 0 ? last_error() : 0;
}

static int pending(struct xa_evtchn *base, uint32_t *port)
{
    xenevtchn_port_or_error_t next = xenevtchn_pending(device_of(base));

    if (next < 0)
        return errno == EAGAIN ? 0 : last_error();
    if (xenevtchn_unmask(device_of(base), (evtchn_port_t) next) < 0)
        return last_error();
    *port = (uint32_t) next;
    return 1;
}

const struct xa_hv_ops xa_hv_xen = {
    .connect_store = connect_store,
    .share_new = share_new,
    .share_free = share_free,
    .map_new = map_new,
    .map_free = map_free,
    .evtchn_open = evtchn_open,
    .evtchn_close = evtchn_close,
    .evtchn_abandon = evtchn_abandon,
    .alloc_unbound = alloc_unbound,
    .bind_interdomain = bind_interdomain,
    .unbind = unbind,
    .notify = notify,
    .pending = pending,
};

#else

/* ISO C wants a declaration in every translation unit. */
typedef int xa_hv_xen_is_not_compiled_in;

#endif
