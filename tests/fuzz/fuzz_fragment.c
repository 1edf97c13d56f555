/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Packets cut into fragments, which are lost, spoiled, shuffled and put together
 *
 * What one half of us cuts up goes to the other half, in any order and more than
 * once: a datagram that comes out must be the one that went in, unless somebody
 * has touched a fragment of it. Each fragment is checked, and so is what the
 * guest is told of datagrams that were given up.
 */

#include "base/macros.h"
#include "drive.h"
#include "guest.h"
#include "link/fragment.h"
#include "link/frame.h"
#include "link/reassembly.h"

#define DATAGRAMS 8	/* of which fragments are known */
#define PIECES	  256	/* fragments that are on their way */
#define LEN_MAX	  20000 /* bytes of one datagram's payload */
#define PIECE_MAX (ETH_HLEN_ + 9016)

/** struct piece - A fragment on its way; no bytes: there is none
 * @whose:	Datagram
 * @id:		Of that datagram at the time
 */
struct piece {
	uint8_t data[PIECE_MAX];
	uint32_t len;
	unsigned whose;
	uint32_t id;
};

/** struct whole - A datagram as it was before it was cut
 * @l4:		L4 header and payload
 * @len:	Bytes of it
 * @id:		Identification; 0: there is none
 * @spoiled:	Something was changed on the way
 */
struct whole {
	uint8_t l4[8 + LEN_MAX];
	uint32_t len;
	uint32_t id;
	bool spoiled;
};

static struct reassembly r;
static struct counters cnt;
static struct tap tap;
static int guest_fd;
static uint64_t now;
static uint32_t last_id;
static uint64_t made;
static struct whole wholes[DATAGRAMS];
static struct piece pieces[PIECES];
static uint8_t payload[LEN_MAX];

/* hear() - What the guest is told */
static void hear(void)
{
	static uint8_t in[GUEST_FRAME];
	struct vnet_hdr vh;
	struct iovec iov[2] = { { &vh, sizeof(vh) }, { in, sizeof(in) } };
	ssize_t n;

	while ((n = readv(guest_fd, iov, 2)) > 0)
		oracle_frame(&vh, in, (size_t)n - sizeof(vh));
}

/* keep() - Let a fragment be on its way; fragment_emit_fn */
static int keep(void *arg, struct frame_out *f, const struct iovec *part,
		unsigned n, uint32_t len)
{
	struct piece *p = &pieces[below(PIECES)];
	const struct whole *w = arg;

	CHECK(f->hdr_len + len <= PIECE_MAX);
	memcpy(p->data, f->hdr, f->hdr_len);
	p->len = f->hdr_len;
	p->whose = (unsigned)(w - wholes);
	p->id = w->id;
	for (unsigned i = 0; i < n; i++) {
		memcpy(p->data + p->len, part[i].iov_base, part[i].iov_len);
		p->len += (uint32_t)part[i].iov_len;
	}
	CHECK_EQ(p->len, f->hdr_len + len);
	oracle_frame(&f->vh, p->data, p->len);
	return one_in(200) ? -EAGAIN : 0;
}

/* cut() - A new datagram, in pieces */
static void cut(void)
{
	static const uint32_t mtus[] = { 68, 576, 1280, 1500, 9000 };
	struct whole *w = &wholes[below(DATAGRAMS)];
	uint32_t mtu = mtus[below(5)] + below(16);
	uint32_t len = below(MIN(12 * mtu, (uint32_t)LEN_MAX)),
		 split = below(len + 1);
	struct iovec part[2] = { { payload, split },
				 { payload + split, len - split } };
	bool v6 = one_in(2);
	union inany src, dst;
	struct frame_out f;
	struct udp_hdr *uh;

	inet_pton(AF_INET6, v6 ? "2001:db8::5" : "::ffff:192.0.2.5", &src);
	inet_pton(AF_INET6, v6 ? "2001:db8:1::1" : "::ffff:198.51.100.1", &dst);
	uh = (struct udp_hdr *)(void *)frame_ip(
		&f, &tap, &src, &dst, IPPROTO_UDP, sizeof(*uh), len, 0);
	*uh = (struct udp_hdr){ .source = htons(40000),
				.dest = htons(53),
				.len = htons((uint16_t)(sizeof(*uh) + len)) };
	frame_csum_offload(&f, &src, &dst, IPPROTO_UDP, sizeof(*uh), len, 6);
	w->len = (uint32_t)sizeof(*uh) + len;
	w->id = ++last_id;
	w->spoiled = false;
	memcpy(w->l4 + sizeof(*uh), payload, len);
	(void)fragment_emit(&f, part, 2, len, mtu, w->id, keep, w);
}

