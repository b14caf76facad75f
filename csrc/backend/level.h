/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Peak levels of samples in the wire's formats, for meters. */
#ifndef XA_BACKEND_LEVEL_H
#define XA_BACKEND_LEVEL_H

#include <stdint.h>

#include "sndif/format.h"

/*
 * The largest absolute value among `count` samples, 0.0 to 1.0 (full scale). Formats other than
 * little-endian integers of 16, 24 or 32 bits, U8 and little-endian float give 0.
 */
float xa_level_peak(const struct xa_format *format, const void *samples, uint32_t count);

#endif
