/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Outputs and inputs by the kind of their route: see endpoint.h. */
#include "backend/endpoint.h"

#include <errno.h>

#include "soundfile/soundfile.h"

int xa_output_open(const struct xa_route *route, const struct xa_pcm_params *params,
                   struct xa_output **output)
{
    switch (route->kind) {
    case XA_ROUTE_NULL:
        return xa_output_null_open(params, output);
    case XA_ROUTE_FILE:
        return xa_output_file_open(route, params, output);
    }
    return -EINVAL;
}

int xa_input_open(const struct xa_route *route, const struct xa_pcm_params *params,
                  struct xa_input **input)
{
    switch (route->kind) {
    case XA_ROUTE_NULL:
        return xa_input_null_open(params, input);
    case XA_ROUTE_FILE:
        return xa_input_file_open(route, params, input);
    }
    return -EINVAL;
}

int xa_route_narrow(const struct xa_route *route, bool capture, struct xa_caps *caps)
{
    struct xa_soundfile_info info;
    bool allowed = false;
    int error;

    if (route->kind != XA_ROUTE_FILE)
        return 0;
    if (!capture) {
        for (unsigned code = 0; code < 64; code++)
            if (caps->formats >> code & 1 && !xa_soundfile_holds(xa_format_by_code(code)))
                caps->formats &= ~(UINT64_C(1) << code);
        return caps->formats ? 0 : -ENOTSUP;
    }
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
