/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A card whose store's client cannot be made, tried again for ten times; argv[1] is the
 * hypervisor's address. Exits 0 when it says so and no file descriptor is left open. Linked with
 * --wrap=xa_store_new.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "frontend/card.h"
#include "hv/hv.h"
#include "hv/store.h"

struct xa_store *__wrap_xa_store_new(int fd, xa_store_watch_fn watch_fn, void *user);

static unsigned tries;

struct xa_store *__wrap_xa_store_new(int fd, xa_store_watch_fn watch_fn, void *user)
{
    (void) fd;
    (void) watch_fn;
    (void) user;
    tries++;
    errno = ENOMEM;
    return NULL;
}

/* The number that the next file descriptor will have. */
static int next_fd(void)
{
    int fd = dup(0);

    close(fd);
    return fd;
}

int main(int argc, char **argv)
{
    const struct xa_card_callbacks callbacks = {0};
    struct xa_card *card;
    struct xa_hv *hv;
    int before;
    bool held;

    if (argc != 2)
        return 2;
    hv = xa_hv_open(argv[1]);
    if (!hv || xa_card_new(hv, 0, &callbacks, NULL, &card) < 0)
        return 2;
    before = next_fd();
    for (uint64_t second = 1; second <= 10; second++)
        xa_card_process(card, second * 1000000);
    printf("%u tries, next descriptor %d then %d, %s\n", tries, before, next_fd(),
           xa_card_reason(card));
    held = tries == 10 && next_fd() == before && xa_card_state(card) == XA_CARD_ABSENT &&
           strstr(xa_card_reason(card), strerror(ENOMEM));
    xa_card_free(card);
    xa_hv_close(hv);
    return held ? 0 : 1;
}
