/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The page directory: sizes, build and walk agree for every shape of buffer, and hostile
 * directories end in an error within the bound.
 */
#include <errno.h>
#include <stdbool.h>

#include "check.h"
#include "sndif/pagedir.h"

#define DIR_PAGES 4u
#define GREFS_MAX (DIR_PAGES * XA_PAGEDIR_GREFS)
#define CANARY 0xdeadbeefu

static uint32_t dir[DIR_PAGES][XA_PAGE_SIZE / sizeof(uint32_t)];
static void *dir_pages[DIR_PAGES] = {dir[0], dir[1], dir[2], dir[3]};
static const grant_ref_t dir_grefs[DIR_PAGES] = {901, 902, 903, 904};
static grant_ref_t grefs[GREFS_MAX];
static grant_ref_t found[GREFS_MAX + 1];

static void fresh(void)
{
    memset(dir, 0xa5, sizeof(dir));
    for (uint32_t i = 0; i < GREFS_MAX; i++)
        grefs[i] = 5000 + i;
    for (uint32_t i = 0; i <= GREFS_MAX; i++)
        found[i] = CANARY;
}

static int build(uint32_t count)
{
    return xa_pagedir_build(dir_pages, dir_grefs, xa_pagedir_pages_for(count), grefs, count);
}

/* Walks as a backend does: "maps" each page by its reference. Returns the walk's result and counts
 * the pages that it looked at. */
static int walk(grant_ref_t gref_directory, uint32_t count, uint32_t *looked_at)
{
    struct xa_pagedir_walk state;
    int result = xa_pagedir_walk_init(&state, gref_directory, count);

    *looked_at = 0;
    if (result < 0)
        return result;
    do {
        CHECK(state.next >= 901 && state.next <= 904);
        result = xa_pagedir_walk_page(&state, dir[(state.next - 901) % DIR_PAGES], found);
        ++*looked_at;
    } while (result == 1 && *looked_at < 100);
    CHECK(state.found <= count);
    CHECK_EQ(found[count], CANARY); /* not an entry past the buffer's own */
    return result;
}

static void pages_are_rounded_up(void)
{
    CHECK_EQ(xa_pages_for(0), 0);
    CHECK_EQ(xa_pages_for(1), 1);
    CHECK_EQ(xa_pages_for(4096), 1);
    CHECK_EQ(xa_pages_for(4097), 2);
    CHECK_EQ(xa_pages_for(UINT32_MAX), 1u << 20);
    CHECK_EQ(xa_pagedir_pages_for(0), 0);
    CHECK_EQ(xa_pagedir_pages_for(1), 1);
    CHECK_EQ(xa_pagedir_pages_for(1023), 1);
    CHECK_EQ(xa_pagedir_pages_for(1024), 2);
    CHECK_EQ(xa_pagedir_pages_for(2046), 2);
    CHECK_EQ(xa_pagedir_pages_for(2047), 3);
    CHECK_EQ(xa_pagedir_pages_for(1u << 20), 1026);
    CHECK_EQ(xa_pagedir_pages_for(UINT32_MAX), 4198405);
}

static void the_page_is_laid_out_as_the_protocol_says(void)
{
    fresh();
    CHECK_EQ(build(1024), 0);
    CHECK_EQ(dir[0][0], 902);
    CHECK_EQ(dir[0][1], 5000);
    CHECK_EQ(dir[0][1023], 6022);
    CHECK_EQ(dir[1][0], 0);
    CHECK_EQ(dir[1][1], 6023);
    for (unsigned i = 2; i < 1024; i++)
        CHECK_EQ(dir[1][i], 0);
    CHECK_EQ(dir[2][0], 0xa5a5a5a5);
}

static void what_was_built_is_found_by_the_walk(void)
{
    static const uint32_t counts[] = {1, 2, 1022, 1023, 1024, 2046, 2047, 3069, 3070, GREFS_MAX};
    uint32_t looked_at;

    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        fresh();
        CHECK_EQ(build(counts[i]), 0);
        CHECK_EQ(walk(901, counts[i], &looked_at), 0);
        CHECK_EQ(looked_at, xa_pagedir_pages_for(counts[i]));
        CHECK(memcmp(found, grefs, counts[i] * sizeof(grefs[0])) == 0);
    }
}

