/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a stream can do: the ranges that XenStore's configuration and the route allow, the narrowing
 * that answers XENSND_OP_HW_PARAM_QUERY, and the check of an XENSND_OP_OPEN against them.
 */
#ifndef XA_BACKEND_CAPS_H
#define XA_BACKEND_CAPS_H

#include <stdbool.h>
#include <stdint.h>

#include "sndif/format.h"
#include "sndif/xen.h"

/* cffi: begin */
enum { XA_CAPS_RATES = 32 };

struct xa_caps {
    uint64_t formats;              /* bit XENSND_PCM_FORMAT_* of each that is allowed */
    uint32_t rates[XA_CAPS_RATES]; /* Hz, any order */
    uint32_t rate_count;
    uint32_t channels_min, channels_max; /* 0 channels are never allowed */
    uint32_t buffer_octets_max;          /* of the shared buffer; never more than XA_BUFFER_MOST */
    /* The least buffer that suits the route, microseconds: the answer to a query, no more. 0: any,
     * for what is taken is heard at once. */
    uint32_t buffer_us_suited;
};
/* cffi: end */

/* Periods shorter than this are refused: an event a period is work for dom0. Microseconds. */
#define XA_PERIOD_MIN_US 500u

/* A buffer and two periods of it are counted in 32 bits. Octets. */
#define XA_BUFFER_MOST (UINT32_C(1) << 30)

struct xa_pcm_params {
    const struct xa_format *format;
    uint32_t rate; /* Hz */
    uint32_t channels;
    uint32_t frame_octets;
    uint32_t buffer_octets;
    uint32_t period_octets; /* 0: no events are wanted */
};

/*
 * Narrows the ranges of a query to what is still possible: *ranges holds the guest's and gets the
 * answer. 0, or -XEN_EINVAL when nothing is left; *ranges is then unchanged.
 */
int xa_caps_narrow(const struct xa_caps *caps, struct xensnd_query_hw_param *ranges);

/*
 * Checks an OPEN request (a private copy). 0 with *params filled, or a status for the response:
 * -XEN_EINVAL, -XEN_EOPNOTSUPP for a format that is not PCM; *why then says what was wrong, in
 * words for a log, with the number in *value.
 */
int xa_caps_check_open(const struct xa_caps *caps, const struct xensnd_open_req *open,
                       struct xa_pcm_params *params, const char **why, uint32_t *value);

#endif
