/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Outputs and inputs by the kind of their route: see endpoint.h. */
#include "backend/endpoint.h"

#include <errno.h>

#ifdef XA_HAVE_PULSE
#include "backend/pulse_link.h"
#endif
#include "soundfile/soundfile.h"

int xa_output_open(const struct xa_route *route, const struct xa_pcm_params *params,
                   const struct xa_endpoint_wakes *wakes, struct xa_output **output)
{
    (void) wakes;
    switch (route->kind) {
    case XA_ROUTE_NULL:
        return xa_output_null_open(params, output);
    case XA_ROUTE_FILE:
        return xa_output_file_open(route, params, output);
    case XA_ROUTE_PULSE:
#ifdef XA_HAVE_PULSE
        return xa_output_pulse_open(route, params, wakes, output);
#else
        return -ENOTSUP;
#endif
    }
    return -EINVAL;
}

int xa_input_open(const struct xa_route *route, const struct xa_pcm_params *params,
                  const struct xa_endpoint_wakes *wakes, struct xa_input **input)
{
    (void) wakes;
    switch (route->kind) {
    case XA_ROUTE_NULL:
        return xa_input_null_open(params, input);
    case XA_ROUTE_FILE:
        return xa_input_file_open(route, params, input);
    case XA_ROUTE_PULSE:
#ifdef XA_HAVE_PULSE
        return xa_input_pulse_open(route, params, wakes, input);
#else
        return -ENOTSUP;
#endif
    }
    return -EINVAL;
}

bool xa_route_built(enum xa_route_kind kind)
{
#ifdef XA_HAVE_PULSE
    if (kind == XA_ROUTE_PULSE)
        return true;
#endif
    return kind == XA_ROUTE_NULL || kind == XA_ROUTE_FILE;
}

/* Leaves the formats that `holds` says yes to. */
static int keep_formats(struct xa_caps *caps, bool (*holds)(const struct xa_format *format))
{
    for (unsigned code = 0; code < 64; code++)
        if (caps->formats >> code & 1 && !holds(xa_format_by_code(code)))
            caps->formats &= ~(UINT64_C(1) << code);
    return caps->formats ? 0 : -ENOTSUP;
}

int xa_route_narrow(const struct xa_route *route, bool capture, struct xa_caps *caps)
{
    struct xa_soundfile_info info;
    bool allowed = false;
    int error;

    if (!xa_route_built(route->kind))
        return -ENOTSUP;
#ifdef XA_HAVE_PULSE
    if (route->kind == XA_ROUTE_PULSE) {
        caps->buffer_us_suited = capture ? 0 : XA_PULSE_BUFFER_US;
        return keep_formats(caps, xa_pulse_holds);
    }
#endif
    if (route->kind != XA_ROUTE_FILE)
        return 0;
    if (!capture)
        return keep_formats(caps, xa_soundfile_holds);
    error = xa_soundfile_probe(route->path, &info);
    if (error)
        return error;
    for (uint32_t i = 0; i < caps->rate_count; i++)
        allowed = allowed || caps->rates[i] == info.rate;
    if (!allowed || info.channels < caps->channels_min || info.channels > caps->channels_max)
        return -ENOTSUP;
    caps->rates[0] = info.rate;
    caps->rate_count = 1;
    caps->channels_min = caps->channels_max = info.channels;
    for (unsigned code = 0; code < 64; code++)
        if (caps->formats >> code & 1 && !xa_soundfile_reads_as(&info, xa_format_by_code(code)))
            caps->formats &= ~(UINT64_C(1) << code);
    return caps->formats ? 0 : -ENOTSUP;
}
