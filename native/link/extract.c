/* SPDX-License-Identifier: GPL-2.0-or-later */
/* extract.c - From the bytes of a frame to the key of its flow
 *
 * Each layer gets a checked cursor: @off bytes of headers are behind it, and
 * the packet ends at @end, which only ever shrinks. No header is read before
 * at() has checked that all of it lies between the two.
 */

#include "link/extract.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include "base/checksum.h"
#include "link/quote.h"

enum {
	ICMP4_ECHO = 8,	       /* RFC 792 */
	ICMP6_ECHO = 128,      /* RFC 4443 4.1 */
	ICMP6_MLD_FIRST = 130, /* RFC 2710: query, report, done */
	ICMP6_MLD_LAST = 132,
	ICMP6_MLD2_REPORT = 143, /* RFC 3810 */
};

/* More extension headers than anybody has a use for. The bound also keeps
 * offsets below 64 KiB: each header is at most 2048 bytes long. */
#define EXT_HEADERS_MAX 8

/* Ports, sequence numbers and flags of TCP must be in the first fragment, and
 * none may begin before their end (RFC 1858 section 3.2, RFC 3128) */
#define TCP_FIRST_FRAGMENT 16

_Static_assert(ETH_HLEN_ + 40 + EXT_HEADERS_MAX * 2048 + 60 < UINT16_MAX,
	       "offsets in struct frame");

/** struct parse - A frame while it is taken apart
 * @eth:	First byte
 * @off:	Offset of the next header
 * @end:	Offset of the end of the packet
 * @vh:		virtio-net header, or NULL
 * @cnt:	Counters
 * @punt:	Who in Python wants it
 * @fragment:	It is a fragment
 * @refusal:	It tells that nobody has a port
 * @next_at:	Offset of the byte that told the type of the header at @off
 */
struct parse {
	uint8_t *eth;
	uint32_t off;
	uint32_t end;
	const struct vnet_hdr *vh;
	struct counters *cnt;
	enum punt_kind punt;
	bool fragment;
	bool refusal;
	uint32_t next_at;
};

static bool drop(struct parse *p, enum counter reason)
{
	count(p->cnt, reason);
	return false;
}

/* at() - Next header, or NULL if the packet ends before @len more bytes */
static void *at(const struct parse *p, uint32_t len)
{
	return p->end - p->off >= len ? p->eth + p->off : NULL;
}

static bool checksum_is_partial(const struct parse *p)
{
	return p->vh && p->vh->flags & VNET_F_NEEDS_CSUM;
}

/**
 * check_sum() - Verify the L4 checksum, unless it is yet to be made
 * @sum:	Of the pseudo header, or 0
 * @len:	Bytes from the L4 header on
 * @field:	Offset of the checksum in the L4 header
 *
 * The checksum of a frame for a service is completed in place: services
 * know nothing of virtio-net headers.
 */
static bool check_sum(struct parse *p, uint64_t sum, uint32_t len,
		      uint16_t field)
{
	uint8_t *l4 = p->eth + p->off;
	uint16_t check;

	if (checksum_is_partial(p)) {
		if (p->vh->csum_start != p->off || p->vh->csum_offset != field)
			return drop(p, CNT_DROP_VNET_HDR);
		if (!p->punt)
			return true;
		memset(l4 + field, 0, sizeof(check));
		check = (uint16_t)~csum_fold(csum_add(l4, len, sum));
		if (!check)
			check = 0xffff;
		memcpy(l4 + field, &check, sizeof(check));
		return true;
	}
	if (p->vh && p->vh->flags & VNET_F_DATA_VALID)
		return true;
	if (csum_fold(csum_add(l4, len, sum)) != 0xffff)
		return drop(p, CNT_DROP_CHECKSUM);
	return true;
}

/* Segments of one frame at most. No stack makes more: for UDP it is what Linux
 * allows (UDP_MAX_SEGMENTS since 6.9), each being a datagram that we have to
 * send; for TCP its smallest segment size (TCP_MIN_GSO_SIZE, 8 bytes) */
#define USO_SEGMENTS_MAX 128
#define TSO_SEGMENTS_MAX (65536 / 8)

