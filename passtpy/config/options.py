# SPDX-License-Identifier: GPL-2.0-or-later
"""The option table: parsing, --help and docs/options.md all come from these rows.

An option that does nothing has no row: it is refused as unrecognized, which is how
callers find out what a version can do.
"""

from typing import NamedTuple

from passtpy.config import draft as do
from passtpy.config import values
from passtpy.config.draft import Setter

PASTA = frozenset({"pasta"})
PASST = frozenset({"passt"})
BOTH = frozenset({"pasta", "passt"})


class Option(NamedTuple):
    """One row: `metavar` "" is a switch; `action` None ends the reading of the line.

    A `metavar` in brackets is a value that may be missing: `--name` or `--name=VALUE`.
    """

    names: tuple[str, ...]
    group: str
    action: Setter | None
    help: str
    metavar: str = ""
    default: str = ""
    modes: frozenset[str] = BOTH

    @property
    def is_optional(self) -> bool:
        """Tell whether the value may be missing."""
        return self.metavar.startswith("[")

    @property
    def key(self) -> str:
        """Return the first long name, by which the option is known inside."""
        return next(name[2:] for name in self.names if name.startswith("--"))


G_RUN = "Running and logging"
G_NS = "Namespaces"
G_ADDR = "Interfaces and addresses"
G_MAP = "Protocols and address mapping"
G_GUEST = "What the guest is told"
G_PORTS = "Port forwarding"

