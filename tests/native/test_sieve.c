/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The program that drops frames unread, run by the kernel on a socket */

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "link/sieve.h"
#include "test.h"

#define LEN 96

/* made() - A frame; fields that a case names, all else as in most */
static const uint8_t *made(unsigned type, unsigned proto)
{
	static uint8_t f[LEN];

	memset(f, 0, sizeof(f));
	f[12] = (uint8_t)(type >> 8);
	f[13] = (uint8_t)type;
	if (type == 0x0800) {
		f[14] = 0x45;
		f[23] = (uint8_t)proto;
	} else if (type == 0x86dd) {
		f[14] = 0x60;
		f[20] = (uint8_t)proto;
	}
	return f;
}

static uint8_t *with(const uint8_t *frame, unsigned at, unsigned value)
{
	uint8_t *f = (uint8_t *)(uintptr_t)frame;

	f[at] = (uint8_t)value;
	return f;
}

/* passes() - Does the kernel let a frame through while these are dropped? */
static bool passes(uint32_t kinds, const uint8_t *frame)
{
	struct sock_filter prog[SIEVE_PROG_MAX];
	struct sock_fprog fprog = { .filter = prog };
	char got[LEN];
	bool passed;
	int fd[2];

	fprog.len = (unsigned short)sieve_program(prog, kinds);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_DGRAM, 0, fd), 0);
	CHECK_EQ(setsockopt(fd[0], SOL_SOCKET, SO_ATTACH_FILTER, &fprog,
			    sizeof(fprog)),
		 0);
	CHECK(send(fd[1], frame, LEN, MSG_DONTWAIT) == LEN || errno == EPERM);
	passed = recv(fd[0], got, LEN, MSG_DONTWAIT) == LEN;
	close(fd[0]);
	close(fd[1]);
	return passed;
}

/* drops() - Is a frame dropped as one of this kind, and as no other? */
static bool drops(enum sieve_kind kind, const uint8_t *frame)
{
	uint32_t all = (1U << SIEVE_NUM) - 1;

	return !passes(1U << kind, frame) && !passes(all, frame) &&
	       passes(all & ~(1U << kind), frame) && passes(0, frame);
}

static void each_kind_is_dropped_as_such(void)
{
	CHECK(drops(SIEVE_SYN, with(made(0x0800, 6), 14 + 20 + 13, 0x02)));
	CHECK(drops(SIEVE_SYN, with(made(0x0800, 6), 14 + 20 + 13, 0xc2)));
	CHECK(drops(SIEVE_SYN,
		    with(with(made(0x0800, 6), 14, 0x4f), 14 + 60 + 13, 2)));
	CHECK(drops(SIEVE_SYN, with(made(0x86dd, 6), 14 + 40 + 13, 0x02)));
	CHECK(drops(SIEVE_ARP, made(0x0806, 0)));
	CHECK(drops(SIEVE_ND, with(made(0x86dd, 58), 54, 133)));
	CHECK(drops(SIEVE_ND, with(made(0x86dd, 58), 54, 137)));
	CHECK(drops(SIEVE_DHCP4, with(made(0x0800, 17), 14 + 20 + 3, 67)));
	CHECK(drops(SIEVE_DHCP6,
		    with(with(made(0x86dd, 17), 56, 547 >> 8), 57, 547 & 255)));
	CHECK(drops(SIEVE_MEMBERSHIP, made(0x0800, 2)));
	CHECK(drops(SIEVE_MEMBERSHIP, with(made(0x86dd, 0), 54, 58)));
}

static void what_open_flows_send_is_kept(void)
{
	uint32_t all = (1U << SIEVE_NUM) - 1;

	/* An acknowledgement, the answer to a SYN, an end, a reset */
	CHECK(passes(all, with(made(0x0800, 6), 14 + 20 + 13, 0x10)));
	CHECK(passes(all, with(made(0x0800, 6), 14 + 20 + 13, 0x12)));
	CHECK(passes(all, with(made(0x0800, 6), 14 + 20 + 13, 0x11)));
	CHECK(passes(all, with(made(0x0800, 6), 14 + 20 + 13, 0x04)));
	CHECK(passes(all, with(made(0x86dd, 6), 14 + 40 + 13, 0x12)));
	/* A later fragment, whose bytes are no header */
	CHECK(passes(all, with(with(made(0x0800, 6), 21, 1), 47, 2)));
	CHECK(passes(all, with(with(made(0x0800, 17), 21, 1), 37, 67)));
	/* Datagrams to other ports; pings, and errors */
	CHECK(passes(all, with(made(0x0800, 17), 14 + 20 + 3, 68)));
	CHECK(passes(all, with(made(0x86dd, 17), 57, 547 & 255)));
	CHECK(passes(all, made(0x0800, 1)));
	CHECK(passes(all, with(made(0x86dd, 58), 54, 128)));
	CHECK(passes(all, with(made(0x86dd, 58), 54, 132)));
	CHECK(passes(all, with(made(0x86dd, 58), 54, 138)));
	CHECK(passes(all, made(0x88cc, 0)));
}

int main(void)
{
	RUN(each_kind_is_dropped_as_such);
	RUN(what_open_flows_send_is_kept);
	return 0;
}