/* check_gso() - Do segment type and size fit the packet? */
static bool check_gso(struct parse *p, struct frame *frame)
{
	bool v4 = inany_is_v4(&frame->key.eaddr);
	uint32_t most = TSO_SEGMENTS_MAX;
	bool fits;

	frame->gso_type = VNET_GSO_NONE;
	frame->gso_size = 0;
	if (!p->vh || p->vh->gso_type == VNET_GSO_NONE)
		return true;

	switch (p->vh->gso_type & ~VNET_GSO_ECN) {
	case VNET_GSO_TCPV4:
		fits = v4 && frame->ipproto == IPPROTO_TCP;
		break;
	case VNET_GSO_TCPV6:
		fits = !v4 && frame->ipproto == IPPROTO_TCP;
		break;
	case VNET_GSO_UDP_L4:
		fits = frame->ipproto == IPPROTO_UDP &&
		       p->vh->gso_type == VNET_GSO_UDP_L4;
		most = USO_SEGMENTS_MAX;
		break;
	default:
		fits = false;
	}
	if (!fits || !p->vh->gso_size || !frame->payload_len)
		return drop(p, CNT_DROP_VNET_HDR);
	if (frame->payload_len > (uint32_t)p->vh->gso_size * most)
		return drop(p, CNT_DROP_SEGMENTS);
	frame->gso_type = p->vh->gso_type & (uint8_t)~VNET_GSO_ECN;
	frame->gso_size = p->vh->gso_size;
	return true;
}

/* set_payload() - The L4 header is @header bytes long, and the last one */
static void set_payload(const struct parse *p, struct frame *frame,
			uint32_t header)
{
	frame->payload = (uint16_t)(p->off + header);
	frame->payload_len = p->end - frame->payload;
}

static uint64_t pseudo_of(const struct frame *frame, uint32_t len)
{
	return csum_pseudo(&frame->key.eaddr, &frame->key.oaddr, frame->ipproto,
			   len);
}

/* source_is_known() - The unspecified address may only talk to services */
static bool source_is_known(const struct frame *frame)
{
	return !inany_is_any(&frame->key.eaddr);
}

static bool extract_tcp(struct parse *p, struct frame *frame)
{
	const struct tcp_hdr *th = at(p, sizeof(*th));
	uint32_t len = p->end - p->off;
	uint32_t header;

	if (!th)
		return drop(p, CNT_DROP_SHORT);
	header = (uint32_t)(th->off_res >> 4) * 4;
	if (header < sizeof(*th) || header > len)
		return drop(p, CNT_DROP_L4_HEADER);
	frame->key.eport = ntohs(th->source);
	frame->key.oport = ntohs(th->dest);
	frame->tcp_flags = th->flags;
	if (!frame->key.eport || !frame->key.oport ||
	    !inany_is_unicast(&frame->key.eaddr) ||
	    !inany_is_unicast(&frame->key.oaddr))
		return drop(p, CNT_DROP_ADDRESS);
	if (!check_sum(p, pseudo_of(frame, len), len,
		       offsetof(struct tcp_hdr, check)))
		return false;
	set_payload(p, frame, header);
	return true;
}

/* check_sum_udp() - Zero means: none, which IPv6 forbids (RFC 8200 8.1) */
static bool check_sum_udp(struct parse *p, const struct frame *frame,
			  const struct udp_hdr *uh, uint32_t len)
{
	if (!uh->check && !checksum_is_partial(p)) {
		if (inany_is_v4(&frame->key.eaddr))
			return true;
		return drop(p, CNT_DROP_CHECKSUM);
	}
	return check_sum(p, pseudo_of(frame, len), len,
			 offsetof(struct udp_hdr, check));
}

static bool extract_udp(struct parse *p, struct frame *frame)
{
	const struct udp_hdr *uh = at(p, sizeof(*uh));
	bool v4 = inany_is_v4(&frame->key.eaddr);
	uint32_t len;

	if (!uh)
		return drop(p, CNT_DROP_SHORT);
	len = ntohs(uh->len);
	if (len < sizeof(*uh) || len > p->end - p->off)
		return drop(p, CNT_DROP_L4_HEADER);
	p->end = p->off + len;
	frame->key.eport = ntohs(uh->source);
	frame->key.oport = ntohs(uh->dest);
	if (!frame->key.eport || !frame->key.oport)
		return drop(p, CNT_DROP_ADDRESS);

	if (frame->key.oport == (v4 ? PORT_DHCP_SERVER : PORT_DHCPV6_SERVER))
		p->punt = v4 ? PUNT_DHCP4 : PUNT_DHCP6;
	if (!source_is_known(frame) && p->punt != PUNT_DHCP4)
		return drop(p, CNT_DROP_ADDRESS);
	if (!check_sum_udp(p, frame, uh, len))
		return false;
	set_payload(p, frame, sizeof(*uh));
	return true;
}