OPTIONS: tuple[Option, ...] = (
    Option(
        ("-d", "--debug"), G_RUN, do.set_debug, "log the life of every flow; cancels -q"
    ),
    Option(("--trace",), G_RUN, do.set_trace, "log events and packets too; cancels -q"),
    Option(
        ("-q", "--quiet"),
        G_RUN,
        do.set_quiet,
        "log warnings and errors only; cancels -d and --trace",
        default="implied when a command is run",
    ),
    Option(
        ("-f", "--foreground"),
        G_RUN,
        do.switch(foreground=True),
        "stay in the foreground and log to stderr",
        default="run in the background, except when a command is run",
    ),
    Option(
        ("--stats",),
        G_RUN,
        do.field("stats", values.read_stats),
        "write a line of counters every DELAY seconds while they change; needs -f",
        "DELAY",
    ),
    Option(
        ("-e", "--stderr"),
        G_RUN,
        do.warn("option --stderr has no effect and will be dropped"),
        "accepted for its callers, without effect",
    ),
    Option(
        ("-l", "--log-file"),
        G_RUN,
        do.path("log_file", "Invalid log file"),
        "log to this file only",
        "PATH",
        "stderr until in the background, and the system log",
    ),
    Option(
        ("--log-size",),
        G_RUN,
        do.field("log_size", values.read_log_size),
        "limit for the log file; its oldest part is then discarded",
        "BYTES",
        "1048576",
    ),
    Option(
        ("--log-format",),
        G_RUN,
        do.field("log_format", values.read_log_format),
        "form of the log lines: human or json",
        "FORMAT",
        "human",
    ),
    Option(
        ("--runas",),
        G_RUN,
        do.field("runas", values.read_runas),
        "user and group to become: UID, UID:GID, LOGIN or LOGIN:GROUP",
        "ID",
        "nobody when started by root, else unchanged",
    ),
    Option(
        ("-p", "--pcap"),
        G_RUN,
        do.path("pcap", "Invalid pcap path"),
        "write the frames that cross the tap to this capture file",
        "FILE",
    ),
    Option(
        ("-P", "--pid"),
        G_RUN,
        do.path("pid_file", "Invalid PID file"),
        "write the PID of the daemon to this file",
        "FILE",
    ),
    Option(("-h", "--help"), G_RUN, None, "print this text and exit"),
    Option(("--version",), G_RUN, None, "print the version and exit"),
    Option(
        ("--netns",),
        G_NS,
        do.set_netns,
        "serve this network namespace: a path, or a name in /run/netns",
        "PATH|NAME",
        modes=PASTA,
    ),
    Option(
        ("--userns",),
        G_NS,
        do.set_userns,
        "user namespace to join first; cancels --netns-only",
        "PATH",
        modes=PASTA,
    ),
    Option(
        ("--netns-only",),
        G_NS,
        do.set_netns_only,
        "neither join nor create a user namespace; cancels --userns",
        default="implied by --netns without --userns",
        modes=PASTA,
    ),
    Option(
        ("--config-net",),
        G_NS,
        do.switch(config_net=True),
        "set MTU, addresses and routes of the tap; implies --no-ra",
        modes=PASTA,
    ),
    Option(
        ("--no-copy-routes",),
        G_NS,
        do.switch(copy_routes=False),
        "with --config-net, copy default routes only; deprecated",
        modes=PASTA,
    ),
    Option(
        ("--no-copy-addrs",),
        G_NS,
        do.switch(copy_addrs=False),
        "with --config-net, copy one address per family; deprecated",
        modes=PASTA,
    ),
    Option(
        ("--no-netns-quit",),
        G_NS,
        do.switch(netns_quit=False),
        "keep running after the namespace's file is gone",
        modes=PASTA,
    ),
    Option(
        ("-I", "--ns-ifname"),
        G_NS,
        do.field("ns_ifname", values.read_ifname),
        "name of the tap in the namespace",
        "NAME",
        "name of the template interface, or tap0",
        PASTA,
    ),
    Option(
        ("--ns-mac-addr",),
        G_NS,
        do.field("ns_mac", values.read_mac),
        "MAC address of the tap in the namespace",
        "MAC",
        "chosen by the kernel",
        PASTA,
    ),
    Option(
        ("-4", "--ipv4-only"),
        G_ADDR,
        do.switch(ipv4=True, ipv6=False),
        "disable IPv6; the last of -4 and -6 wins",
    ),
    Option(
        ("-6", "--ipv6-only"),
        G_ADDR,
        do.switch(ipv4=False, ipv6=True),
        "disable IPv4; the last of -4 and -6 wins",
    ),
    Option(
        ("-i", "--interface"),
        G_ADDR,
        do.field("interface"),
        "template interface for addresses and routes",
        "NAME",
        "--outbound-if4/6, else the one of the first default route",
    ),
    Option(
        ("-a", "--address"),
        G_ADDR,
        do.set_address,
        "address of the guest, once per family",
        "ADDR[/LEN]",
        "those of the template interface",
    ),
    Option(
        ("-n", "--netmask"),
        G_ADDR,
        do.set_netmask,
        "prefix length for the IPv4 address, or dotted mask",
        "MASK",
        "as on the host; by class for -a",
    ),
    Option(
        ("-g", "--gateway"),
        G_ADDR,
        do.per_family("gateway", values.read_gateway),
        "default router of the guest, once per family",
        "ADDR",
        "the one of the template interface",
    ),
    Option(
        ("-m", "--mtu"),
        G_ADDR,
        do.field("mtu", values.read_mtu),
        "MTU to announce and to set; 0: leave it alone",
        "MTU",
        "65520",
    ),
    Option(
        ("-M", "--mac-addr"),
        G_ADDR,
        do.field("our_mac", values.read_mac),
        "our MAC address as the guest sees it",
        "MAC",
        "9a:55:9a:55:9a:55",
    ),
    Option(
        ("-o", "--outbound"),
        G_ADDR,
        do.per_family("outbound", values.read_outbound),
        "source address of outbound sockets, once per family",
        "ADDR",
        "the kernel's choice",
    ),
    Option(
        ("--outbound-if4",),
        G_ADDR,
        do.field("outbound_if4", values.read_ifname),
        "bind outbound IPv4 sockets to this interface",
        "NAME",
    ),
    Option(
        ("--outbound-if6",),
        G_ADDR,
        do.field("outbound_if6", values.read_ifname),
        "bind outbound IPv6 sockets to this interface",
        "NAME",
    ),
    Option(("--no-tcp",), G_MAP, do.switch(tcp=False), "drop TCP from the guest"),
    Option(("--no-udp",), G_MAP, do.switch(udp=False), "drop UDP from the guest"),
    Option(
        ("--no-icmp",),
        G_MAP,
        do.switch(icmp=False),
        "drop echo requests from the guest; implies --no-ndp",
    ),
    Option(
        ("--multicast-relay",),
        G_MAP,
        do.field("multicast_relay", values.read_groups),
        "relay the guest's requests to these groups, and its membership",
        "[=GROUP[/PORT],...]",
        "off; without a value mDNS, SSDP and 255.255.255.255",
    ),
    Option(
        ("--map-host-loopback",),
        G_MAP,
        do.set_map_host_loopback,
        "address that stands for the host's loopback in the guest, or none",
        "ADDR",
        "the gateway's address",
    ),
    Option(
        ("--no-map-gw",),
        G_MAP,
        do.switch(map_gateway=False),
        "do not map the gateway's address to the host's loopback",
    ),
    Option(
        ("--map-guest-addr",),
        G_MAP,
        do.set_map_guest_addr,
        "address that stands for the host's copy of the guest's own, or none",
        "ADDR",
        "none",
    ),
    Option(
        ("--dns-forward",),
        G_MAP,
        do.per_family("dns_forward", values.read_dns_forward),
        "address at which the guest finds the host's resolver, once per family",
        "ADDR",
        "where the loopback is mapped, if a resolver is there",
    ),
    Option(
        ("--dns-host",),
        G_MAP,
        do.per_family("dns_host", values.read_dns_host),
        "resolver that answers there, once per family",
        "ADDR",
        "the first of the host's resolv.conf",
    ),
    Option(
        ("--no-dhcp",),
        G_GUEST,
        do.switch(dhcp=False),
        "do not answer DHCP",
        default="implied without an IPv4 gateway",
    ),
    Option(
        ("--no-dhcpv6",),
        G_GUEST,
        do.switch(dhcpv6=False),
        "do not answer DHCPv6",
        default="implied without an IPv6 address for the guest",
    ),
    Option(
        ("--no-ndp",),
        G_GUEST,
        do.switch(ndp=False),
        "do not answer neighbour discovery",
    ),
    Option(
        ("--no-ra",),
        G_GUEST,
        do.switch(ra=False),
        "send no router advertisements",
        default="implied by --config-net",
    ),
    Option(
        ("-D", "--dns"),
        G_GUEST,
        do.set_dns,
        "resolver, repeated for more (3 per family), or none",
        "ADDR",
        "those of the host's resolv.conf",
    ),
    Option(
        ("-S", "--search"),
        G_GUEST,
        do.set_search,
        "domains to search, at most 6, or none; may be repeated",
        "DOMAINS",
        "those of the host's resolv.conf",
    ),
    Option(
        ("--dhcp-dns",),
        G_GUEST,
        do.switch(announce_dns=True),
        "announce resolvers by DHCP, DHCPv6 and router advertisements",
        modes=PASTA,
    ),
    Option(
        ("--dhcp-search",),
        G_GUEST,
        do.switch(announce_search=True),
        "announce the domains to search in the same ways",
        modes=PASTA,
    ),
    Option(
        ("--no-dhcp-dns",),
        G_GUEST,
        do.switch(announce_dns=False),
        "do not announce resolvers",
        modes=PASST,
    ),
    Option(
        ("--no-dhcp-search",),
        G_GUEST,
        do.switch(announce_search=False),
        "do not announce domains to search",
        modes=PASST,
    ),
    Option(
        ("-H", "--hostname"),
        G_GUEST,
        do.field("hostname", values.read_hostname),
        "name that DHCP gives the guest, and that a command finds itself on",
        "NAME",
        "none by DHCP; pasta- and the host's name for a command",
    ),
    Option(
        ("--fqdn",),
        G_GUEST,
        do.field("fqdn", values.read_fqdn),
        "full name that DHCP and DHCPv6 give the guest",
        "NAME",
    ),
    Option(
        ("-t", "--tcp-ports"),
        G_PORTS,
        do.ports("tcp-ports"),
        "forward TCP ports of the host to the guest",
        "SPEC",
        "auto",
    ),
    Option(
        ("-u", "--udp-ports"),
        G_PORTS,
        do.ports("udp-ports"),
        "forward UDP ports of the host to the guest",
        "SPEC",
        "auto",
    ),
    Option(
        ("-T", "--tcp-ns"),
        G_PORTS,
        do.ports("tcp-ns"),
        "forward TCP ports of the namespace's loopback to the host's",
        "SPEC",
        "auto",
        PASTA,
    ),
    Option(
        ("-U", "--udp-ns"),
        G_PORTS,
        do.ports("udp-ns"),
        "forward UDP ports of the namespace's loopback to the host's",
        "SPEC",
        "auto",
        PASTA,
    ),
    Option(
        ("--host-lo-to-ns-lo",),
        G_PORTS,
        do.switch(host_lo_to_ns_lo=True),
        "what comes from the host's loopback goes to that of the namespace",
        default="it goes to the namespace's outer address",
        modes=PASTA,
    ),
    Option(
        ("--no-splice",),
        G_PORTS,
        do.switch(splice=False),
        "what comes from the host's loopback takes the way over the tap",
        modes=PASTA,
    ),
    Option(
        ("--splice-only",),
        G_PORTS,
        do.switch(splice_only=True),
        "no tap: forward between loopbacks only; implies --host-lo-to-ns-lo",
        modes=PASTA,
    ),
    Option(
        ("--preserve-source",),
        G_PORTS,
        do.switch(preserve_source=True),
        "loopback flows keep their source address on the far side",
        modes=PASTA,
    ),
    Option(
        ("--freebind",),
        G_PORTS,
        do.switch(freebind=True),
        "listen on addresses that the host does not have (yet)",
    ),
)


