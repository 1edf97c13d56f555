/* SPDX-License-Identifier: GPL-2.0-or-later */
/* lower.h - A lower-case copy of a string literal, made by the compiler
 *
 * The .def files give names in upper case, as enums need them; Python shows
 * them in lower case. A table filled at run time would be a global that
 * changes, writing each name twice would let the two drift apart.
 */
#ifndef PASSTPY_BASE_LOWER_H
#define PASSTPY_BASE_LOWER_H

#define LOWER_MAX 24 /* longest name and its final zero, bytes */

#define LOWER_AT_(s, i) ((s)[(i) < sizeof(s) ? (i) : sizeof(s) - 1])
#define LOWER_CHAR_(s, i)                                   \
	(LOWER_AT_(s, i) >= 'A' && LOWER_AT_(s, i) <= 'Z' ? \
		 LOWER_AT_(s, i) + ('a' - 'A') :            \
		 LOWER_AT_(s, i))
#define LOWER_4_(s, i)                                                       \
	LOWER_CHAR_(s, i), LOWER_CHAR_(s, (i) + 1), LOWER_CHAR_(s, (i) + 2), \
		LOWER_CHAR_(s, (i) + 3)

/* LOWER() - Initialiser for a const char[LOWER_MAX] */
#define LOWER(s)                                                          \
	{                                                                 \
		LOWER_4_(s, 0), LOWER_4_(s, 4), LOWER_4_(s, 8),           \
			LOWER_4_(s, 12), LOWER_4_(s, 16), LOWER_4_(s, 20) \
	}

#endif /* PASSTPY_BASE_LOWER_H */
