/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Memory of a guest: what is mapped, what is refused, and what if it vanishes */

#include <errno.h>
#include <fcntl.h>
#include <sys/wait.h>

#include "vring.h"

#define PAGE 4096ULL

static struct guest_mem mem;
static struct vram ram;

static void setup(size_t size)
{
	vram_setup(&ram, size);
	CHECK_EQ(guest_mem_init(&mem), 0);
}

static void teardown(void)
{
	guest_mem_free(&mem);
	vram_teardown(&ram);
}

/* set() - Map the whole of it as one region */
static void set(void)
{
	struct guest_region r = vram_region(&ram);

	CHECK_EQ(guest_mem_set(&mem, &r, 1), 0);
}

static void bytes_are_the_same_under_all_three_addresses(void)
{
	setup(4 * PAGE);
	set();
	memcpy(ram.bytes + 5000, "shared", 6);
	CHECK_EQ(memcmp(guest_mem_at(&mem, VRAM_GUEST + 5000, 6), "shared", 6),
		 0);
	CHECK_EQ(memcmp(guest_mem_user(&mem, VRAM_USER + 5000, 6), "shared", 6),
		 0);
	*guest_mem_at(&mem, VRAM_GUEST, 1) = 0x5a;
	CHECK_EQ(ram.bytes[0], 0x5a);
	teardown();
}

static void range_ends_where_memory_does(void)
{
	uint64_t end = VRAM_GUEST + 4 * PAGE, len = 0;

	setup(4 * PAGE);
	set();
	CHECK(guest_mem_at(&mem, VRAM_GUEST, 4 * PAGE));
	CHECK(!guest_mem_at(&mem, VRAM_GUEST, 4 * PAGE + 1));
	CHECK(!guest_mem_at(&mem, VRAM_GUEST - 1, 1));
	CHECK(!guest_mem_at(&mem, VRAM_GUEST - 1, 2));
	CHECK(guest_mem_at(&mem, end - 1, 1));
	CHECK(!guest_mem_at(&mem, end - 1, 2));
	CHECK(!guest_mem_at(&mem, end, 1));
	CHECK(!guest_mem_at(&mem, end - 1, UINT64_MAX));
	CHECK(!guest_mem_at(&mem, UINT64_MAX, 1));
	CHECK(!guest_mem_at(&mem, 0, UINT64_MAX));
	CHECK(!guest_mem_user(&mem, VRAM_USER - 1, 2));
	CHECK(!guest_mem_user(&mem, VRAM_USER + 1, 4 * PAGE));
	CHECK(!guest_mem_user(&mem, VRAM_USER + 1, UINT64_MAX));
	CHECK(guest_mem_piece(&mem, end - 3, 100, &len));
	CHECK_EQ(len, 3);
	teardown();
}

static void neighbours_are_found_piece_by_piece(void)
{
	struct guest_region r[2];
	uint64_t len = 0;
	uint8_t *p;

	setup(4 * PAGE);
	r[0] = vram_region(&ram);
	r[0].size = 2 * PAGE;
	r[1] = r[0];
	r[1].guest += 2 * PAGE; /* follows for the guest, not in the file */
	r[1].user -= 64 * PAGE;
	r[1].offset = 3 * PAGE;
	r[1].size = PAGE;
	CHECK_EQ(guest_mem_set(&mem, r, 2), 0);
	CHECK(!guest_mem_at(&mem, VRAM_GUEST + 2 * PAGE - 2, 4));
	p = guest_mem_piece(&mem, VRAM_GUEST + 2 * PAGE - 2, 4, &len);
	CHECK(p);
	CHECK_EQ(len, 2);
	p = guest_mem_piece(&mem, VRAM_GUEST + 2 * PAGE, 2, &len);
	CHECK(p);
	CHECK_EQ(len, 2);
	ram.bytes[3 * PAGE] = 77;
	CHECK_EQ(*p, 77);
	CHECK(guest_mem_user(&mem, VRAM_USER - 64 * PAGE, 1) == p);
	teardown();
}

