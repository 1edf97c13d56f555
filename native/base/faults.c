/* SPDX-License-Identifier: GPL-2.0-or-later */
/* faults.c - Which calls fail on request, debug builds only */

#include "base/faults.h"

#ifdef PASSTPY_FAULTS

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ERRNO_MAX 133

/* Made by the linker: ends of the section */
extern struct fault_site *const __start_fault_sites[];
extern struct fault_site *const __stop_fault_sites[];

struct fault_site *const *fault_sites(unsigned *ret_n)
{
	*ret_n = (unsigned)(__stop_fault_sites - __start_fault_sites);
	return __start_fault_sites;
}

int fault_arm(uint64_t site, uint64_t error, uint64_t after, uint64_t times)
{
	struct fault_site *const *sites;
	unsigned n;

	sites = fault_sites(&n);
	if (site >= n || error > ERRNO_MAX || after > UINT32_MAX ||
	    times > UINT32_MAX)
		return -EINVAL;
	sites[site]->error = (int)error;
	sites[site]->after = (uint32_t)after;
	sites[site]->times = (uint32_t)times;
	return 0;
}

/* from_environment() - Before anything else is called, so even the first call
 * of a daemon can fail. What is wrong is told at once: it is a test's. */
__attribute__((constructor)) static void from_environment(void)
{
	const char *text = getenv("PASSTPY_FAULTS");
	unsigned long long site, error, after, times;

	while (text && (text = strstr(text, "site="))) {
		if (sscanf(text, "site=%llu/%llu/%llu/%llu", &site, &error,
			   &after, &times) != 4 ||
		    fault_arm(site, error, after, times)) {
			(void)fprintf(stderr, "PASSTPY_FAULTS: %s\n", text);
			abort();
		}
		text += strlen("site=");
	}
}

bool fault_due(struct fault_site *site)
{
	/* A writer of captures has a thread of its own */
	__atomic_add_fetch(&site->calls, 1, __ATOMIC_RELAXED);
	if (!site->times)
		return false;
	if (site->after) {
		site->after--;
		return false;
	}
	site->times--;
	site->failed++;
	errno = site->error;
	return true;
}

#endif /* PASSTPY_FAULTS */
