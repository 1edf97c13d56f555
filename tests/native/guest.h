/* SPDX-License-Identifier: GPL-2.0-or-later */
/* guest.h - A guest on a socketpair: a datapath, and frames by hand
 *
 * The C twin of tests/datapath/guest.py, for what Python is too slow for.
 * Time is virtual. Frames carry a virtio-net header that says "checksum not
 * needed", so that builders need not compute one.
 */
#ifndef PASSTPY_TESTS_GUEST_H
#define PASSTPY_TESTS_GUEST_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/checksum.h"
#include "base/wire.h"
#include "core/datapath.h"
#include "guest_rings.h"
#include "link/backends.h"
#include "oracle.h"
#include "test.h"

#define GUEST_START (1000 * NSEC_PER_SEC)
#define GUEST_FRAME (TAP_FRAME_MAX + 64)

/** struct guest - The guest's end, and the datapath at the other
 * @fd:		Our end of the tap
 * @dp:		Datapath
 * @now:	Virtual time, ns
 * @stream:	The tap is a stream: a length before each frame, no other header
 * @rings:	The tap is rings, in this memory; else NULL
 * @out:	On a stream: bytes of a frame that did not go out yet
 * @out_len:	Their number
 * @in:		On a stream: bytes received and not taken yet
 * @in_len:	Their number
 */
struct guest {
	int fd;
	struct datapath *dp;
	uint64_t now;
	bool stream;
	struct guest_rings *rings;
	uint8_t out[4 + GUEST_FRAME];
	size_t out_len;
	uint8_t in[1 << 20];
	size_t in_len;
};

static const uint8_t guest_mac_[] = { 0x52, 0x54, 0, 0x12, 0x34, 0x56 };
static const uint8_t guest_our_mac_[] = { 0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55 };

static inline struct datapath_config guest_config(int tap_fd)
{
	struct datapath_config config = {
		.backend = tap_backend("tun"),
		.tap_fd = tap_fd,
		.vnet = true,
		.offloads = TAP_OFFLOAD_CSUM | TAP_OFFLOAD_TSO4 |
			    TAP_OFFLOAD_TSO6 | TAP_OFFLOAD_USO4 |
			    TAP_OFFLOAD_USO6,
		.mtu = 65520,
		.queue_frames = 500,
		.max_flows = 2048,
		.virtual_time = true,
		.secret = "0123456789abcdef0123456789abcde",
	};

	memcpy(config.our_mac, guest_our_mac_, ETH_ALEN_);
	return config;
}

static inline void guest_socketpair(int fd[2])
{
	int size = 4 << 20;

	CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, fd), 0);
	for (int i = 0; i < 2; i++)
		CHECK_EQ(setsockopt(fd[i], SOL_SOCKET, SO_SNDBUF, &size,
				    sizeof(size)),
			 0);
}

static inline void guest_setup(struct guest *g)
{
	struct datapath_config config;
	int fd[2];

	guest_socketpair(fd);
	config = guest_config(fd[1]);
	g->fd = fd[0];
	g->now = GUEST_START;
	CHECK_EQ(datapath_create(&g->dp, &config), 0);
}

/* guest_come() - A machine connects: by a stream socket, or starts its rings
 * @features: VHOST_F_* of rings */
static inline void guest_come(struct guest *g, uint64_t features)
{
	int fd[2], size = 4 << 20;

	if (g->rings) {
		rings_start(g->rings, g->dp, features);
		return;
	}
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
	CHECK_EQ(setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)),
		 0);
	g->fd = fd[0];
	g->out_len = g->in_len = 0;
	CHECK_EQ(datapath_attach(g->dp, fd[1]), 0);
}

/* guest_leave() - A machine is gone; the datapath waits for the next */
static inline void guest_leave(struct guest *g)
{
	datapath_detach(g->dp);
	if (g->fd >= 0)
		close(g->fd);
	g->fd = -1;
}

static inline void guest_create_machine(struct guest *g, const char *backend,
					uint32_t mtu)
{
	struct datapath_config config = guest_config(-1);

	config.backend = tap_backend(backend);
	config.vnet = false;
	config.offloads = 0;
	config.mtu = mtu;
	g->fd = -1;
	g->now = GUEST_START;
	CHECK_EQ(datapath_create(&g->dp, &config), 0);
}

/* guest_setup_stream() - A machine on a stream socket */
static inline void guest_setup_stream(struct guest *g)
{
	g->stream = true;
	guest_create_machine(g, "stream", 1500);
	guest_come(g, 0);
}

