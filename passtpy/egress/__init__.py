# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest may reach: decided by name, network and port; no clock, no socket.

The base list of policy/ says where a flow goes. Of a flow that it sends to the host,
this room says whether the guest may have it. Without a policy nobody imports it.
"""
