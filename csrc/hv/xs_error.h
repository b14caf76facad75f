/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Errors on the wire: XenStore, and the stand-in beside it, name them by strings ("ENOENT").
 */
#ifndef XA_HV_XS_ERROR_H
#define XA_HV_XS_ERROR_H

/* <xen/io/xs_wire.h> has its table of names only where errno's constants are known. */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <xen/io/xs_wire.h>

/* The negative errno value called `name`. -EIO for a name that xs_wire does not have: the request
 * failed, whatever the reason. */
static inline int xa_xs_error(const char *name)
{
    for (size_t i = 0; i < sizeof(xsd_errors) / sizeof(xsd_errors[0]); i++)
        if (strcmp(xsd_errors[i].errstring, name) == 0)
            return -xsd_errors[i].errnum;
    return -EIO;
}

#endif