/* guest_setup_rings() - A machine on rings; @rings is the caller's to set up */
static inline void guest_setup_rings(struct guest *g, struct guest_rings *rings,
				     uint64_t features)
{
	g->rings = rings;
	guest_create_machine(g, "vhost", 65520);
	guest_come(g, features);
}

static inline void guest_teardown(struct guest *g)
{
	datapath_destroy(g->dp);
	if (g->fd >= 0)
		close(g->fd);
}

static inline int guest_turn(struct guest *g)
{
	struct turn_limits limits = { .now = g->now,
				      .slice = 10 * NSEC_PER_MSEC };

	return datapath_turn(g->dp, &limits);
}

/* guest_push() - Write what is left of a frame; true if it all went */
static inline bool guest_push(struct guest *g)
{
	ssize_t n = send(g->fd, g->out, g->out_len, MSG_NOSIGNAL);

	if (n > 0) {
		g->out_len -= (size_t)n;
		memmove(g->out, g->out + n, g->out_len);
	}
	return !g->out_len;
}

/* guest_send() - Put a frame on the tap; false when it is full */
static inline bool guest_send(struct guest *g, const struct vnet_hdr *vh,
			      const uint8_t *frame, size_t len)
{
	struct iovec iov[2] = { { (void *)vh, sizeof(*vh) },
				{ (void *)frame, len } };
	uint32_t prefix = htonl((uint32_t)len);

	if (g->rings)
		return rings_send(g->rings, g->dp, vh, frame, len);
	if (!g->stream)
		return writev(g->fd, iov, 2) >= 0;
	if (g->out_len && !guest_push(g))
		return false;
	memcpy(g->out, &prefix, sizeof(prefix));
	memcpy(g->out + sizeof(prefix), frame, len);
	g->out_len = sizeof(prefix) + len;
	(void)guest_push(g);
	return true;
}

/* guest_take() - The next frame of a stream */
static inline ssize_t guest_take(struct guest *g, uint8_t *frame, size_t size)
{
	uint32_t len;
	ssize_t n;

	n = recv(g->fd, g->in + g->in_len, sizeof(g->in) - g->in_len, 0);
	if (n > 0)
		g->in_len += (size_t)n;
	if (g->in_len < sizeof(len))
		return -1;
	memcpy(&len, g->in, sizeof(len));
	len = ntohl(len);
	CHECK(len >= 60 && len <= size);
	if (g->in_len < sizeof(len) + len)
		return -1;
	memcpy(frame, g->in + sizeof(len), len);
	g->in_len -= sizeof(len) + len;
	memmove(g->in, g->in + sizeof(len) + len, g->in_len);
	return (ssize_t)len;
}

/* guest_recv() - Take a frame off the tap; its length, or -1 */
static inline ssize_t guest_recv(struct guest *g, struct vnet_hdr *vh,
				 uint8_t *frame, size_t size)
{
	struct iovec iov[2] = { { vh, sizeof(*vh) }, { frame, size } };
	ssize_t n;

	if (g->rings) {
		n = rings_recv(g->rings, g->dp, vh, frame, size);
	} else if (g->stream) {
		*vh = (struct vnet_hdr){ 0 };
		n = guest_take(g, frame, size);
	} else {
		n = readv(g->fd, iov, 2);
		CHECK(n < 0 || (size_t)n >= sizeof(*vh) + ETH_HLEN_);
		n -= n < 0 ? 0 : (ssize_t)sizeof(*vh);
	}
	if (n >= 0)
		oracle_frame(vh, frame, (size_t)n);
	return n;
}

/** struct guest_ends - Who talks to whom in a frame
 * @v6:		IPv6, else IPv4; addresses are from the documentation prefixes
 * @host:	Last byte of the remote's address
 */
struct guest_ends {
	bool v6;
	uint8_t host;
	uint16_t sport;
	uint16_t dport;
};

static inline uint8_t *guest_eth(uint8_t *frame, uint16_t type)
{
	struct eth_hdr *eth = (struct eth_hdr *)frame;

	memcpy(eth->dst, guest_our_mac_, ETH_ALEN_);
	memcpy(eth->src, guest_mac_, ETH_ALEN_);
	eth->type = htons(type);
	return frame + ETH_HLEN_;
}