static bool is_mld(uint8_t type)
{
	return (type >= ICMP6_MLD_FIRST && type <= ICMP6_MLD_LAST) ||
	       type == ICMP6_MLD2_REPORT;
}

/* extract_refusal() - The guest says that nobody has a UDP port */
static bool extract_refusal(struct parse *p, struct frame *frame, uint32_t len)
{
	bool v4 = frame->ipproto == IPPROTO_ICMP;

	if (!source_is_known(frame))
		return drop(p, CNT_DROP_ADDRESS);
	if (!check_sum(p, v4 ? 0 : pseudo_of(frame, len), len,
		       offsetof(struct icmp_hdr, check)))
		return false;
	set_payload(p, frame, sizeof(struct icmp_hdr));
	if (!quote_udp(frame->eth + frame->payload, frame->payload_len, v4,
		       &frame->key))
		return drop(p, CNT_DROP_ICMP_TYPE);
	frame->ipproto = IPPROTO_UDP;
	return true;
}

static bool extract_icmp(struct parse *p, struct frame *frame)
{
	const struct icmp_hdr *ih = at(p, sizeof(*ih));
	bool v4 = frame->ipproto == IPPROTO_ICMP;
	uint32_t len = p->end - p->off;

	if (!ih)
		return drop(p, CNT_DROP_SHORT);
	if (!v4 && is_mld(ih->type))
		p->punt = PUNT_MEMBERSHIP;
	else if (!v4 && ih->type >= ICMP6_ND_FIRST && ih->type <= ICMP6_ND_LAST)
		p->punt = PUNT_ND;
	if (!p->punt && quote_is_refusal(v4, ih)) {
		p->refusal = true;
		return extract_refusal(p, frame, len);
	}
	if (!p->punt &&
	    (ih->type != (v4 ? ICMP4_ECHO : ICMP6_ECHO) || ih->code))
		return drop(p, CNT_DROP_ICMP_TYPE);
	if (!source_is_known(frame) && !p->punt)
		return drop(p, CNT_DROP_ADDRESS);
	if (!check_sum(p, v4 ? 0 : pseudo_of(frame, len), len,
		       offsetof(struct icmp_hdr, check)))
		return false;
	frame->key.eport = ntohs(ih->id);
	frame->key.oport = frame->key.eport;
	set_payload(p, frame, sizeof(*ih));
	return true;
}

static bool extract_l4(struct parse *p, struct frame *frame, uint8_t ipproto)
{
	bool v4 = inany_is_v4(&frame->key.eaddr);

	frame->ipproto = ipproto;
	frame->l4 = (uint16_t)p->off;
	frame->tcp_flags = 0;
	if (ipproto == IPPROTO_TCP)
		return extract_tcp(p, frame) && check_gso(p, frame);
	if (ipproto == IPPROTO_UDP)
		return extract_udp(p, frame) && check_gso(p, frame);
	if (ipproto == (v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6))
		return extract_icmp(p, frame) && check_gso(p, frame);
	if (ipproto == IPPROTO_IGMP && v4) {
		p->punt = PUNT_MEMBERSHIP;
		return true;
	}
	return drop(p, CNT_DROP_IP_PROTO);
}

/* check_addresses() - Nothing that can be no flow, whatever the protocol */
static bool check_addresses(struct parse *p, const struct frame *frame)
{
	const union inany *src = &frame->key.eaddr;
	const union inany *dst = &frame->key.oaddr;

	/* Services decide about an unspecified source: extract_udp(), _icmp() */
	if ((!inany_is_unicast(src) && !inany_is_any(src)) ||
	    inany_is_any(dst) || inany_is_loopback(src) ||
	    inany_is_loopback(dst))
		return drop(p, CNT_DROP_ADDRESS);
	return true;
}

/**
 * set_fragment() - A part of a datagram starts here
 * @off:	Where it belongs, bytes
 * @more:	Others follow it
 */
