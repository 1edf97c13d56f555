/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A whole datapath on a tap device */

#include "datapath.h"

FUZZ_DATAPATH("tun")
