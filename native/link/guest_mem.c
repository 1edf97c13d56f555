/* SPDX-License-Identifier: GPL-2.0-or-later */
/* guest_mem.c - Mapping a guest's memory, and surviving its loss
 *
 * The one exception to "no globals that change": a file that is made shorter
 * after it was mapped answers our next access with SIGBUS, and a signal has no
 * argument that would lead to a datapath. So there is a list of all memory
 * that is guarded, for the handler alone. It puts zero pages where the region
 * was, so that the interrupted instruction can finish, and marks the guest as
 * lost; the backend looks at the mark after each batch and ends the session.
 * A SIGBUS for any other address is none of our business and goes to whoever
 * handled it before. (A system call that is given such an address fails with
 * EFAULT instead; but guest memory is given to none.)
 */

#include "link/guest_mem.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/macros.h"
#include "base/sys.h"

#define GUARD_MAX 64 /* datapaths in one process; a daemon has one */

/** struct guard - What the signal handler knows
 * @mem:	Guarded memory, or NULL
 * @before:	What SIGBUS did before
 * @err:	errno of sigaction(), or 0
 */
static struct {
	struct guest_mem *mem[GUARD_MAX];
	struct sigaction before;
	int err;
} guard;

/* map_mend() - Put zeros where memory is missing; only what a handler may call
 * Return: true when the address was within the map */
static bool map_mend(const struct guest_map *map, uintptr_t addr)
{
	if (addr - (uintptr_t)map->map >= map->map_len)
		return false;
	return sys_mmap(map->map, map->map_len, PROT_READ | PROT_WRITE,
			MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
			-1, 0) != MAP_FAILED;
}

static bool guard_mend(uintptr_t addr)
{
	for (unsigned i = 0; i < GUARD_MAX; i++) {
		struct guest_mem *m =
			__atomic_load_n(&guard.mem[i], __ATOMIC_ACQUIRE);

		for (unsigned k = 0; m && k < m->n; k++) {
			if (map_mend(&m->map[k], addr)) {
				m->lost = 1;
				return true;
			}
		}
	}
	return false;
}

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	int err = errno;

	(void)context;
	/* Above zero: by the kernel, for an address; else kill() */
	if (info->si_code > 0 && guard_mend((uintptr_t)info->si_addr)) {
		errno = err;
		return;
	}
	sigaction(sig, &guard.before, NULL);
	if (info->si_code <= 0)
		raise(sig);
	errno = err; /* the instruction is tried again, and meets @before */
}

static void guard_install(void)
{
	struct sigaction action = { .sa_sigaction = on_sigbus,
				    .sa_flags = SA_SIGINFO | SA_ONSTACK };

	sigemptyset(&action.sa_mask);
	if (sigaction(SIGBUS, &action, &guard.before))
		guard.err = errno;
}

int guest_mem_init(struct guest_mem *m)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	memset(m, 0, sizeof(*m));
	pthread_once(&once, guard_install);
	if (guard.err)
		return -guard.err;
	for (unsigned i = 0; i < GUARD_MAX; i++) {
		struct guest_mem *none = NULL;

		if (__atomic_compare_exchange_n(&guard.mem[i], &none, m, false,
						__ATOMIC_RELEASE,
						__ATOMIC_RELAXED))
			return 0;
	}
	return -ENFILE;
}

void guest_mem_free(struct guest_mem *m)
{
	guest_mem_set(m, NULL, 0);
	for (unsigned i = 0; i < GUARD_MAX; i++) {
		if (__atomic_load_n(&guard.mem[i], __ATOMIC_RELAXED) == m)
			__atomic_store_n(&guard.mem[i], NULL, __ATOMIC_RELEASE);
	}
}

/* wraps() - Does a range end beyond the last address? */
static bool wraps(uint64_t start, uint64_t len)
{
	return start + (len - 1) < start;
}

/* overlap() - Have two ranges, neither empty nor wrapping, a byte in common? */
static bool overlap(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
	return a <= b ? b - a < a_len : a - b < b_len;
}

/* region_check() - Is a region sound, and apart from those mapped before?
 * @ret_st:	Filled with what its file is */
