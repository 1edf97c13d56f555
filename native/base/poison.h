/* SPDX-License-Identifier: GPL-2.0-or-later */
/* poison.h - Memory that nobody may touch now, where AddressSanitizer is built in
 *
 * Buffers that are handed out again and again are never freed, so that nothing
 * would find a use after they were given back.
 */
#ifndef PASSTPY_BASE_POISON_H
#define PASSTPY_BASE_POISON_H

#include <stddef.h>

/* gcc has a macro for it, clang a question */
#if defined(__SANITIZE_ADDRESS__)
#define POISON_WORKS 1
#elif defined(__has_feature)
#define POISON_WORKS __has_feature(address_sanitizer)
#else
#define POISON_WORKS 0
#endif

#if POISON_WORKS

#include <sanitizer/asan_interface.h>

static inline void poison(const void *p, size_t len)
{
	__asan_poison_memory_region(p, len);
}

static inline void unpoison(const void *p, size_t len)
{
	__asan_unpoison_memory_region(p, len);
}

#else

static inline void poison(const void *p, size_t len)
{
	(void)p;
	(void)len;
}

static inline void unpoison(const void *p, size_t len)
{
	(void)p;
	(void)len;
}

#endif

#endif /* PASSTPY_BASE_POISON_H */