/* guest_ip() - Ethernet and IP header; returns where L4 starts */
static inline uint8_t *guest_ip(uint8_t *frame, const struct guest_ends *ends,
				uint8_t proto, uint32_t l4_len)
{
	if (ends->v6) {
		struct ip6_hdr_ *ip =
			(struct ip6_hdr_ *)guest_eth(frame, ETHERTYPE_IPV6_);

		*ip = (struct ip6_hdr_){ .vtc_flow = htonl(6U << 28),
					 .payload_len = htons((uint16_t)l4_len),
					 .nexthdr = proto,
					 .hop_limit = 64 };
		inet_pton(AF_INET6, "2001:db8::5", ip->saddr);
		inet_pton(AF_INET6, "2001:db8:1::", ip->daddr);
		ip->daddr[15] = ends->host;
		return (uint8_t *)(ip + 1);
	} else {
		struct ip4_hdr *ip =
			(struct ip4_hdr *)guest_eth(frame, ETHERTYPE_IPV4_);

		*ip = (struct ip4_hdr){
			.ver_ihl = 0x45,
			.tot_len = htons((uint16_t)(sizeof(*ip) + l4_len)),
			.frag_off = htons(IP4_DF),
			.ttl = 64,
			.protocol = proto,
			.saddr = htonl(0xc0000205),
			.daddr = htonl(0xc6336400 | ends->host),
		};
		ip->check = (uint16_t)~csum_fold(csum_add(ip, sizeof(*ip), 0));
		return (uint8_t *)(ip + 1);
	}
}

/* guest_tcp() - A segment; returns the frame's length */
static inline size_t guest_tcp(uint8_t *frame, const struct guest_ends *ends,
			       uint8_t flags, uint32_t seq, uint32_t ack,
			       const void *payload, uint32_t len)
{
	struct tcp_hdr *tcp = (struct tcp_hdr *)guest_ip(
		frame, ends, IPPROTO_TCP, (uint32_t)sizeof(*tcp) + len);

	*tcp = (struct tcp_hdr){
		.source = htons(ends->sport),
		.dest = htons(ends->dport),
		.seq = htonl(seq),
		.ack_seq = htonl(ack),
		.off_res = (uint8_t)(sizeof(*tcp) / 4 << 4),
		.flags = flags,
		.window = htons(0xffff),
	};
	if (len)
		memcpy(tcp + 1, payload, len);
	return (size_t)((uint8_t *)(tcp + 1) - frame) + len;
}

static inline size_t guest_udp(uint8_t *frame, const struct guest_ends *ends,
			       const void *payload, uint32_t len)
{
	struct udp_hdr *udp = (struct udp_hdr *)guest_ip(
		frame, ends, IPPROTO_UDP, (uint32_t)sizeof(*udp) + len);

	*udp = (struct udp_hdr){ .source = htons(ends->sport),
				 .dest = htons(ends->dport),
				 .len = htons((uint16_t)(sizeof(*udp) + len)) };
	if (len)
		memcpy(udp + 1, payload, len);
	return (size_t)((uint8_t *)(udp + 1) - frame) + len;
}

/**
 * guest_fragment() - Say of a frame that it is one part of a packet
 * @off:	Where it belongs, a multiple of 8
 *
 * Return: the new length: IPv6 gets a Fragment header
 */
static inline size_t guest_fragment(uint8_t *frame, size_t len, uint32_t id,
				    bool more, uint16_t off)
{
	struct ip4_hdr *ip4 = (struct ip4_hdr *)(frame + ETH_HLEN_);
	struct ip6_hdr_ *ip6 = (struct ip6_hdr_ *)(frame + ETH_HLEN_);
	uint8_t *ext = (uint8_t *)(ip6 + 1);

	if (frame[12] == 0x08 && frame[13] == 0x00) {
		ip4->id = htons((uint16_t)id);
		ip4->frag_off =
			htons((uint16_t)(off / 8 | (more ? IP4_MF : 0)));
		ip4->check = 0;
		ip4->check =
			(uint16_t)~csum_fold(csum_add(ip4, sizeof(*ip4), 0));
	} else if (frame[12] == 0x86) {
		memmove(ext + 8, ext, len - ETH_HLEN_ - sizeof(*ip6));
		memset(ext, 0, 8);
		ext[0] = ip6->nexthdr;
		ext[2] = (uint8_t)(off >> 8);
		ext[3] = (uint8_t)(off | more);
		ext[7] = (uint8_t)id;
		ip6->nexthdr = IPPROTO_FRAGMENT;
		ip6->payload_len =
			htons((uint16_t)(ntohs(ip6->payload_len) + 8));
		len += 8;
	}
	return len;
}

/* guest_mend_ip() - Make an IPv4 header's checksum right again, if it is one */
static inline void guest_mend_ip(uint8_t *frame, size_t len)
{
	struct ip4_hdr *ip = (struct ip4_hdr *)(frame + ETH_HLEN_);
	size_t ihl = (ip->ver_ihl & 15U) * 4;

	if (ip->ver_ihl >> 4 != 4 || ihl < 20 || len < ETH_HLEN_ + ihl)
		return;
	ip->check = 0;
	ip->check = (uint16_t)~csum_fold(csum_add(ip, ihl, 0));
}