static int region_check(const struct guest_region *r,
			const struct guest_map *maps, unsigned n,
			struct stat *ret_st)
{
	if (!r->size || wraps(r->guest, r->size) || wraps(r->user, r->size) ||
	    wraps(r->offset, r->size))
		return -EINVAL;
	for (unsigned i = 0; i < n; i++) {
		if (overlap(maps[i].guest, maps[i].size, r->guest, r->size) ||
		    overlap(maps[i].user, maps[i].size, r->user, r->size))
			return -EINVAL;
	}
	if (sys_fstat(r->fd, ret_st))
		return -errno;
	if (!S_ISREG(ret_st->st_mode))
		return -EBADF;
	if (r->size > (uint64_t)ret_st->st_size ||
	    r->offset > (uint64_t)ret_st->st_size - r->size)
		return -ENXIO;
	return 0;
}

/* page_of() - What mmap() wants offsets and lengths to be multiples of
 *
 * A file of huge pages says so by the size of its blocks. Another's blocks may
 * be larger than its pages, which is no harm.
 */
static uint64_t page_of(const struct stat *st)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

	if (st->st_blksize > 0 && (uint64_t)st->st_blksize % page == 0)
		page = (uint64_t)st->st_blksize;
	return page;
}

/* region_map() - Map whole pages around a region
 *
 * They may begin before it: a region need not start where a (huge) page does.
 */
static int region_map(const struct guest_region *r, uint64_t page,
		      struct guest_map *map)
{
	uint64_t before, len;
	uint8_t *p;

	before = r->offset % page;
	len = (before + r->size + page - 1) / page * page;
	if (len < r->size || len > SIZE_MAX)
		return -EINVAL;
	p = sys_mmap(NULL, len, PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_NORESERVE, r->fd,
		     (off_t)(r->offset - before));
	if (p == MAP_FAILED)
		return -errno;
	(void)sys_madvise(p, len, MADV_DONTDUMP); /* the guest's secrets */
	*map = (struct guest_map){ .guest = r->guest,
				   .user = r->user,
				   .size = r->size,
				   .here = p + before,
				   .map = p,
				   .map_len = len };
	return 0;
}

static void unmap(struct guest_map *maps, unsigned n)
{
	while (n-- > 0)
		munmap(maps[n].map, maps[n].map_len);
}

int guest_mem_set(struct guest_mem *m, const struct guest_region *regions,
		  unsigned n)
{
	struct guest_map maps[GUEST_MEM_REGIONS];
	unsigned done, unsealed = 0;
	int err;

	if (n > GUEST_MEM_REGIONS)
		return -E2BIG;
	for (done = 0; done < n; done++) {
		int seals = sys_fcntl(regions[done].fd, F_GET_SEALS);
		struct stat st;

		err = region_check(&regions[done], maps, done, &st);
		if (!err)
			err = region_map(&regions[done], page_of(&st),
					 &maps[done]);
		if (err) {
			unmap(maps, done);
			return err;
		}
		unsealed += seals < 0 || !(seals & F_SEAL_SHRINK);
	}
	unmap(m->map, m->n);
	/* The handler never sees half an entry */
	m->n = 0;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	memcpy(m->map, maps, n * sizeof(maps[0]));
	m->last = 0;
	m->unsealed = unsealed;
	m->lost = 0;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	m->n = n;
	return 0;
}

/* find() - The region that an address lies in, most often the last one */
static const struct guest_map *find(struct guest_mem *m, uint64_t guest)
{
	const struct guest_map *map = &m->map[m->last];

	if (m->last < m->n && guest - map->guest < map->size)
		return map;
	for (unsigned i = 0; i < m->n; i++) {
		map = &m->map[i];
		if (guest - map->guest < map->size) {
			m->last = i;
			return map;
		}
	}
	return NULL;
}

uint8_t *guest_mem_piece(struct guest_mem *m, uint64_t guest, uint64_t len,
			 uint64_t *ret_len)
{
	const struct guest_map *map = find(m, guest);
	uint64_t off;

	if (!map)
		return NULL;
	off = guest - map->guest;
	*ret_len = MIN(len, map->size - off);
	return map->here + off;
}

uint8_t *guest_mem_at(struct guest_mem *m, uint64_t guest, uint64_t len)
{
	uint64_t got = 0;
	uint8_t *p = guest_mem_piece(m, guest, len, &got);

	return got == len ? p : NULL;
}

uint8_t *guest_mem_user(struct guest_mem *m, uint64_t user, uint64_t len)
{
	for (unsigned i = 0; i < m->n; i++) {
		const struct guest_map *map = &m->map[i];
		uint64_t off = user - map->user;

		if (off < map->size && len <= map->size - off)
			return map->here + off;
	}
	return NULL;
}