/* spoil() - Change a fragment */
static void spoil(struct piece *p)
{
	wholes[p->whose].spoiled = true;
	for (uint32_t n = 1 + below(3); n; n--)
		p->data[ETH_HLEN_ + below(p->len - ETH_HLEN_)] =
			(uint8_t)below(256);
	if (one_in(4))
		p->len = ETH_HLEN_ + below(p->len - ETH_HLEN_);
	guest_mend_ip(p->data, p->len);
}

static void check_whole(const struct piece *p, const uint8_t *eth, uint32_t len)
{
	uint32_t l3 = ETH_HLEN_ + (eth[12] == 0x08 ? 20 : 40);
	const struct whole *w = &wholes[p->whose];
	const struct vnet_hdr vh = { 0 };

	made++;
	/* A fragment may have come from an old datagram of that number */
	if (p->id != w->id || w->spoiled)
		return;
	oracle_frame(&vh, eth, len);
	CHECK_EQ(len - l3, w->len);
	CHECK(!memcmp(eth + l3 + 8, w->l4 + 8, w->len - 8));
}

/* deliver() - Any fragment, once or again */
static void deliver(void)
{
	struct piece *p = &pieces[below(PIECES)];
	struct frame f;
	uint8_t *eth, *data;
	uint32_t len;

	for (unsigned i = 0; !p->len && i < PIECES; i++)
		p = pieces + (p - pieces + 1) % PIECES;
	if (!p->len)
		return;
	if (one_in(16))
		spoil(p);
	data = malloc(p->len); /* whoever reads past its end is found */
	CHECK(data);
	memcpy(data, p->data, p->len);
	if (flow_extract(&f, data, p->len, NULL, &cnt) == EXTRACT_FRAGMENT &&
	    reassembly_add(&r, &tap, &f, now, &eth, &len))
		check_whole(p, eth, len);
	if (!one_in(8))
		p->len = 0;
	tap_flush(&tap);
	free(data);
}

static void begin(void)
{
	const struct tap_env env = { .cnt = &cnt };
	int fd[2];

	memset(&cnt, 0, sizeof(cnt));
	memset(&tap, 0, sizeof(tap));
	for (unsigned i = 0; i < PIECES; i++)
		pieces[i].len = 0;
	for (unsigned i = 0; i < DATAGRAMS; i++)
		wholes[i].id = 0;
	for (unsigned i = 0; i < LEN_MAX; i++)
		payload[i] = (uint8_t)(i * 7 + i / 251);
	guest_socketpair(fd);
	guest_fd = fd[0];
	CHECK_EQ(tap_init(&tap, &tap_tun_ops, &env), 0);
	CHECK_EQ(tap_attach(&tap, fd[1]), 0);
	tap.mtu = 65520;
	CHECK_EQ(reassembly_init(&r), 0);
	now = 1;
	last_id = 0;
}

static void step(void)
{
	switch (below(8)) {
	case 0:
		cut();
		break;
	case 1:
		reassembly_release(&r);
		break;
	case 2:
		now += below(1000) * NSEC_PER_MSEC;
		if (one_in(16))
			now += REASSEMBLY_TIME;
		reassembly_expire(&r, &tap, now);
		tap_flush(&tap);
		break;
	case 3:
		hear();
		break;
	default:
		for (uint32_t n = 1 + below(32); n; n--)
			deliver();
	}
}

static void end(void)
{
	CHECK(!drive_long || made > 1000);
	reassembly_release(&r);
	now += REASSEMBLY_TIME + 1;
	reassembly_expire(&r, &tap, now);
	tap_flush(&tap);
	hear();
	CHECK_EQ(r.bufs.used, 0);
	reassembly_free(&r);
	tap_free(&tap);
	close(guest_fd);
}

static const struct target target = { begin, step, end, 1 };

FUZZ(target)
