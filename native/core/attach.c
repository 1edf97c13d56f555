/* SPDX-License-Identifier: GPL-2.0-or-later */
/* attach.c - Guests that come and go while the datapath stays
 *
 * Flows do not end with their guest's connection to us: a virtual machine that
 * goes on behind a new one finds them where they were, and TCP sends again what
 * was lost. One that was started anew knows none of them, and answers with RST.
 */

#include <errno.h>

#include "core/datapath.h"
#include "core/dispatch.h"
#include "core/gate.h"

int datapath_attach(struct datapath *dp, int fd)
{
	struct ctx *c = &dp->ctx;
	int err;

	if (!c->tap.ops->detach) /* the guest that it has is its only one */
		return -EOPNOTSUPP;
	err = tap_attach(&c->tap, fd);
	if (!err)
		gate_sync(dp);
	return err;
}

void datapath_detach(struct datapath *dp)
{
	struct ctx *c = &dp->ctx;

	if (!c->tap.ops->detach)
		return;
	tap_detach(&c->tap);
	dispatch_forget(dp);
	gate_sync(dp);
}

int datapath_take_gone(struct datapath *dp)
{
	int err = dp->gone;

	if (!err)
		return 0;
	/* Without a next guest every turn ends at once: nothing can follow */
	if (dp->ctx.tap.ops->detach)
		dp->gone = 0;
	else if (dp->gone_told)
		return 0;
	dp->gone_told = true;
	return err;
}
