/* SPDX-License-Identifier: GPL-2.0-or-later */
/* sieve.h - A program that has the kernel drop frames before they are read
 *
 * A frame that is refused anyhow costs a system call, and its place in the
 * device's queue, where frames of open flows wait behind it. A tap device takes
 * a classic BPF program from whoever holds it, without any privilege, and runs
 * it where the guest sends: what it drops costs us nothing.
 *
 * Only kinds of frames that can be told by their headers have a place here.
 */
#ifndef PASSTPY_LINK_SIEVE_H
#define PASSTPY_LINK_SIEVE_H

#include <linux/filter.h>
#include <stdint.h>

/** enum sieve_kind - Frames that may be dropped unread
 * @SIEVE_SYN:	First segments of TCP connections
 * @SIEVE_ARP:	ARP
 * @SIEVE_ND:	Neighbour and router discovery
 * @SIEVE_DHCP4: DHCP
 * @SIEVE_DHCP6: DHCPv6
 * @SIEVE_MEMBERSHIP: IGMP and MLD
 */
enum sieve_kind {
	SIEVE_SYN,
	SIEVE_ARP,
	SIEVE_ND,
	SIEVE_DHCP4,
	SIEVE_DHCP6,
	SIEVE_MEMBERSHIP,
	SIEVE_NUM
};

#define SIEVE_PROG_MAX 128

/**
 * sieve_program() - Write the program for some kinds
 * @prog:	SIEVE_PROG_MAX instructions
 * @kinds:	Bits of enum sieve_kind
 *
 * It sees Ethernet frames; of those it keeps it changes nothing.
 *
 * Return: instructions
 */
unsigned sieve_program(struct sock_filter *prog, uint32_t kinds);

#endif /* PASSTPY_LINK_SIEVE_H */
