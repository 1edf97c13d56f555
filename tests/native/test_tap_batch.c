/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Payload that a tap copies, payload that is lent to it, and what breaks it */

#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/poison.h"
#include "link/backends.h"
#include "test.h"

static struct tap tap;
static struct counters cnt;
static int guest_fd;

static void setup(void)
{
	int fd[2];

	memset(&tap, 0, sizeof(tap));
	tap.fd = tap.pcap.fd = -1;
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, fd));
	guest_fd = fd[1];
	CHECK_EQ(tap_init(&tap, &tap_stream_ops,
			  &(struct tap_env){ .cnt = &cnt }),
		 0);
	CHECK_EQ(tap_attach(&tap, fd[0]), 0);
	tap.mtu = 65520;
}

static void teardown(void)
{
	tap_free(&tap);
	close(guest_fd);
}

/* take() - The next frame, of which the guest knows the length */
static void take(uint8_t *frame, uint32_t len)
{
	uint8_t prefix[4];

	CHECK_EQ(recv(guest_fd, prefix, 4, MSG_DONTWAIT), 4);
	CHECK_EQ((uint32_t)prefix[2] << 8 | prefix[3], len);
	CHECK_EQ(recv(guest_fd, frame, len, MSG_DONTWAIT), len);
}

static void a_copy_is_made_at_once(void)
{
	struct frame_out f = { .hdr_len = ETH_HLEN_ };
	uint8_t bytes[TAP_COPY_MAX], frame[ETH_HLEN_ + sizeof(bytes)];

	setup();
	/* Many more than have room until a flush */
	for (unsigned i = 0; i < 100; i++) {
		memset(bytes, (int)i, sizeof(bytes));
		CHECK_EQ(tap_send(&tap, &f, bytes, sizeof(bytes)), 0);
	}
	memset(bytes, 0xff, sizeof(bytes));
	tap_flush(&tap);
	for (unsigned i = 0; i < 100; i++) {
		take(frame, sizeof(frame));
		for (unsigned k = ETH_HLEN_; k < sizeof(frame); k++)
			CHECK_EQ(frame[k], i);
	}
	teardown();
}

static void a_frame_needs_no_payload(void)
{
	struct frame_out f = { .hdr_len = 60, .hdr = { 7 } };
	uint8_t frame[60];

	setup();
	CHECK_EQ(tap_send(&tap, &f, NULL, 0), 0);
	tap_flush(&tap);
	take(frame, sizeof(frame));
	CHECK_EQ(frame[0], 7);
	teardown();
}

static void a_batch_goes_with_its_scope_and_in_order(void)
{
	static uint8_t big[30000], frame[ETH_HLEN_ + sizeof(big)];
	struct iovec iov = { big, sizeof(big) };
	struct frame_out f = { .hdr_len = ETH_HLEN_ };
	uint8_t small[100] = { 1 };

	setup();
	big[0] = 2;
	CHECK_EQ(tap_send(&tap, &f, small, sizeof(small)), 0);
	{
		TAP_BATCH_SCOPE(batch, &tap);

		CHECK_EQ(tap_batch_send(&batch, &f, &iov, 1, sizeof(big)), 0);
		small[0] = 3;
		CHECK_EQ(tap_send(&tap, &f, small, sizeof(small)), 0);
	}
	small[0] = big[0] = 4;
	take(frame, ETH_HLEN_ + sizeof(small));
	CHECK_EQ(frame[ETH_HLEN_], 1);
	take(frame, ETH_HLEN_ + sizeof(big));
	CHECK_EQ(frame[ETH_HLEN_], 2);
	take(frame, ETH_HLEN_ + sizeof(small));
	CHECK_EQ(frame[ETH_HLEN_], 3);
	teardown();
}

/* dies() - Does a mistake end the process? What it says goes to nowhere */
static bool dies(void (*mistake)(void))
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid) {
		close(STDERR_FILENO);
		mistake();
		_exit(0);
	}
	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
	return !WIFEXITED(status) || WEXITSTATUS(status);
}

static uint8_t lent[100];

static void lend(struct tap_batch *b)
{
	struct iovec iov = { lent, sizeof(lent) };
	struct frame_out f = { .hdr_len = ETH_HLEN_ };

	CHECK_EQ(tap_batch_send(b, &f, &iov, 1, sizeof(lent)), 0);
}

static void lend_and_keep(void)
{
	TAP_BATCH_SCOPE(batch, &tap);

	lend(&batch);
}

static void change_what_is_lent(void)
{
	TAP_BATCH_SCOPE(batch, &tap);

	lend(&batch);
	lent[99]++;
}

static void read_in_a_batch(void)
{
	TAP_BATCH_SCOPE(batch, &tap);

	lend(&batch);
	(void)tap_read(&tap);
}

static void flush_in_a_batch(void)
{
	TAP_BATCH_SCOPE(batch, &tap);

	tap_flush(&tap);
}

static void copy_too_much(void)
{
	struct frame_out f = { .hdr_len = ETH_HLEN_ };
	static uint8_t much[TAP_COPY_MAX + 1];

	(void)tap_send(&tap, &f, much, sizeof(much));
}

/* Not inlined: its frame is to end */
static __attribute__((noinline)) void lend_own(struct tap_batch *b)
{
	struct frame_out f = { .hdr_len = ETH_HLEN_ };
	uint8_t own[100] = { 1 };
	struct iovec iov = { own, sizeof(own) };

	(void)tap_batch_send(b, &f, &iov, 1, sizeof(own));
}

static void lend_what_ends_with_a_call(void)
{
	TAP_BATCH_SCOPE(batch, &tap);

	lend_own(&batch);
}

static void misuse_is_deadly(void)
{
	setup();
#if POISON_WORKS
	CHECK(dies(lend_what_ends_with_a_call));
#else
	(void)lend_what_ends_with_a_call;
#endif
	CHECK(!dies(lend_and_keep));
#ifdef PASSTPY_DEBUG
	CHECK(dies(change_what_is_lent));
#else
	(void)change_what_is_lent;
#endif
	CHECK(dies(read_in_a_batch));
	CHECK(dies(flush_in_a_batch));
	CHECK(dies(copy_too_much));
	teardown();
}

int main(void)
{
	RUN(a_copy_is_made_at_once);
	RUN(a_frame_needs_no_payload);
	RUN(a_batch_goes_with_its_scope_and_in_order);
	RUN(misuse_is_deadly);
	return 0;
}