static void region_need_not_start_at_a_page(void)
{
	struct guest_region r;

	setup(4 * PAGE);
	r = vram_region(&ram);
	r.offset = PAGE + 100;
	r.size = 2 * PAGE;
	CHECK_EQ(guest_mem_set(&mem, &r, 1), 0);
	ram.bytes[PAGE + 100] = 1;
	ram.bytes[3 * PAGE + 99] = 2;
	CHECK_EQ(*guest_mem_at(&mem, VRAM_GUEST, 1), 1);
	CHECK_EQ(*guest_mem_at(&mem, VRAM_GUEST + 2 * PAGE - 1, 1), 2);
	CHECK(!guest_mem_at(&mem, VRAM_GUEST + 2 * PAGE, 1));
	teardown();
}

static int set_one(uint64_t guest, uint64_t size, uint64_t user,
		   uint64_t offset)
{
	struct guest_region r = { guest, size, user, offset, ram.fd };

	return guest_mem_set(&mem, &r, 1);
}

static void unsound_regions_are_refused(void)
{
	const uint64_t g = VRAM_GUEST, u = VRAM_USER;

	setup(4 * PAGE);
	CHECK_EQ(set_one(g, 0, u, 0), -EINVAL);
	CHECK_EQ(set_one(g, 4 * PAGE + 1, u, 0), -ENXIO);
	CHECK_EQ(set_one(g, PAGE, u, 3 * PAGE + 1), -ENXIO);
	CHECK_EQ(set_one(g, PAGE, u, UINT64_MAX - 10), -EINVAL);
	CHECK_EQ(set_one(g, UINT64_MAX, u, 0), -EINVAL);
	CHECK_EQ(set_one(UINT64_MAX - 10, PAGE, u, 0), -EINVAL);
	CHECK_EQ(set_one(g, PAGE, UINT64_MAX - 10, 0), -EINVAL);
	CHECK_EQ(set_one(UINT64_MAX - PAGE + 1, PAGE, u, 0), 0);
	CHECK(guest_mem_at(&mem, UINT64_MAX, 1));
	CHECK(!guest_mem_at(&mem, UINT64_MAX, 2));
	teardown();
}

static void only_regular_files_are_mapped(void)
{
	struct guest_region r = { VRAM_GUEST, PAGE, VRAM_USER, 0, -1 };

	setup(4 * PAGE);
	CHECK_EQ(guest_mem_set(&mem, &r, 1), -EBADF);
	r.fd = open("/dev/zero", O_RDWR);
	CHECK_EQ(guest_mem_set(&mem, &r, 1), -EBADF);
	close(r.fd);
	r.fd = open("/proc/self/exe", O_RDONLY);
	CHECK_EQ(guest_mem_set(&mem, &r, 1), -EACCES);
	close(r.fd);
	teardown();
}

static void overlap_and_excess_are_refused_and_change_nothing(void)
{
	struct guest_region r[GUEST_MEM_REGIONS + 1];

	setup(4 * PAGE);
	set();
	r[0] = vram_region(&ram);
	r[0].size = PAGE;
	r[1] = r[0];
	r[1].user += PAGE;
	r[1].guest += PAGE - 1;
	CHECK_EQ(guest_mem_set(&mem, r, 2), -EINVAL);
	r[1].guest += 1;
	CHECK_EQ(guest_mem_set(&mem, r, 2), 0);
	r[1].user -= 1;
	CHECK_EQ(guest_mem_set(&mem, r, 2), -EINVAL);
	for (unsigned i = 0; i <= GUEST_MEM_REGIONS; i++) {
		r[i] = r[0];
		r[i].guest = VRAM_GUEST + i * 16 * PAGE;
		r[i].user = VRAM_USER + i * 16 * PAGE;
	}
	CHECK_EQ(guest_mem_set(&mem, r, GUEST_MEM_REGIONS + 1), -E2BIG);
	CHECK(guest_mem_at(&mem, VRAM_GUEST, 2 * PAGE) == NULL);
	CHECK(guest_mem_at(&mem, VRAM_GUEST + PAGE, PAGE));
	CHECK_EQ(guest_mem_set(&mem, r, GUEST_MEM_REGIONS), 0);
	CHECK(guest_mem_at(&mem, r[31].guest, PAGE));
	CHECK_EQ(guest_mem_set(&mem, NULL, 0), 0);
	CHECK(!guest_mem_at(&mem, VRAM_GUEST, 1));
	teardown();
}

