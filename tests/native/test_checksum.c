/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Internet checksum against the plain way, one 16-bit word after the other */

#include <string.h>

#include "base/checksum.h"
#include "test.h"

/* The sum as RFC 1071 defines it, in network order */
static uint16_t plain_sum(const uint8_t *p, size_t len)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < len; i++) {
		sum += i % 2 ? p[i] : (uint32_t)p[i] << 8;
		sum = (sum & 0xffff) + (sum >> 16);
	}
	return htons((uint16_t)sum);
}

/* Whatever the processor can, and what every processor can */
static void check_both(const uint8_t *p, size_t len)
{
	uint16_t plain = plain_sum(p, len);

	CHECK_EQ(csum_fold(csum_add(p, len, 0)), plain);
	CHECK_EQ(csum_fold(csum_add_portable(p, len, 0)), plain);
}

static void fill(struct test_random *r, uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)test_random64(r);
}

static void test_sum_of_the_rfc_example(void)
{
	static const uint8_t data[] = { 0x00, 0x01, 0xf2, 0x03,
					0xf4, 0xf5, 0xf6, 0xf7 };

	CHECK_EQ(csum_fold(csum_add(data, sizeof(data), 0)), htons(0xddf2));
}

static void test_every_length_and_alignment(void)
{
	struct test_random r = { 1 };
	uint8_t buf[400 + 16];

	for (size_t len = 0; len <= 400; len++) {
		for (size_t align = 0; align < 16; align++) {
			fill(&r, buf, sizeof(buf));
			check_both(buf + align, len);
		}
	}
}

static void test_large_and_extreme_data(void)
{
	static uint8_t buf[200000];
	struct test_random r = { 2 };

	for (int i = 0; i < 50; i++) {
		size_t len = test_below(&r, sizeof(buf) - 16);
		size_t align = test_below(&r, 16);

		fill(&r, buf + align, len);
		if (i % 3 == 0)
			memset(buf, 0xff, sizeof(buf));
		check_both(buf + align, len);
	}
}

static void test_parts_of_even_length_add_up(void)
{
	struct test_random r = { 3 };
	uint8_t buf[1000];

	for (int i = 0; i < 1000; i++) {
		size_t cut = test_below(&r, sizeof(buf) / 2) * 2;
		uint64_t sum;

		fill(&r, buf, sizeof(buf));
		sum = csum_add(buf, cut, 0);
		sum = csum_add(buf + cut, sizeof(buf) - cut, sum);
		CHECK_EQ(csum_fold(sum), plain_sum(buf, sizeof(buf)));
	}
}

static void test_a_stored_checksum_sums_to_all_ones(void)
{
	struct test_random r = { 4 };
	uint8_t buf[61];
	uint16_t check;

	for (int i = 0; i < 1000; i++) {
		fill(&r, buf, sizeof(buf));
		memset(buf + 10, 0, 2);
		check = (uint16_t)~csum_fold(csum_add(buf, sizeof(buf), 0));
		memcpy(buf + 10, &check, 2);
		CHECK_EQ(csum_fold(csum_add(buf, sizeof(buf), 0)), 0xffff);
	}
}

static void test_fold_keeps_every_carry(void)
{
	CHECK_EQ(csum_fold(0), 0);
	CHECK_EQ(csum_fold(UINT64_MAX), 0xffff);
	CHECK_EQ(csum_fold(0xffff0000ffff0001), 1);
	CHECK_EQ(csum_fold(0x10000), 1);
}

static void test_pseudo_headers(void)
{
	union inany src, dst;
	uint8_t v4[12], v6[40];

	inany_from_v4(&src, (struct in_addr){ htonl(0xc0000205) });
	inany_from_v4(&dst, (struct in_addr){ htonl(0xfffefdfc) });
	memcpy(v4, &src.v4.a4, 4);
	memcpy(v4 + 4, &dst.v4.a4, 4);
	memcpy(v4 + 8, "\0\x11\xab\xcd", 4);
	CHECK_EQ(csum_fold(csum_pseudo(&src, &dst, 17, 0xabcd)),
		 plain_sum(v4, sizeof(v4)));

	memset(&src, 0xfe, sizeof(src));
	memset(&dst, 0xff, sizeof(dst));
	memcpy(v6, &src, 16);
	memcpy(v6 + 16, &dst, 16);
	memcpy(v6 + 32, "\0\1\xab\xcd\0\0\0\x3a", 8);
	CHECK_EQ(csum_fold(csum_pseudo(&src, &dst, 58, 0x1abcd)),
		 plain_sum(v6, sizeof(v6)));
}

int main(void)
{
	RUN(test_sum_of_the_rfc_example);
	RUN(test_every_length_and_alignment);
	RUN(test_large_and_extreme_data);
	RUN(test_parts_of_even_length_add_up);
	RUN(test_a_stored_checksum_sums_to_all_ones);
	RUN(test_fold_keeps_every_carry);
	RUN(test_pseudo_headers);
	return 0;
}