static bool set_fragment(struct parse *p, struct frame *frame, uint8_t ipproto,
			 uint32_t id, uint16_t off, bool more)
{
	uint32_t len = p->end - p->off;

	/* Whoever cuts a datagram has completed its checksum before */
	if (checksum_is_partial(p) ||
	    (p->vh && p->vh->gso_type != VNET_GSO_NONE))
		return drop(p, CNT_DROP_VNET_HDR);
	if (!len ||
	    (ipproto == IPPROTO_TCP &&
	     (off ? off < TCP_FIRST_FRAGMENT : len < TCP_FIRST_FRAGMENT)))
		return drop(p, CNT_DROP_FRAGMENT);
	p->fragment = true;
	frame->ipproto = ipproto;
	frame->l4 = (uint16_t)p->off;
	frame->payload = frame->l4;
	frame->payload_len = len;
	frame->frag_id = id;
	frame->frag_off = off;
	frame->frag_more = more;
	return true;
}

static bool extract_ip4(struct parse *p, struct frame *frame)
{
	const struct ip4_hdr *ih = at(p, sizeof(*ih));
	uint32_t header, total;
	uint16_t frag;

	if (!ih)
		return drop(p, CNT_DROP_SHORT);
	header = (uint32_t)(ih->ver_ihl & 0xf) * 4;
	total = ntohs(ih->tot_len);
	if (ih->ver_ihl >> 4 != 4 || header < sizeof(*ih) || header > total ||
	    total > p->end - p->off)
		return drop(p, CNT_DROP_IP_HEADER);
	if (csum_fold(csum_add(ih, header, 0)) != 0xffff)
		return drop(p, CNT_DROP_CHECKSUM);
	inany_from_v4(&frame->key.eaddr, (struct in_addr){ ih->saddr });
	inany_from_v4(&frame->key.oaddr, (struct in_addr){ ih->daddr });
	if (!check_addresses(p, frame))
		return false;
	frame->ttl = ih->ttl;
	frame->tos = ih->tos;
	p->end = p->off + total;
	p->off += header;
	frame->len = p->end;
	frag = ntohs(ih->frag_off);
	frame->frag_next = 0;
	if (frag & (IP4_MF | IP4_OFF))
		return set_fragment(p, frame, ih->protocol, ntohs(ih->id),
				    (uint16_t)((frag & IP4_OFF) * 8),
				    frag & IP4_MF);
	return extract_l4(p, frame, ih->protocol);
}

/* skip_extension() - One IPv6 extension header (RFC 8200 section 4)
 * @next:	Its type; set to the type of what follows
 */
static bool skip_extension(struct parse *p, uint8_t *next)
{
	/* Every one of them: next header, length in 8 bytes beyond the first */
	const uint8_t *ext = at(p, 8);
	uint32_t len;

	if (!ext)
		return drop(p, CNT_DROP_SHORT);
	len = *next == IPPROTO_FRAGMENT ? 8 : ((uint32_t)ext[1] + 1) * 8;
	/* Segments left: the destination is not the final one (RFC 5095) */
	if (!at(p, len) || (*next == IPPROTO_ROUTING && ext[3]))
		return drop(p, CNT_DROP_IP_HEADER);
	*next = ext[0];
	p->next_at = p->off;
	p->off += len;
	return true;
}

/* is_fragment() - Offset or "more" is set; if neither, it is an atomic fragment
 * (RFC 6946), and its header says nothing */
static bool is_fragment(const struct parse *p)
{
	const uint8_t *ext = at(p, 8);

	return ext && (ext[2] || ext[3] & 0xf9);
}

static bool extract_fragment6(struct parse *p, struct frame *frame);

static bool extract_extensions(struct parse *p, struct frame *frame,
			       uint8_t *next)
{
	for (unsigned n = 0;; n++) {
		switch (*next) {
		case IPPROTO_HOPOPTS:
			/* Only as the first one (RFC 8200 4.1) */
			if (n)
				return drop(p, CNT_DROP_IP_HEADER);
			break;
		case IPPROTO_FRAGMENT:
			if (is_fragment(p))
				return extract_fragment6(p, frame);
			break;
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
			break;
		default:
			return true;
		}
		if (n == EXT_HEADERS_MAX)
			return drop(p, CNT_DROP_IP_HEADER);
		if (!skip_extension(p, next))
			return false;
	}
}