/* guest_mend() - Make the L4 checksum right, which no header of a stream declares
 * to be */
static inline void guest_mend(uint8_t *frame, size_t len)
{
	static const uint8_t at[256] = {
		[IPPROTO_TCP] = 17, [IPPROTO_UDP] = 7, [IPPROTO_ICMPV6] = 3
	};
	bool v6 = frame[12] == 0x86;
	size_t l4 = ETH_HLEN_ + (v6 ? 40 : 20);
	uint8_t proto = frame[ETH_HLEN_ + (v6 ? 6 : 9)];
	uint8_t tail[4] = { 0, proto };
	uint16_t sum;

	if (len < l4 + 20 || !at[proto])
		return;
	tail[2] = (uint8_t)((len - l4) >> 8);
	tail[3] = (uint8_t)(len - l4);
	memset(frame + l4 + at[proto] - 1, 0, 2);
	sum = oracle_sum(0, frame + l4 - (v6 ? 32 : 8), v6 ? 32 : 8);
	sum = oracle_sum(sum, tail, sizeof(tail));
	sum = (uint16_t)~oracle_sum(sum, frame + l4, len - l4);
	frame[l4 + at[proto] - 1] = (uint8_t)(sum >> 8);
	frame[l4 + at[proto]] = (uint8_t)sum;
}

/* guest_no_csum() - The header that says: the checksum was verified already */
static inline struct vnet_hdr guest_no_csum(void)
{
	return (struct vnet_hdr){ .flags = VNET_F_DATA_VALID };
}

/* guest_forward() - A verdict: to a port on loopback, family as the miss */
static inline struct verdict guest_forward(const struct miss *m, uint16_t port)
{
	struct verdict v = { .action = VERDICT_FORWARD, .pif = PIF_HOST };

	if (inany_is_v4(&m->key.oaddr))
		inany_from_v4(&v.side.eaddr,
			      (struct in_addr){ htonl(INADDR_LOOPBACK) });
	else
		v.side.eaddr.a6 = in6addr_loopback;
	v.side.eport = port;
	v.rule = 1;
	return v;
}

/* guest_next_miss() - A miss that was not answered yet, or NULL */
static inline struct miss *guest_next_miss(struct guest *g)
{
	return stage_take_untold(&g->dp->ctx.stage);
}

/* raise_limit() - As many descriptors as there may be */
static inline void raise_limit(void)
{
	struct rlimit limit;

	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = limit.rlim_max;
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

/* guest_answer_with() - Open with a socket, which stays the caller's on failure */
static inline int guest_answer_with(struct guest *g, struct miss *m,
				    const struct verdict *v, int fd)
{
	uint64_t id;

	return datapath_open(g->dp, stage_miss_id(&g->dp->ctx.stage, m), v, fd,
			     NULL, &id);
}

static inline int guest_answer(struct guest *g, struct miss *m,
			       const struct verdict *v)
{
	return guest_answer_with(g, m, v, -1);
}

static inline uint64_t guest_counter(const struct guest *g, enum counter i)
{
	return g->dp->ctx.cnt.n[i];
}

/* listen_loopback() - A socket on loopback, dual-stack; fills its port */
static inline int listen_loopback(int type, uint16_t *ret_port)
{
	struct sockaddr_in6 sa = { .sin6_family = AF_INET6 };
	socklen_t len = sizeof(sa);
	int fd = socket(AF_INET6, type | SOCK_NONBLOCK, 0), off = 0;

	CHECK(fd >= 0);
	CHECK_EQ(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)),
		 0);
	CHECK_EQ(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	if (type == SOCK_STREAM)
		CHECK_EQ(listen(fd, 128), 0);
	CHECK_EQ(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
	*ret_port = ntohs(sa.sin6_port);
	return fd;
}

/* guest_meddle() - Use a verb on a flow, or on one that may never have been */
static inline void guest_meddle(struct guest *g, struct test_random *rnd)
{
	struct flow_table *ft = &g->dp->ctx.ft;
	struct border_flow r = { .flow_id = test_below(rnd, ft->top + 2) };
	uint32_t cursor = test_below(rnd, ft->top + 1);

	if (test_below(rnd, 10))
		(void)border_flow_page(ft, &cursor, &r, 1);
	if (test_below(rnd, 2))
		(void)datapath_set_rule(g->dp, r.flow_id, 8, 9,
					test_below(rnd, 2));
	else
		(void)datapath_close_flow(g->dp, r.flow_id,
					  test_below(rnd, 2) ? WHY_ASKED :
							       WHY_POLICY);
}

#endif /* PASSTPY_TESTS_GUEST_H */
