/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Arithmetic of stream positions (XENSND_EVT_CUR_POS: octets since OPEN) and of time, for both
 * ends. Pure functions on 64-bit values; none overflows for rates up to 768 kHz and a century of
 * playing. Rates are greater than 0.
 */
#ifndef XA_SNDIF_POSITION_H
#define XA_SNDIF_POSITION_H

#include <stdbool.h>
#include <stdint.h>

/* Whole frames that pass in `ns` nanoseconds at `rate` Hz (rounded down). */
uint64_t xa_frames_in(uint64_t ns, uint32_t rate);

/* Nanoseconds after which `frames` frames have passed at `rate` Hz (rounded up, so that
 * xa_frames_in(xa_ns_until(f, r), r) >= f). */
uint64_t xa_ns_until(uint64_t frames, uint32_t rate);

/*
 * The first position after `position` at which an event is due: one frame past a whole number of
 * periods, at least one. (Linux fires a period only when more than a period has passed.) All in
 * octets; `period` > 0 and `frame` > 0.
 */
uint64_t xa_position_next_event(uint64_t position, uint32_t period, uint32_t frame);

/*
 * Backend: the position to report when `consumed` octets were taken from the guest and the output
 * says that `delay` octets of them are not heard yet: consumed - delay, but never behind `consumed`
 * by more than `buffer - 2 * period` (the same number frees the guest's room to write), nor below
 * 0. A buffer of less than two periods leaves no lag at all. *clamped is set to whether that limit,
 * not the 0, changed the result.
 */
uint64_t xa_position_heard(uint64_t consumed, uint64_t delay, uint32_t buffer, uint32_t period,
                           bool *clamped);

/*
 * Frontend: octets that can be written now, when `written` were written and the backend reported
 * `position`. A backend that ran on while dry reports more than was written: then all of `buffer`.
 */
uint32_t xa_position_room(uint64_t written, uint64_t position, uint32_t buffer);

/*
 * Frontend: whether a reported position can be true: not before `previous`, and not more than
 * `beyond` octets past what was written: a buffer (a dry stream runs on by a period at most), and
 * one more while a STOP may take it up to a whole number of buffers.
 */
bool xa_position_plausible(uint64_t position, uint64_t previous, uint64_t written, uint32_t beyond);

#endif
