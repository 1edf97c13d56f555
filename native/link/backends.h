/* SPDX-License-Identifier: GPL-2.0-or-later */
/* backends.h - What a tap can be made of, by name
 *
 * Nobody outside link/ knows one backend from another, but for what a front-end
 * asks of rings (tap_vhost.h): whatever differs is a member of struct tap_ops.
 */
#ifndef PASSTPY_LINK_BACKENDS_H
#define PASSTPY_LINK_BACKENDS_H

#include "link/tap.h"

#define TAP_BACKEND(name) extern const struct tap_ops tap_##name##_ops;
#include "link/backends.def"
#undef TAP_BACKEND

/* tap_backend() - By its name; no name: the usual one. NULL: there is none */
const struct tap_ops *tap_backend(const char *name);

#endif /* PASSTPY_LINK_BACKENDS_H */
