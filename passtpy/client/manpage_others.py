# SPDX-License-Identifier: GPL-2.0-or-later
"""Manual pages of the programs that stand in for others, made of what --help prints."""

import re

from passtpy import __version__
from passtpy.config.cni import COMMANDS, POLICY_ANNOTATION, VERSIONS
from passtpy.config.manpage import DATE, escape, fold, sentence
from passtpy.config.slirp import USAGE as SLIRP_USAGE
from passtpy.pesto import USAGE as PESTO_USAGE

PESTO_HEAD = rf"""
.\" Made by `python -m passtpy.client.manpage pesto`; change passtpy/pesto.py.
.TH PASSTPY\-PESTO 1 "{DATE}" "passtpy {__version__}" "User Commands"
.SH NAME
passtpy\-pesto \- show or change the ports that a running daemon forwards
.SH SYNOPSIS
.B passtpy\-pesto
.RI [ OPTION ].\|.\|.\& " " PATH
.SH DESCRIPTION
"""

PESTO_TAIL = r"""
.SH EXIT STATUS
.TP
.B 0
The ports are as the line says, and open.
.TP
.B 1
It failed; a line on standard error tells why.
.SH FILES
.TP
.I PATH
The socket that option
.B \-c
of
.BR passtpy\-pasta (1)
or
.BR passtpy\-passt (1)
named. The user who started the daemon, and root, may change it.
.SH EXAMPLES
.TP
.B passtpy\-pesto /tmp/web.conf
Print which ports are forwarded.
.TP
.B passtpy\-pesto \-A \-t 8080:80 /tmp/web.conf
Forward one more.
.TP
.B passtpy\-pesto \-D \-t 8080:80 /tmp/web.conf
Forward it no more.
.TP
.B passtpy\-pesto \-s \-t 8443:443 /tmp/web.conf
Forward this one and no other TCP port of the host; print what was and what is.
.SH SEE ALSO
.BR passtpy (1),
.BR passtpy\-passt (1),
.BR passtpy\-pasta (1)
"""

SLIRP_HEAD = rf"""
.\" Made by `python -m passtpy.client.manpage slirp4netns`; see passtpy/client/.
.TH PASSTPY\-SLIRP4NETNS 1 "{DATE}" "passtpy {__version__}" "User Commands"
.SH NAME
passtpy\-slirp4netns \- connect a network namespace, in the place of slirp4netns
.SH SYNOPSIS
.B passtpy\-slirp4netns
.RI [ OPTION ].\|.\|.\& " " PID | PATH " " TAPNAME
.SH DESCRIPTION
"""

SLIRP_TAIL = r"""
.SH ADDRESSES
.TP
.B 10.0.2.100
The guest, with
.B \-\-configure
or by DHCP.
.TP
.B 10.0.2.2
The gateway, and the host's loopback.
.TP
.B 10.0.2.3
The host's resolver.
.PP
.B \-\-cidr
moves all three to another network. With
.B \-\-enable\-ipv6
fd00::100, fd00::2 and fd00::3 are the same.
.SH EXIT STATUS
.TP
.B 0
It has ended as it should: by a signal, or because
.I FD
of
.B \-\-exit\-fd
was closed.
.TP
.B 1
It failed; a line on standard error tells why.
.SH EXAMPLES
.TP
.B passtpy\-slirp4netns \-\-configure \-\-mtu=65520 $PID tap0
Give the namespace of a process a network, and stay until a signal comes.
.TP
.B ln \-s $(command \-v passtpy\-slirp4netns) /usr/local/bin/slirp4netns
Have podman 4, buildah and rootlesskit find it by the name that they know.
.SH SEE ALSO
.BR passtpy (1),
.BR passtpy\-pasta (1),
.BR network_namespaces (7)
"""

CNI_PAGE = rf"""
.\" Made by `python -m passtpy.client.manpage cni`; see passtpy/client/.
.TH PASSTPY\-CNI 1 "{DATE}" "passtpy {__version__}" "User Commands"
.SH NAME
passtpy\-cni \- plugin by which container runtimes give pods their network
.SH SYNOPSIS
.B CNI_COMMAND=\c
.I COMMAND
.B passtpy\-cni <
.I CONFIGURATION
.SH DESCRIPTION
Container runtimes call it, people do not: it is a plugin of the Container Network
Interface, versions {VERSIONS[0]} to {VERSIONS[-1]}. The commands are
{", ".join(COMMANDS)}. For each interface of a
pod it starts one
.BR passtpy\-pasta (1),
which ends with the pod. It takes no options, reads a network's configuration from
standard input, and prints its result or an error there as JSON.
.PP
Besides what the specification names, a configuration may have these keys:
.TP
.B policy
Path of the policy of each pod; without it there is none.
.TP
.B policies
Folder of the policies that a pod may choose from by the annotation
.BR {escape(POLICY_ANNOTATION)} ,
without
.IR .toml .
.TP
.B options
More options of
.BR passtpy\-pasta (1),
as a list.
.SH EXIT STATUS
.TP
.B 0
Done.
.TP
.B 1
It failed; the JSON on standard output tells why.
.SH FILES
.TP
.I /run/passtpy/cni/NETWORK/
A PID file for each interface of the network.
.SH EXAMPLES
A network of which each pod has a policy:
.PP
.nf
{{
  "cniVersion": "1.0.0",
  "name": "passtpy",
  "plugins": [{{
    "type": "passtpy\-cni",
    "capabilities": {{"portMappings": true}},
    "policy": "/etc/passtpy/default.toml"
  }}]
}}
.fi
.SH SEE ALSO
.BR passtpy (1),
.BR passtpy\-pasta (1)
"""


def pesto_manpage() -> str:
    """Return the page of passtpy-pesto."""
    _, about, options, rest = PESTO_USAGE.rstrip().split("\n\n")
    return _page(PESTO_HEAD, about, options, rest, PESTO_TAIL)


def slirp_manpage() -> str:
    """Return the page of passtpy-slirp4netns."""
    _, about, options = SLIRP_USAGE.rstrip().split("\n\n")
    return _page(SLIRP_HEAD, about, options, "", SLIRP_TAIL)


def cni_manpage() -> str:
    """Return the page of passtpy-cni, which has no --help."""
    return fold(CNI_PAGE.lstrip())


def _page(head: str, about: str, options: str, rest: str, tail: str) -> str:
    lines = [escape(about.replace("\n", " ")), ".SH OPTIONS"]
    for line in options.splitlines():
        name, meaning = re.split(r"  +", line.strip(), maxsplit=1)
        lines += [".TP", rf"\fB{escape(name)}\fR", escape(sentence(meaning))]
    if rest:
        lines += [".PP", escape(rest.replace("\n", " "))]
    return fold(head.lstrip() + "\n".join(lines) + tail)
