/* SPDX-License-Identifier: GPL-2.0-or-later */
/* backends.c - What a tap can be made of, by name */

#include "link/backends.h"

#include <string.h>

#include "base/macros.h"

static const struct tap_ops *const backends[] = {
#define TAP_BACKEND(name) &tap_##name##_ops,
#include "link/backends.def"
#undef TAP_BACKEND
};

const struct tap_ops *tap_backend(const char *name)
{
	if (!name)
		return backends[0];
	for (unsigned i = 0; i < ARRAY_SIZE(backends); i++)
		if (!strcmp(backends[i]->name, name))
			return backends[i];
	return NULL;
}
