/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The page directory that describes a stream's shared buffer (struct xensnd_page_directory in
 * xen/io/sndif.h): a list of pages, each with the next page's grant reference and 1023 references
 * of the buffer's pages. The frontend builds it; the backend walks it, one mapped page at a time,
 * never further than the buffer's size calls for.
 */
#ifndef XA_SNDIF_PAGEDIR_H
#define XA_SNDIF_PAGEDIR_H

#include <stdint.h>

#include "xen.h"

#define XA_PAGEDIR_GREFS 1023u

/* Pages that `octets` take: ceil(octets / 4096), exact up to UINT32_MAX. */
uint32_t xa_pages_for(uint32_t octets);

/* Directory pages that `buffer_pages` references take: ceil(buffer_pages / 1023). */
uint32_t xa_pagedir_pages_for(uint32_t buffer_pages);

/*
 * Fills `dir_count` directory pages (each 4096 octets, at dir_pages[i], granted as dir_grefs[i]) so
 * that they list the `count` references of `grefs` in order. What is left of the last page is 0.
 * 0, or -EINVAL when count is 0, dir_count is not xa_pagedir_pages_for(count), or a reference is 0
 * (sndif's "invalid grant reference").
 */
int xa_pagedir_build(void *const *dir_pages, const grant_ref_t *dir_grefs, uint32_t dir_count,
                     const grant_ref_t *grefs, uint32_t count);

/* A walk in progress; `next` is the reference of the directory page to map and hand in next. */
struct xa_pagedir_walk {
    grant_ref_t next;
    uint32_t found; /* buffer references copied so far */
    uint32_t count; /* of this many */
};

/* Begins a walk at OPEN's gref_directory for `count` buffer pages. -EINVAL when either is 0. */
int xa_pagedir_walk_init(struct xa_pagedir_walk *walk, grant_ref_t gref_directory, uint32_t count);

/*
 * Reads the mapped page walk->next: copies its references, each once, to grefs[walk->found...]
 * (room for walk->count in all). 1: another page is needed, map walk->next; 0: all are found (what
 * the last page says of a next page is not looked at); -EPROTO: a reference is 0, or the list ends
 * too soon. So a cyclic directory ends after xa_pagedir_pages_for(count) calls like any other.
 */
int xa_pagedir_walk_page(struct xa_pagedir_walk *walk, const void *dir_page, grant_ref_t *grefs);

#endif