class Refused(NamedTuple):
    """An option of another mode, refused with the words that its callers know."""

    names: tuple[str, ...]
    metavar: str
    modes: str

    @property
    def message(self) -> str:
        """Return the words."""
        name = next((n for n in self.names if n == "-s"), self.names[-1])
        return f"{name} is for {self.modes} mode only"


REFUSED: tuple[Refused, ...] = (
    Refused(("-s", "--socket", "--socket-path"), "PATH", "passt / vhost-user"),
    Refused(("-F", "--fd"), "FD", "passt"),
    Refused(("-1", "--one-off"), "", "passt"),
    Refused(("--vhost-user",), "", "vhost-user"),
    Refused(("--print-capabilities",), "", "vhost-user"),
    Refused(("--repair-path",), "PATH", "vhost-user"),
    Refused(("--migrate-exit",), "", "vhost-user"),
    Refused(("--migrate-no-linger",), "", "vhost-user"),
)

PORT_HELP = """\
SPEC is none, auto (the ports on which the other side listens, followed every
second), or [ADDR][%IFNAME]/ and a comma-separated list of
    22            port 22, to the same port of the guest
    22:23         port 22, to port 23 of the guest
    22-80:32-90   a range of ports, to a range of the same length
    ~25-30        not these; alone: all but these and the ephemeral ones"""
