/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A whole datapath on the rings of a machine */

#include "datapath.h"

FUZZ_DATAPATH("vhost")