/* has_header_chain() - Are all headers in the first fragment? (RFC 7112) */
static bool has_header_chain(const struct parse *p, struct frame *frame,
			     uint8_t next)
{
	struct parse rest = *p;

	if (!extract_extensions(&rest, frame, &next))
		return false;
	if (at(&rest, next == IPPROTO_TCP ? sizeof(struct tcp_hdr) :
					    sizeof(struct udp_hdr)))
		return true;
	return drop(&rest, CNT_DROP_FRAGMENT);
}

/* extract_fragment6() - At a Fragment header that is not atomic */
static bool extract_fragment6(struct parse *p, struct frame *frame)
{
	const uint8_t *ext = at(p, 8);
	uint16_t off = (uint16_t)(ext[2] << 8 | (ext[3] & 0xf8));
	uint32_t id;

	if (p->fragment) /* one within another */
		return drop(p, CNT_DROP_FRAGMENT);
	memcpy(&id, ext + 4, sizeof(id));
	frame->frag_next = (uint16_t)p->next_at;
	p->off += 8;
	return set_fragment(p, frame, ext[0], ntohl(id), off, ext[3] & 1) &&
	       (off || has_header_chain(p, frame, ext[0]));
}

static bool extract_ip6(struct parse *p, struct frame *frame)
{
	const struct ip6_hdr_ *ih = at(p, sizeof(*ih));
	uint32_t vtc_flow, payload;
	uint8_t next;

	if (!ih)
		return drop(p, CNT_DROP_SHORT);
	vtc_flow = ntohl(ih->vtc_flow);
	payload = ntohs(ih->payload_len);
	if (vtc_flow >> 28 != 6 || payload > p->end - p->off - sizeof(*ih))
		return drop(p, CNT_DROP_IP_HEADER);

	memcpy(&frame->key.eaddr, ih->saddr, sizeof(ih->saddr));
	memcpy(&frame->key.oaddr, ih->daddr, sizeof(ih->daddr));
	/* Past this, v4-mapped means IPv4: the two may never be confused */
	if (inany_is_v4(&frame->key.eaddr) || inany_is_v4(&frame->key.oaddr))
		return drop(p, CNT_DROP_ADDRESS);
	if (!check_addresses(p, frame))
		return false;
	frame->ttl = ih->hop_limit;
	frame->tos = (uint8_t)(vtc_flow >> 20);
	next = ih->nexthdr;
	p->next_at = p->off + offsetof(struct ip6_hdr_, nexthdr);
	p->off += sizeof(*ih);
	p->end = p->off + payload;
	frame->len = p->end;
	if (!extract_extensions(p, frame, &next))
		return false;
	return p->fragment || extract_l4(p, frame, next);
}

static bool extract_l3(struct parse *p, struct frame *frame)
{
	const struct eth_hdr *eh = at(p, sizeof(*eh));

	if (!eh)
		return drop(p, CNT_DROP_SHORT);
	p->off += sizeof(*eh);
	frame->l3 = (uint16_t)p->off;
	switch (ntohs(eh->type)) {
	case ETHERTYPE_IPV4_:
		return extract_ip4(p, frame);
	case ETHERTYPE_IPV6_:
		return extract_ip6(p, frame);
	case ETHERTYPE_ARP_:
		p->punt = PUNT_ARP;
		return true;
	default:
		return drop(p, CNT_DROP_ETHERTYPE);
	}
}

enum extract flow_extract(struct frame *frame, uint8_t *eth, uint32_t len,
			  const struct vnet_hdr *vh, struct counters *cnt)
{
	struct parse p = { .eth = eth, .end = len, .vh = vh, .cnt = cnt };

	frame->eth = eth;
	frame->len = len;
	frame->next = NULL;
	if (!extract_l3(&p, frame))
		return EXTRACT_DROP;
	if (p.fragment)
		return EXTRACT_FRAGMENT;
	frame->punt = p.punt;
	if (p.refusal)
		return EXTRACT_REFUSAL;
	if (p.punt == PUNT_MEMBERSHIP)
		return EXTRACT_GROUP;
	return p.punt ? EXTRACT_PUNT : EXTRACT_FLOW;
}