static void seals_are_told(void)
{
	setup(PAGE);
	set();
	CHECK_EQ(mem.unsealed, 1);
	CHECK_EQ(fcntl(ram.fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	set();
	CHECK_EQ(mem.unsealed, 0);
	teardown();
}

static void truncated_memory_reads_as_zero_and_is_told(void)
{
	volatile uint8_t *p;

	setup(64 * PAGE);
	memset(ram.bytes, 0xee, ram.size);
	set();
	p = guest_mem_at(&mem, VRAM_GUEST + 60 * PAGE, 100);
	CHECK_EQ(p[0], 0xee);
	CHECK(!mem.lost);
	CHECK_EQ(ftruncate(ram.fd, 0), 0);
	errno = 123;
	CHECK_EQ(p[0], 0);
	CHECK_EQ(errno, 123);
	CHECK(mem.lost);
	p[1] = 1;
	CHECK_EQ(p[1], 1);
	CHECK_EQ(ftruncate(ram.fd, (off_t)ram.size), 0);
	set();
	CHECK(!mem.lost);
	CHECK_EQ(*guest_mem_at(&mem, VRAM_GUEST, 1), 0);
	teardown();
}

static void loss_is_told_to_the_guest_whose_it_was(void)
{
	struct guest_mem other;
	struct vram other_ram;
	struct guest_region r;

	setup(PAGE);
	set();
	CHECK_EQ(guest_mem_init(&other), 0);
	vram_setup(&other_ram, PAGE);
	r = vram_region(&other_ram);
	CHECK_EQ(guest_mem_set(&other, &r, 1), 0);
	CHECK_EQ(ftruncate(other_ram.fd, 0), 0);
	*(volatile uint8_t *)guest_mem_at(&other, VRAM_GUEST, 1) = 1;
	CHECK(other.lost && !mem.lost);
	guest_mem_free(&other);
	vram_teardown(&other_ram);
	teardown();
}

/* in_child() - Status of a child that does something to die of */
static int in_child(void (*deed)(void))
{
	int status = 0;
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (!pid) {
		close(STDERR_FILENO); /* what a sanitizer says of it */
		deed();
		_exit(0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	return status;
}

static void touch_memory_of_ours(void)
{
	*(volatile uint8_t *)ram.bytes = 1;
}

static void raise_bus(void)
{
	kill(getpid(), SIGBUS);
}

static void foreign_bus_error_still_ends_the_program(void)
{
	setup(PAGE);
	set();
	CHECK_EQ(ftruncate(ram.fd, 0), 0);
	CHECK(in_child(touch_memory_of_ours));
	CHECK(in_child(raise_bus));
	teardown();
}

static void as_many_as_are_guarded_and_no_more(void)
{
	static struct guest_mem many[65];

	for (int i = 0; i < 64; i++)
		CHECK_EQ(guest_mem_init(&many[i]), 0);
	CHECK_EQ(guest_mem_init(&many[64]), -ENFILE);
	guest_mem_free(&many[3]);
	CHECK_EQ(guest_mem_init(&many[64]), 0);
	for (int i = 0; i < 65; i++)
		guest_mem_free(&many[i]);
}

int main(void)
{
	RUN(bytes_are_the_same_under_all_three_addresses);
	RUN(range_ends_where_memory_does);
	RUN(neighbours_are_found_piece_by_piece);
	RUN(region_need_not_start_at_a_page);
	RUN(unsound_regions_are_refused);
	RUN(only_regular_files_are_mapped);
	RUN(overlap_and_excess_are_refused_and_change_nothing);
	RUN(seals_are_told);
	RUN(truncated_memory_reads_as_zero_and_is_told);
	RUN(loss_is_told_to_the_guest_whose_it_was);
	RUN(foreign_bus_error_still_ends_the_program);
	RUN(as_many_as_are_guarded_and_no_more);
	return 0;
}