static void a_build_that_cannot_be_right_changes_nothing(void)
{
    const grant_ref_t no_second[2] = {901, 0};

    fresh();
    CHECK_EQ(xa_pagedir_build(dir_pages, dir_grefs, 0, grefs, 0), -EINVAL);
    CHECK_EQ(xa_pagedir_build(dir_pages, dir_grefs, 1, grefs, 0), -EINVAL);
    CHECK_EQ(xa_pagedir_build(dir_pages, dir_grefs, 1, grefs, 1024), -EINVAL);
    CHECK_EQ(xa_pagedir_build(dir_pages, dir_grefs, 2, grefs, 1023), -EINVAL);
    CHECK_EQ(xa_pagedir_build(dir_pages, no_second, 2, grefs, 1024), -EINVAL);
    grefs[1023] = 0;
    CHECK_EQ(xa_pagedir_build(dir_pages, dir_grefs, 2, grefs, 1024), -EINVAL);
    for (unsigned i = 0; i < 1024; i++)
        CHECK(dir[0][i] == 0xa5a5a5a5 && dir[1][i] == 0xa5a5a5a5);
}

static void a_walk_needs_a_directory_and_a_buffer(void)
{
    struct xa_pagedir_walk state;

    CHECK_EQ(xa_pagedir_walk_init(&state, 0, 1), -EINVAL);
    CHECK_EQ(xa_pagedir_walk_init(&state, 901, 0), -EINVAL);
    CHECK_EQ(xa_pagedir_walk_init(&state, 901, 1), 0);
    CHECK_EQ(state.next, 901);
    CHECK_EQ(state.found, 0);
}

/* ---- hostile frontends ---- */

static void a_zero_reference_is_refused(void)
{
    static const uint32_t zeros[] = {0, 1, 1022, 1023, 2000};
    uint32_t looked_at;

    for (size_t i = 0; i < sizeof(zeros) / sizeof(zeros[0]); i++) {
        fresh();
        CHECK_EQ(build(2001), 0);
        dir[zeros[i] / 1023][1 + zeros[i] % 1023] = 0;
        CHECK_EQ(walk(901, 2001, &looked_at), -EPROTO);
        CHECK_EQ(found[zeros[i]], CANARY);
    }
}

static void a_list_that_ends_too_soon_is_refused(void)
{
    uint32_t looked_at;

    fresh();
    CHECK_EQ(build(3000), 0);
    dir[1][0] = 0;
    CHECK_EQ(walk(901, 3000, &looked_at), -EPROTO);
    CHECK_EQ(looked_at, 2);
}

static void a_cyclic_directory_ends_like_any_other(void)
{
    uint32_t looked_at;

    fresh();
    CHECK_EQ(build(1023), 0);
    dir[0][0] = 901; /* itself */
    CHECK_EQ(walk(901, 4000, &looked_at), 0);
    CHECK_EQ(looked_at, 4);
    CHECK_EQ(found[3069], grefs[0]);

    fresh();
    CHECK_EQ(build(2046), 0);
    dir[1][0] = 901; /* back to the first */
    CHECK_EQ(walk(901, 3000, &looked_at), 0);
    CHECK_EQ(looked_at, 3);
}

static void what_follows_the_last_page_is_not_looked_at(void)
{
    uint32_t looked_at;

    fresh();
    CHECK_EQ(build(1023), 0);
    dir[0][0] = 777777;
    CHECK_EQ(walk(901, 1023, &looked_at), 0);
    CHECK_EQ(looked_at, 1);
}

static void a_page_handed_in_after_the_end_adds_nothing(void)
{
    struct xa_pagedir_walk state;

    fresh();
    CHECK_EQ(build(3), 0);
    CHECK_EQ(xa_pagedir_walk_init(&state, 901, 3), 0);
    CHECK_EQ(xa_pagedir_walk_page(&state, dir[0], found), 0);
    CHECK_EQ(xa_pagedir_walk_page(&state, dir[0], found), 0);
    CHECK_EQ(state.found, 3);
    CHECK_EQ(state.next, 0);
    CHECK_EQ(found[3], CANARY);
}

static void a_directory_changed_after_the_walk_changes_nothing(void)
{
    uint32_t looked_at;

    fresh();
    CHECK_EQ(build(10), 0);
    CHECK_EQ(walk(901, 10, &looked_at), 0);
    memset(dir, 0xff, sizeof(dir));
    CHECK(memcmp(found, grefs, 10 * sizeof(grefs[0])) == 0);
}

int main(void)
{
    pages_are_rounded_up();
    the_page_is_laid_out_as_the_protocol_says();
    what_was_built_is_found_by_the_walk();
    a_build_that_cannot_be_right_changes_nothing();
    a_walk_needs_a_directory_and_a_buffer();
    a_zero_reference_is_refused();
    a_list_that_ends_too_soon_is_refused();
    a_cyclic_directory_ends_like_any_other();
    what_follows_the_last_page_is_not_looked_at();
    a_page_handed_in_after_the_end_adds_nothing();
    a_directory_changed_after_the_walk_changes_nothing();
    return check_result();
}
