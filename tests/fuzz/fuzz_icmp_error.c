/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ICMP errors for the guest: quotes of packets of any kind, and those that come
 * from outside about what its flows have sent
 *
 * oracle.h looks at each: checksums, lengths, and whose packet it quotes.
 */

#include "control.h"
#include "peers.h"
#include "proto/icmp_error.h"
#include "say.h"

static uint8_t l4[65536];

static union inany any_address(bool v6)
{
	union inany a;

	if (v6) {
		inet_pton(AF_INET6, one_in(8) ? "ff02::fb" : "2001:db8::5", &a);
		a.a6.s6_addr[15] = (uint8_t)below(256);
	} else {
		inany_from_v4(&a,
			      (struct in_addr){ htonl(
				      (one_in(8) ? 0xe0000000 : 0xc0000200) |
				      below(256)) });
	}
	return a;
}

/* quote() - Tell the guest of a packet that it may or may not have sent */
static void quote(void)
{
	static const uint8_t protos[] = { IPPROTO_TCP, IPPROTO_UDP,
					  IPPROTO_ICMP, IPPROTO_ICMPV6, 132 };
	bool v6 = one_in(2);
	struct flowside key = { .eaddr = any_address(v6),
				.oaddr = any_address(v6),
				.eport = (uint16_t)below(65536),
				.oport = (uint16_t)below(65536) };
	union inany reporter = any_address(v6);
	uint32_t len = below(one_in(4) ? 65528 : 1300);
	uint8_t type = v6 ? (uint8_t)(1 + below(4)) :
			    (uint8_t)(one_in(2) ? 3 : 11 + below(2));

	any_bytes(l4, MIN(len, 16U));
	(void)icmp_error_quote(ctx_of(), one_in(2) ? NULL : &reporter, &key,
			       protos[below(ARRAY_SIZE(protos))], type,
			       (uint8_t)below(256), (uint32_t)below(65536), l4,
			       len, len + below(65528 - len));
	tap_flush(&ctx_of()->tap);
}

/* say_good() - What opens flows, or goes on in them */
static void say_good(void)
{
	struct vnet_hdr vh = guest_no_csum();
	size_t len;

	if (one_in(3))
		len = make_icmp();
	else if (one_in(3))
		len = make_tcp(&world.conn[below(2)]);
	else
		len = make_udp();
	(void)guest_send(&world.g, &vh, frame, len);
}

static void begin(void)
{
	world_begin("tun");
}

static void step(void)
{
	switch (below(8)) {
	case 0:
		quote();
		break;
	case 1:
	case 2:
		forge_error();
		break;
	case 3:
		world.g.now += below(40) * NSEC_PER_SEC;
		break;
	case 4:
		play_echo();
		break;
	default:
		say_good();
	}
	CHECK_EQ(guest_turn(&world.g), 0);
	answer_misses();
	CHECK_EQ(guest_turn(&world.g), 0);
	hear();
}

static void end(void)
{
	CHECK(!drive_long || guest_counter(&world.g, CNT_ICMP_ERRORS_TO_TAP));
	close_peers();
	world_end();
}

static const struct target target = { begin, step, end, 1 };

FUZZ(target)
