/* SPDX-License-Identifier: GPL-2.0-or-later */
/* vhost.h - A virtual machine's rings in the datapath: what vhost-user asks for
 *
 * The front-end's messages are Python's; each of these is what one of them
 * means. All but datapath_vhost_unwatch() return -EOPNOTSUPP when the tap is of
 * another kind.
 */
#ifndef PASSTPY_CORE_VHOST_H
#define PASSTPY_CORE_VHOST_H

#include "core/datapath.h"
#include "link/tap_vhost.h"

/* datapath_vhost_features() - See vhost_set_features() */
int datapath_vhost_features(struct datapath *dp, uint64_t features);

/* datapath_vhost_memory() - See vhost_set_memory() */
int datapath_vhost_memory(struct datapath *dp,
			  const struct guest_region *regions, unsigned n);

/* datapath_vhost_start() - See vhost_start(); from now on kicks are heard */
int datapath_vhost_start(struct datapath *dp, unsigned index,
			 const struct virtq_addr *addr, uint16_t base,
			 int kick_fd, int call_fd);

/* datapath_vhost_call() - See vhost_set_call(); -EINVAL no such queue */
int datapath_vhost_call(struct datapath *dp, unsigned index, int call_fd);

/* datapath_vhost_enable() - Let frames pass, or not
 * Return: 0; -EINVAL no such queue; -ENOTCONN it does not run */
int datapath_vhost_enable(struct datapath *dp, unsigned index, bool enabled);

/**
 * datapath_vhost_stop() - Stop a ring
 * @ret_next:	Filled with the entry that would have been taken next
 *
 * Return: 0; -EINVAL no such queue
 */
int datapath_vhost_stop(struct datapath *dp, unsigned index,
			uint16_t *ret_next);

/* datapath_vhost_unwatch() - Hear no kicks any more; all rings are to stop */
void datapath_vhost_unwatch(struct datapath *dp);

#endif /* PASSTPY_CORE_VHOST_H */
