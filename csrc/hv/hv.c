/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Finds the hypervisor that an address means and hands each call of hv.h to it.
 */
#include "hv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "guestd_wire.h"
#include "hv_ops.h"

_Static_assert(XA_HV_ADDRESS_MAX < sizeof(((struct sockaddr_un *) 0)->sun_path),
               "an address and its 0 fit into a socket's address");

struct xa_hv *xa_hv_open_ops(const char *address, const struct xa_hv_ops *ops)
{
    size_t length = strlen(address);
    struct xa_hv *hv;

    if (length > (ops == &xa_hv_guestd ? sizeof(hv->address) - 1 : XA_HV_ADDRESS_MAX)) {
        errno = ENAMETOOLONG;
        return NULL;
    }
    hv = calloc(1, sizeof(*hv));
    if (hv == NULL)
        return NULL;
    hv->ops = ops;
    memcpy(hv->address, address, length);
    return hv;
}

/* Whether this process can use Xen's devices itself, or xenstored runs in this domain. */
static bool has_xen(void)
{
    return access("/dev/xen/xenbus", R_OK | W_OK) == 0 ||
           access("/run/xenstored/socket", R_OK | W_OK) == 0;
}

static const char *default_address(void)
{
    const char *named = getenv("XENAUDIO_HV");

    if (named != NULL && named[0] != '\0')
        return named;
    return !has_xen() && access(XA_GUESTD_SOCKET, R_OK | W_OK) == 0 ? XA_HV_GUESTD : "xen";
}

static bool is_guestd(const char *address)
{
    size_t length = strlen(XA_HV_GUESTD);

    return strncmp(address, XA_HV_GUESTD, length) == 0 &&
           (address[length] == '\0' || address[length] == ':');
}

struct xa_hv *xa_hv_open(const char *address)
{
    if (address == NULL)
        address = default_address();
    if (is_guestd(address))
        return xa_hv_open_ops(address, &xa_hv_guestd);
    if (strcmp(address, "xen") != 0)
        return xa_hv_open_ops(address, &xa_hv_local);
#ifdef XA_HAVE_XEN
    return xa_hv_open_ops(address, &xa_hv_xen);
#else
    errno = ENOTSUP;
    return NULL;
#endif
}

void xa_hv_close(struct xa_hv *hv)
{
    if (hv != NULL && hv->ops->close != NULL)
        hv->ops->close(hv);
    free(hv);
}

const char *xa_hv_address(const struct xa_hv *hv)
{
    return hv->address;
}

int xa_hv_connect_unix(const char *path)
{
    /* A blocking connect waits while the listener's backlog is full, for as long as this says. */
    const struct timeval limit = {.tv_sec = 2};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(path);
    int fd, error;

    if (length >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, length);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) == 0 &&
        connect(fd, (const struct sockaddr *) &address, sizeof(address)) == 0)
        return fd;
    error = errno;
    close(fd);
    return error == EAGAIN ? -ETIMEDOUT : -error;
}

void *xa_hv_reserve(uint32_t pages)
{
    void *memory = mmap(NULL, (size_t) pages * XA_HV_PAGE_OCTETS, PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return memory == MAP_FAILED ? NULL : memory;
}

int xa_hv_place(void *memory, uint32_t at, uint32_t count, bool writable, int fd, off_t offset)
{
    void *where = (uint8_t *) memory + (size_t) at * XA_HV_PAGE_OCTETS;
    int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;

    if (mmap(where, (size_t) count * XA_HV_PAGE_OCTETS, protection, MAP_SHARED | MAP_FIXED, fd,
             offset) == MAP_FAILED)
        return -errno;
    return 0;
}

int xa_hv_connect_store(struct xa_hv *hv)
{
    return hv->ops->connect_store(hv);
}

int xa_share_new(struct xa_hv *hv, uint16_t remote, uint32_t pages, uint32_t *grefs,
                 struct xa_share **share)
{
    if (pages == 0 || pages > XA_HV_PAGES_MAX)
        return -EINVAL;
    return hv->ops->share_new(hv, remote, pages, grefs, share);
}

void *xa_share_memory(struct xa_share *share)
{
    return share->memory;
}

void xa_share_free(struct xa_share *share)
{
    if (share != NULL)
        share->ops->share_free(share);
}

int xa_map_new(struct xa_hv *hv, uint16_t remote, uint32_t pages, const uint32_t *grefs,
               bool writable, struct xa_map **map)
{
    if (pages == 0 || pages > XA_HV_PAGES_MAX)
        return -EINVAL;
    return hv->ops->map_new(hv, remote, pages, grefs, writable, map);
}

void *xa_map_memory(struct xa_map *map)
{
    return map->memory;
}

void xa_map_free(struct xa_map *map)
{
    if (map != NULL)
        map->ops->map_free(map);
}

int xa_evtchn_open(struct xa_hv *hv, struct xa_evtchn **evtchn)
{
    return hv->ops->evtchn_open(hv, evtchn);
}

void xa_evtchn_close(struct xa_evtchn *evtchn)
{
    if (evtchn != NULL)
        evtchn->ops->evtchn_close(evtchn);
}

void xa_evtchn_abandon(struct xa_evtchn *evtchn)
{
    if (evtchn != NULL && evtchn->ops->evtchn_abandon != NULL)
        evtchn->ops->evtchn_abandon(evtchn);
    else
        xa_evtchn_close(evtchn);
}

int xa_evtchn_fd(const struct xa_evtchn *evtchn)
{
    return evtchn->fd;
}

int xa_evtchn_alloc_unbound(struct xa_evtchn *evtchn, uint16_t remote, uint32_t *port)
{
    return evtchn->ops->alloc_unbound(evtchn, remote, port);
}

int xa_evtchn_bind_interdomain(struct xa_evtchn *evtchn, uint16_t remote, uint32_t remote_port,
                               uint32_t *port)
{
    return evtchn->ops->bind_interdomain(evtchn, remote, remote_port, port);
}

int xa_evtchn_unbind(struct xa_evtchn *evtchn, uint32_t port)
{
    return evtchn->ops->unbind(evtchn, port);
}

int xa_evtchn_notify(struct xa_evtchn *evtchn, uint32_t port)
{
    return evtchn->ops->notify(evtchn, port);
}

int xa_evtchn_pending(struct xa_evtchn *evtchn, uint32_t *port)
{
    return evtchn->ops->pending(evtchn, port);
}
