/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tap_faults.h - Frames lost and reordered on request, debug builds only
 *
 * Sits between tap.c and the backend. A frame is lost with one probability and
 * held back with another; a held frame goes on after the next one to three
 * frames of its direction, or when the datapath has nothing else to do. So a
 * reordered frame is never a lost one.
 */
#ifndef PASSTPY_LINK_TAP_FAULTS_H
#define PASSTPY_LINK_TAP_FAULTS_H

#include "link/tap.h"

#ifdef PASSTPY_FAULTS

enum { FAULT_FROM_GUEST, FAULT_TO_GUEST };

int tap_faults_init(struct tap *t); /* off; 0 or -ENOMEM */
void tap_faults_free(struct tap *t);

/* tap_faults_set() - Start or (zero rates) stop; rates are per million */
void tap_faults_set(struct tap *t, uint32_t drop_ppm, uint32_t reorder_ppm,
		    uint64_t seed);

/**
 * tap_faults_parse() - Set from text: "drop_ppm=1000,reorder_ppm=10000,seed=1"
 * @text:	Any of the three, in any order; what is about calls (faults.h) is
 *		passed over
 *
 * Return: 0 or -EINVAL
 */
int tap_faults_parse(struct tap *t, const char *text);

/* tap_faults_read() - Apply faults to the batch in t->rx
 * @n:		Frames in it
 * Return: frames in it now */
int tap_faults_read(struct tap *t, int n);

/**
 * tap_faults_write() - Send a frame through the faults
 *
 * Return: 0 when it was sent, held or lost; -errno of the backend
 */
int tap_faults_write(struct tap *t, struct frame_out *f,
		     const struct iovec *payload, unsigned n, uint32_t len);

/**
 * tap_faults_settle() - Nothing else is coming: let held frames go
 *
 * Return: true when a held frame of the guest waits for the next tap_read()
 */
bool tap_faults_settle(struct tap *t);

#else

static inline bool tap_faults_settle(struct tap *t)
{
	(void)t;
	return false;
}

#endif /* PASSTPY_FAULTS */

#endif /* PASSTPY_LINK_TAP_FAULTS_H */
