/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The page directory of a stream's shared buffer: build and bounded walk (pagedir.h).
 */
#include "pagedir.h"

#include <errno.h>
#include <stdbool.h>

#include "shared.h"

_Static_assert(sizeof(grant_ref_t) == sizeof(uint32_t), "a grant reference is one word");
_Static_assert(offsetof(struct xensnd_page_directory, gref_dir_next_page) == 0 &&
                   offsetof(struct xensnd_page_directory, gref) == sizeof(grant_ref_t),
               "a directory page is the next page's reference, then the buffer's");
_Static_assert(sizeof(grant_ref_t) * (1 + XA_PAGEDIR_GREFS) == XA_PAGE_SIZE,
               "as many references as fit in the page");

uint32_t xa_pages_for(uint32_t octets)
{
    return octets / XA_PAGE_SIZE + (octets % XA_PAGE_SIZE != 0);
}

uint32_t xa_pagedir_pages_for(uint32_t buffer_pages)
{
    return buffer_pages / XA_PAGEDIR_GREFS + (buffer_pages % XA_PAGEDIR_GREFS != 0);
}

static bool any_invalid(const grant_ref_t *grefs, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (grefs[i] == 0)
            return true;
    }
    return false;
}

int xa_pagedir_build(void *const *dir_pages, const grant_ref_t *dir_grefs, uint32_t dir_count,
                     const grant_ref_t *grefs, uint32_t count)
{
    if (count == 0 || dir_count != xa_pagedir_pages_for(count) ||
        any_invalid(dir_grefs, dir_count) || any_invalid(grefs, count))
        return -EINVAL;
    for (uint32_t d = 0; d < dir_count; d++) {
        struct xensnd_page_directory *dir = dir_pages[d];
        uint32_t first = d * XA_PAGEDIR_GREFS;

        xa_store_relaxed(&dir->gref_dir_next_page, d + 1 < dir_count ? dir_grefs[d + 1] : 0);
        for (uint32_t i = 0; i < XA_PAGEDIR_GREFS; i++)
            xa_store_relaxed(dir->gref + i, first + i < count ? grefs[first + i] : 0);
    }
    return 0;
}

int xa_pagedir_walk_init(struct xa_pagedir_walk *walk, grant_ref_t gref_directory, uint32_t count)
{
    if (gref_directory == 0 || count == 0)
        return -EINVAL;
    *walk = (struct xa_pagedir_walk){.next = gref_directory, .count = count};
    return 0;
}

int xa_pagedir_walk_page(struct xa_pagedir_walk *walk, const void *dir_page, grant_ref_t *grefs)
{
    const struct xensnd_page_directory *dir = dir_page;

    for (uint32_t i = 0; i < XA_PAGEDIR_GREFS && walk->found < walk->count; i++) {
        grant_ref_t gref = xa_load_relaxed(dir->gref + i);

        if (gref == 0)
            return -EPROTO;
        grefs[walk->found++] = gref;
    }
    if (walk->found == walk->count) {
        walk->next = 0;
        return 0;
    }
    walk->next = xa_load_relaxed(&dir->gref_dir_next_page);
    return walk->next == 0 ? -EPROTO : 1;
}
