/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzzes the page directory. A hostile one: four pages of the input's making, that a walk reaches
 * by any reference; it must end within its bound and write no reference too many. An honest one:
 * what is built from the input's references is what the walk finds.
 *
 * Input: octet 0, bit 0: hostile; octets 1 to 4: buffer pages (modulo one more than 4 directory
 * pages list); octets 5 to 8: the first reference; then, for a hostile one, what every word of the
 * pages is and patches (page, word, value), for an honest one a seed of the references.
 */
#include <errno.h>

#include "fuzz_input.h"
#include "sndif/pagedir.h"

#define DIR_PAGES 4u
#define WORDS (XA_PAGE_SIZE / sizeof(uint32_t))

static _Alignas(64) uint32_t dir[DIR_PAGES][WORDS];

/* Walks, taking a reference modulo DIR_PAGES for a page's number. Returns the walk's last answer.
 */
static int walk(grant_ref_t first, uint32_t count, grant_ref_t *grefs, uint32_t *found)
{
    struct xa_pagedir_walk state;
    uint32_t bound = xa_pagedir_pages_for(count);
    int result = xa_pagedir_walk_init(&state, first, count);

    INVARIANT((result == -EINVAL) == (first == 0 || count == 0));
    *found = 0;
    if (result < 0)
        return result;
    for (uint32_t looked_at = 0; looked_at < bound; looked_at++) {
        INVARIANT(state.next != 0);
        INVARIANT(state.found == looked_at * XA_PAGEDIR_GREFS);
        result = xa_pagedir_walk_page(&state, dir[state.next % DIR_PAGES], grefs);
        INVARIANT(state.found <= count && state.count == count);
        *found = state.found;
        if (result != 1)
            break;
    }
    INVARIANT(result == 0 || result == -EPROTO); /* never "one more" at the bound */
    INVARIANT((result == 0) == (*found == count));
    return result;
}

static void hostile(struct fuzz_input *input, grant_ref_t first, uint32_t count, grant_ref_t *grefs)
{
    uint32_t fill = fuzz_u32(input), found;
    int result;

    for (uint32_t i = 0; i < WORDS; i++)
        dir[0][i] = fill;
    for (uint32_t d = 1; d < DIR_PAGES; d++)
        memcpy(dir[d], dir[0], sizeof(dir[d]));
    while (input->left > 0) {
        uint32_t page = fuzz_u8(input) % DIR_PAGES;
        uint32_t word = (fuzz_u8(input) | (uint32_t) fuzz_u8(input) << 8) % WORDS;

        dir[page][word] = fuzz_u32(input);
    }
    result = walk(first, count, grefs, &found);
    for (uint32_t i = 0; i < found; i++)
        INVARIANT(grefs[i] != 0);
    INVARIANT(result != 0 || found == count);
}

static void honest(struct fuzz_input *input, grant_ref_t first, uint32_t count, grant_ref_t *grefs)
{
    uint32_t seed = fuzz_u32(input), found;
    uint32_t dir_count = xa_pagedir_pages_for(count);
    grant_ref_t dir_grefs[DIR_PAGES];
    void *dir_pages[DIR_PAGES];
    int result;

    first = first < DIR_PAGES ? DIR_PAGES
                              : first - first % DIR_PAGES; /* page d is reached by first + d */
    for (uint32_t d = 0; d < DIR_PAGES; d++) {
        dir_grefs[d] = first + d;
        dir_pages[d] = dir[d];
        memset(dir[d], 0xa5, sizeof(dir[d]));
    }
    for (uint32_t i = 0; i < count; i++)
        grefs[i] = (seed + i) * 2654435761u;
    result = xa_pagedir_build(dir_pages, dir_grefs, dir_count, grefs, count);
    for (uint32_t i = 0; i < count; i++) {
        if (grefs[i] == 0) {
            INVARIANT(result == -EINVAL);
            return;
        }
    }
    if (count == 0) {
        INVARIANT(result == -EINVAL);
        return;
    }
    INVARIANT(result == 0);
    memset(grefs, 0, count * sizeof(grefs[0]));
    INVARIANT(walk(first, count, grefs, &found) == 0);
    for (uint32_t i = 0; i < count; i++)
        INVARIANT(grefs[i] == (grant_ref_t) ((seed + i) * 2654435761u));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    uint8_t kind = fuzz_u8(&input);
    uint32_t count = fuzz_u32(&input) % (DIR_PAGES * XA_PAGEDIR_GREFS + 1);
    grant_ref_t first = fuzz_u32(&input);
    /* Exactly as large as the buffer's pages: ASan sees one reference too many. */
    grant_ref_t *grefs = malloc(count * sizeof(*grefs) + 1);

    if (grefs == NULL)
        return 0;
    if ((kind & 1) != 0)
        hostile(&input, first, count, grefs);
    else
        honest(&input, first, count, grefs);
    free(grefs);
    return 0;
}
