/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The one place that includes Xen's public sound protocol, <xen/io/sndif.h> (package libxen-dev).
 *
 * Xen's ring.h expects its user to have defined memory barriers before it is included. We use its
 * types only, never its macros (see shared.h for how shared words are accessed), so none is needed.
 */
#ifndef XA_SNDIF_XEN_H
#define XA_SNDIF_XEN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <xen/xen.h>
#include <xen/errno.h>
#include <xen/io/sndif.h>

#define XA_PAGE_SIZE 4096u /* XEN_PAGE_SIZE: the protocol's page, whatever the machine's is */

#endif
