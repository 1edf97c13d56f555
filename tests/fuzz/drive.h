/* SPDX-License-Identifier: GPL-2.0-or-later */
/* drive.h - What runs a target of fuzzing: random choices, or libFuzzer's
 *
 * A target makes a world, lets it take steps, and ends it; all that happens there
 * follows from choices (below(), one_in()), and from nothing else. Built with
 * FUZZ_GUIDED the choices are the bytes of an input, a world lives for as long
 * as they last, and libFuzzer looks for inputs that reach code which none has
 * reached. Else they are random, one world takes all the steps, and the program
 * is
 *
 *   fuzz_NAME [ITERATIONS [SEED]]
 *
 * The first reaches into corners, the second lets a world grow old.
 */
#ifndef PASSTPY_TESTS_DRIVE_H
#define PASSTPY_TESTS_DRIVE_H

#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "test.h"

#define TURN_SECONDS 30 /* real time that no step may take */

static struct test_random rnd = { 1 };

/* drive_long: random, and long enough that all must have happened by now */
static bool drive_long;

static inline uint32_t below(uint32_t n)
{
	return test_below(&rnd, n);
}

/* one_in() - A chance; none where the choices are over, so that loops end */
static inline bool one_in(uint32_t n)
{
	if (test_tape.at && test_tape.at == test_tape.end)
		return false;
	return !below(n);
}

/* any_bytes() - Bytes of any value */
static inline void any_bytes(uint8_t *p, size_t len)
{
	while (len--)
		*p++ = (uint8_t)below(256);
}

/** struct target - Something to fuzz
 * @begin:	Make a world
 * @step:	Do something in it; bounded
 * @end:	Look whether the world is still in order, and end it
 * @cost:	Iterations that one step counts for when choices are random
 */
struct target {
	void (*begin)(void);
	void (*step)(void);
	void (*end)(void);
	unsigned cost;
};

static inline void drive_sysctl(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	(void)!write(fd, value, strlen(value));
	close(fd);
}

/* drive_network() - A network of our own where we may have one: nobody else's
 * traffic, ports without end, and sockets for pings */
static inline void drive_network(void)
{
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd;

	if (unshare(CLONE_NEWNET) && unshare(CLONE_NEWUSER | CLONE_NEWNET))
		return;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	CHECK(fd >= 0);
	CHECK_EQ(ioctl(fd, SIOCSIFFLAGS, &lo), 0);
	close(fd);
	drive_sysctl("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
	drive_sysctl("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535");
	/* Else each step that refuses something waits for the next token */
	drive_sysctl("/proc/sys/net/ipv4/icmp_ratelimit", "0");
	drive_sysctl("/proc/sys/net/ipv4/icmp_msgs_per_sec", "1000000");
	drive_sysctl("/proc/sys/net/ipv6/icmp/ratelimit", "0");
}

static inline void drive_setup(void)
{
	struct rlimit limit;

	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = limit.rlim_max;
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
	drive_network();
}

/* drive_world() - A world from its beginning to its end, which leaves nothing */
static inline void drive_world(const struct target *t, uint64_t steps)
{
	unsigned fds = count_fds();

	t->begin();
	while (test_tape.at ? test_tape.at < test_tape.end : steps--) {
		if (!test_tape.at) /* libFuzzer has its own (-timeout) */
			alarm(TURN_SECONDS);
		t->step();
	}
	t->end();
	CHECK_EQ(count_fds(), fds);
}

#ifdef FUZZ_GUIDED

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ(target)                                                 \
	int LLVMFuzzerInitialize(int *argc, char ***argv)            \
	{                                                            \
		(void)argc;                                          \
		(void)argv;                                          \
		drive_setup();                                       \
		return 0;                                            \
	}                                                            \
	int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) \
	{                                                            \
		test_tape.at = data;                                 \
		test_tape.end = data + size;                         \
		if (size)                                            \
			drive_world(&(target), 0);                   \
		return 0;                                            \
	}

#else

#define FUZZ(target)                                                        \
	int main(int argc, char *argv[])                                    \
	{                                                                   \
		uint64_t n = argc > 1 ? strtoull(argv[1], NULL, 0) : 20000; \
		uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;  \
                                                                            \
		rnd.state = seed * 0x9e3779b97f4a7c15ULL | 1;               \
		drive_long = n >= 20000;                                    \
		drive_setup();                                              \
		drive_world(&(target), n / (target).cost);                  \
		return 0;                                                   \
	}

#endif

#endif /* PASSTPY_TESTS_DRIVE_H */
