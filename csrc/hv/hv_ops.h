/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What an implementation of hv.h provides: xen.c, local.c, guestd.c, or a test that has a fault
 * happen.
 *
 * Each object carries its implementation, and stands on its own: it may outlive the struct xa_hv
 * that it came from. Calls have hv.h's meaning; hv.c has checked the arguments that hv.h bounds.
 */
#ifndef XA_HV_HV_OPS_H
#define XA_HV_HV_OPS_H

#include <sys/types.h>

#include "hv.h"

/* The address, or its beginning before a colon, that means the guest service. */
#define XA_HV_GUESTD "guestd"

/* The most that a 32-bit buffer_sz of sndif can call for: 4 GiB. */
#define XA_HV_PAGES_MAX (1u << 20)

/* Octets of a Unix socket's path: sun_path without its last 0. */
#define XA_HV_ADDRESS_MAX 107

/* Of a page, whatever the machine's page is. */
#define XA_HV_PAGE_OCTETS 4096u

struct xa_hv_ops {
    void (*close)(struct xa_hv *hv); /* lets go of what hv->own is; NULL: nothing */
    int (*connect_store)(struct xa_hv *hv);
    int (*share_new)(struct xa_hv *hv, uint16_t remote, uint32_t pages, uint32_t *grefs,
                     struct xa_share **share);
    void (*share_free)(struct xa_share *share);
    int (*map_new)(struct xa_hv *hv, uint16_t remote, uint32_t pages, const uint32_t *grefs,
                   bool writable, struct xa_map **map);
    void (*map_free)(struct xa_map *map);
    int (*evtchn_open)(struct xa_hv *hv, struct xa_evtchn **evtchn);
    void (*evtchn_close)(struct xa_evtchn *evtchn);
    void (*evtchn_abandon)(struct xa_evtchn *evtchn); /* NULL: closing does no harm */
    int (*alloc_unbound)(struct xa_evtchn *evtchn, uint16_t remote, uint32_t *port);
    int (*bind_interdomain)(struct xa_evtchn *evtchn, uint16_t remote, uint32_t remote_port,
                            uint32_t *port);
    int (*unbind)(struct xa_evtchn *evtchn, uint32_t port);
    int (*notify)(struct xa_evtchn *evtchn, uint32_t port);
    int (*pending)(struct xa_evtchn *evtchn, uint32_t *port);
};

extern const struct xa_hv_ops xa_hv_local;
extern const struct xa_hv_ops xa_hv_guestd;
#ifdef XA_HAVE_XEN
extern const struct xa_hv_ops xa_hv_xen;
#endif

struct xa_hv {
    const struct xa_hv_ops *ops;
    void *own; /* the implementation's, NULL at first */
    char address[sizeof(XA_HV_GUESTD ":") + XA_HV_ADDRESS_MAX];
};

/* The beginnings of an implementation's own structures. */
struct xa_share {
    const struct xa_hv_ops *ops;
    void *memory;
    uint32_t pages;
};

struct xa_map {
    const struct xa_hv_ops *ops;
    void *memory;
    uint32_t pages;
};

struct xa_evtchn {
    const struct xa_hv_ops *ops;
    int fd;
};

/* As xa_hv_open, with the implementation given. */
struct xa_hv *xa_hv_open_ops(const char *address, const struct xa_hv_ops *ops);

/* A blocking Unix stream socket connected to `path`, or a negative errno value: -ETIMEDOUT when the
 * listener has not taken the connection in 2 s. */
int xa_hv_connect_unix(const char *path);

/* Addresses only, for mappings to be put into; NULL: no memory. */
void *xa_hv_reserve(uint32_t pages);

/* Maps `count` pages of `fd`, from `offset` octets on, at page `at` of what was reserved. 0 or a
 * negative errno value. */
int xa_hv_place(void *memory, uint32_t at, uint32_t count, bool writable, int fd, off_t offset);

#endif
