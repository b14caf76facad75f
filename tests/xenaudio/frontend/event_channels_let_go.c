/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a card does with its event channel handles; argv[1] is the hypervisor's address. Prints each
 * state of the card, how many handles have been closed until then and how many abandoned; closes
 * the card at the end of standard input. Linked with --wrap=xa_evtchn_close,--wrap=...abandon.
 */
#include <poll.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "frontend/card.h"
#include "hv/hv.h"

void __real_xa_evtchn_close(struct xa_evtchn *evtchn);
void __wrap_xa_evtchn_close(struct xa_evtchn *evtchn);
void __real_xa_evtchn_abandon(struct xa_evtchn *evtchn);
void __wrap_xa_evtchn_abandon(struct xa_evtchn *evtchn);

static unsigned closed, abandoned;

void __wrap_xa_evtchn_close(struct xa_evtchn *evtchn)
{
    closed += evtchn != NULL;
    __real_xa_evtchn_close(evtchn);
}

void __wrap_xa_evtchn_abandon(struct xa_evtchn *evtchn)
{
    abandoned += evtchn != NULL;
    __real_xa_evtchn_abandon(evtchn);
}

static void on_state(void *user, enum xa_card_state state, int reason, const char *text)
{
    (void) user;
    (void) reason;
    (void) text;
    printf("%d %u %u\n", (int) state, closed, abandoned);
    fflush(stdout);
}

static uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t) now.tv_sec * 1000000 + (uint64_t) now.tv_nsec / 1000;
}

int main(int argc, char **argv)
{
    const struct xa_card_callbacks callbacks = {.card = on_state};
    struct xa_card *card;
    struct xa_hv *hv;
    bool closing = false;

    if (argc != 2)
        return 2;
    hv = xa_hv_open(argv[1]);
    if (!hv || xa_card_new(hv, 0, &callbacks, NULL, &card) < 0)
        return 2;
    while (xa_card_state(card) != XA_CARD_CLOSED) {
        struct pollfd polls[XA_CARD_FDS + 1];
        int fds[XA_CARD_FDS];
        short events[XA_CARD_FDS];
        uint64_t deadline, now;
        unsigned count;
        int wait = 1000;

        xa_card_process(card, now_us());
        count = xa_card_fds(card, fds, events);
        for (unsigned i = 0; i < count; i++)
            polls[i] = (struct pollfd){.fd = fds[i], .events = events[i]};
        polls[count] = (struct pollfd){.fd = closing ? -1 : STDIN_FILENO, .events = POLLIN};
        deadline = xa_card_deadline(card);
        now = now_us();
        if (deadline < now + 1000000)
            wait = deadline > now ? (int) ((deadline - now) / 1000 + 1) : 0;
        if (poll(polls, count + 1, wait) < 0)
            return 2;
        if (polls[count].revents) {
            closing = true;
            xa_card_close(card);
        }
    }
    xa_card_free(card);
    xa_hv_close(hv);
    return 0;
}
