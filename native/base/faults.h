/* SPDX-License-Identifier: GPL-2.0-or-later */
/* faults.h - Calls that fail on request, debug builds only
 *
 * Every sys_ call (sys.h) is a site, which the linker puts into a list. A site
 * is armed by a test, or by PASSTPY_FAULTS for a whole daemon:
 *
 *	site=17/24/0/1		site 17 fails with error 24 (EMFILE), after 0
 *				calls that may succeed, once
 *
 * Numbers stay the same as long as the module is not built again.
 */
#ifndef PASSTPY_BASE_FAULTS_H
#define PASSTPY_BASE_FAULTS_H

#ifdef PASSTPY_FAULTS

#include <stdbool.h>
#include <stdint.h>

#define FAULT_ERRORS 4

/** struct fault_site - One place where a call is made
 * @file:	Source, as the compiler names it
 * @line:	Line of it
 * @call:	Name of the function called
 * @errors:	What it may fail with; zeroes fill it up
 * @calls:	How often it was called, failures included
 * @failed:	How often it was made to fail
 * @error:	What it fails with, while @times is not zero
 * @after:	Calls that succeed before that
 * @times:	Calls that fail then
 */
struct fault_site {
	const char *file;
	int line;
	const char *call;
	int errors[FAULT_ERRORS];
	uint64_t calls;
	uint64_t failed;
	int error;
	uint32_t after;
	uint32_t times;
};

/* fault_due() - Shall this call fail? Then errno says why */
bool fault_due(struct fault_site *site);

/* fault_sites() - All of them; their number goes to @ret_n */
struct fault_site *const *fault_sites(unsigned *ret_n);

/* fault_arm() - Let a site fail; zero @times stops that. 0 or -EINVAL */
int fault_arm(uint64_t site, uint64_t error, uint64_t after, uint64_t times);

/* A pointer into a section of its own: the linker marks its ends. A sanitizer
 * puts nothing between variables whose section is named. */
#define FAULT_DUE(name, ...)                                            \
	__extension__({                                                 \
		static struct fault_site fault_here = {                 \
			.file = __FILE__,                               \
			.line = __LINE__,                               \
			.call = (name),                                 \
			.errors = __VA_ARGS__,                          \
		};                                                      \
		static struct fault_site *const fault_listed            \
			__attribute__((used, section("fault_sites"))) = \
				&fault_here;                            \
		fault_due(fault_listed);                                \
	})

#endif /* PASSTPY_FAULTS */

#endif /* PASSTPY_BASE_FAULTS_H */
