/* SPDX-License-Identifier: GPL-2.0-or-later */
/* guest_mem.h - Memory of a virtual machine, shared with us and hostile
 *
 * Owns the table of regions that a vhost-user front-end hands over: where each
 * lies for the guest, for the front-end and for us. Every address that comes
 * from the guest becomes a pointer here and nowhere else, and only together
 * with a length: what is returned lies within one mapped region, whatever was
 * asked for. What stands there may change at any time: read it once.
 *
 * Not safe against itself in another thread: a datapath runs in one at a time.
 */
#ifndef PASSTPY_LINK_GUEST_MEM_H
#define PASSTPY_LINK_GUEST_MEM_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#define GUEST_MEM_REGIONS 32 /* as many as QEMU has slots to plug memory in */

/** struct guest_region - A piece of memory, as the front-end describes it
 * @guest:	Guest-physical address
 * @size:	Bytes
 * @user:	Address in the front-end's own memory; ring addresses use it
 * @offset:	Where the piece starts in the file
 * @fd:		The file; not kept
 */
struct guest_region {
	uint64_t guest;
	uint64_t size;
	uint64_t user;
	uint64_t offset;
	int fd;
};

/** struct guest_map - A piece that is mapped
 * @guest:	Guest-physical address
 * @user:	Address in the front-end
 * @size:	Bytes
 * @here:	The same byte as @guest and @user, in our memory
 * @map:	What mmap() returned: @here, rounded down to a page
 * @map_len:	Its length, whole pages
 */
struct guest_map {
	uint64_t guest;
	uint64_t user;
	uint64_t size;
	uint8_t *here;
	void *map;
	uint64_t map_len;
};

/** struct guest_mem - All memory of a guest
 * @map:	Regions
 * @n:		Entries of @map
 * @last:	The entry that answered last: most questions are neighbours
 * @unsealed:	Regions whose file can still be made shorter (F_SEAL_SHRINK)
 * @lost:	A region's file had no memory behind a page that we touched.
 *		Zeros stand there now; whatever was read since is worthless
 */
struct guest_mem {
	struct guest_map map[GUEST_MEM_REGIONS];
	unsigned n;
	unsigned last;
	unsigned unsealed;
	volatile sig_atomic_t lost;
};

/**
 * guest_mem_init() - Start without memory, and guard what will be mapped
 *
 * From now on a truncated file sets @lost instead of ending the program.
 *
 * Return: 0, -ENFILE when too many are guarded, or -errno
 */
int guest_mem_init(struct guest_mem *m);
void guest_mem_free(struct guest_mem *m);

/**
 * guest_mem_set() - Replace all regions
 * @regions:	What is mapped from now on
 * @n:		Entries of @regions; 0 lets go of everything
 *
 * Clears @lost. Pointers that were given out before are void.
 *
 * Return: 0, or with the old regions still in place: -E2BIG too many; -EINVAL
 * empty, overlapping or wrapping around; -EBADF no regular file; -ENXIO beyond
 * the end of the file; else -errno of mmap()
 */
int guest_mem_set(struct guest_mem *m, const struct guest_region *regions,
		  unsigned n);

/**
 * guest_mem_piece() - The first bytes of a range that lie in one piece
 * @guest:	Guest-physical address
 * @len:	Bytes wanted, at least 1
 * @ret_len:	Bytes that follow each other from the returned one on, at least
 *		1 and at most @len; the rest may lie in another region
 *
 * Return: pointer, or NULL: no such memory
 */
uint8_t *guest_mem_piece(struct guest_mem *m, uint64_t guest, uint64_t len,
			 uint64_t *ret_len);

/* guest_mem_at() - The same for a range that must not be scattered
 * Return: pointer to @len bytes, or NULL */
uint8_t *guest_mem_at(struct guest_mem *m, uint64_t guest, uint64_t len);

/* guest_mem_user() - The same by the front-end's address: for rings
 * Return: pointer to @len bytes, or NULL */
uint8_t *guest_mem_user(struct guest_mem *m, uint64_t user, uint64_t len);

#endif /* PASSTPY_LINK_GUEST_MEM_H */
