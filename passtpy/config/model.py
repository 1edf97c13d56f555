# SPDX-License-Identifier: GPL-2.0-or-later
"""What the user asked for, validated: the only form in which other layers see it.

Nothing here is a default taken from the host: those live in `HostInfo`. A value of
None means "the user did not say".
"""

from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from passtpy.addr import Address, Mac
from passtpy.config.impair import Impairment
from passtpy.config.passed import Passed, Wanted
from passtpy.config.portrule import PortRule
from passtpy.config.zones import ZoneEntry
from passtpy.log import DEFAULT_LOG_SIZE, LogFormat, LogLevel
from passtpy.record import record

DEFAULT_MTU = 65520
DEFAULT_MAC: Mac = bytes.fromhex("9a559a559a55")


@record
class SpawnCommand:
    """Run `argv` in new namespaces; an empty `argv` is the login shell."""

    argv: tuple[str, ...] = ()


@record
class AttachPid:
    """Serve the network namespace of a running process."""

    pid: int


@record
class AttachPath:
    """Serve the network namespace mounted at `path`."""

    path: str


@record
class ServeSocket:
    """Wait for virtual machines at a UNIX socket; None: at a free default path."""

    path: str | None = None


@record
class ServeFd:
    """Serve the virtual machine behind a connected socket that we inherited."""

    fd: int


Machine = ServeSocket | ServeFd
Target = SpawnCommand | AttachPid | AttachPath | Machine


class UdpFilter(StrEnum):
    """Who may answer a UDP socket of the guest: RFC 4787 section 5."""

    ADDRESS = "address"  # any port of an address that it has sent to
    ENDPOINT = "endpoint"  # the very address and port that it has sent to


class Seccomp(StrEnum):
    """What becomes of a system call that no process of ours should make."""

    KILL = "kill"  # the process ends
    LOG = "log"  # it is done, and the kernel's log tells
    OFF = "off"  # it is done


@record
class RunAs:
    """The user and group to become."""

    uid: int
    gid: int


@record
class RelayGroup:
    """A multicast group, or the limited broadcast address, that is relayed.

    Without a port all requests are, but nothing that is sent to the group itself.
    """

    address: Address
    port: int | None = None

    def __str__(self) -> str:
        return str(self.address) if self.port is None else f"{self.address}/{self.port}"


@record(kw_only=True)
class Config:
    """Everything that the command line of either program can say."""

    target: Target = SpawnCommand()
    userns: str | None = None
    netns_only: bool = False
    config_net: bool = False
    copy_routes: bool = True  # all of the template's, or only default routes
    copy_addrs: bool = True  # all of the template's, or one per family
    netns_quit: bool = True
    one_off: bool = False  # end with the first virtual machine
    vhost_user: bool = False  # its frames come through rings, not the socket
    foreground: bool = False
    runas: RunAs | None = None
    seccomp: Seccomp = Seccomp.KILL
    chroot_fallback: bool = False  # where the root cannot be exchanged
    pid_file: str | None = None
    pcap: str | None = None
    name: str | None = None  # of this instance; None: its PID
    control: str | None = None  # where its control socket is; None: the usual place
    control_enabled: bool = True
    conf_path: str | None = None  # where pesto's protocol is spoken
    api_socket: str | None = None  # slirp4netns'
    gvproxy_services: str | None = None
    unix_folders: tuple[str, ...] = ()  # where UNIX sockets may become ends later
    metrics: tuple[Address, int] | None = None  # where Prometheus may ask, over TCP
    stats: int = 0  # seconds between lines of counters; 0: none
    drain_timeout: int = 0  # seconds that open connections have after a SIGTERM

    log_level: LogLevel = LogLevel.INFO
    log_format: LogFormat = LogFormat.HUMAN
    log_file: str | None = None
    log_size: int = DEFAULT_LOG_SIZE
    log_files: int = 1  # of that size; more: a full one gets another name
    warnings: tuple[str, ...] = ()  # to be logged once logging is set up

    ipv4: bool = True  # False with -6
    ipv6: bool = True  # False with -4
    tcp: bool = True
    udp: bool = True
    icmp: bool = True
    ndp: bool = True
    ra: bool = True
    dhcp: bool = True
    dhcpv6: bool = True

    interface: str | None = None  # template interface (-i)
    ns_ifname: str | None = None
    mtu: int = DEFAULT_MTU  # 0: neither announce nor set one
    our_mac: Mac = DEFAULT_MAC
    ns_mac: Mac | None = None
    address4: IPv4Address | None = None
    prefix4: int | None = None
    address6: IPv6Address | None = None
    prefix6: int | None = None
    gateway4: IPv4Address | None = None
    gateway6: IPv6Address | None = None

    outbound4: IPv4Address | None = None
    outbound6: IPv6Address | None = None
    outbound_if4: str | None = None
    outbound_if6: str | None = None

    udp_filter: UdpFilter = UdpFilter.ADDRESS
    multicast_relay: tuple[RelayGroup, ...] = ()
    map_gateway: bool = True  # gateway -> host loopback unless mapped explicitly
    map_host_loopback4: IPv4Address | None = None
    map_host_loopback6: IPv6Address | None = None
    map_guest_addr4: IPv4Address | None = None
    map_guest_addr6: IPv6Address | None = None
    made_up: tuple[IPv4Network | IPv6Network, ...] = ()  # nothing is there but us

    policy: str | None = None  # file that says what the guest may reach
    policy_words: tuple[tuple[str, str], ...] = ()  # of --allow and --deny, in order
    policy_mode: str | None = None
    learn: str | None = None  # file for the smallest policy, or "-"
    own_resolver: bool = False  # the command's resolv.conf names ours
    audit: str | None = None  # file for refusals, or "journald"
    rate_in: int = 0  # bytes a second of all flows towards the guest; 0: any number
    rate_out: int = 0
    impair: Impairment | None = None  # how the link to the guest is made worse

    # DNS to dns_forward goes to dns_host, both as long as dns_enabled.
    dns_enabled: bool = True
    dns_server: bool = False  # we answer every question ourselves
    dns_records: tuple[ZoneEntry, ...] = ()
    dns_forward4: IPv4Address | None = None
    dns_forward6: IPv6Address | None = None
    dns_host4: IPv4Address | None = None  # None: the first of resolv.conf
    dns_host6: IPv6Address | None = None
    dns: tuple[Address, ...] | None = None  # (): none; None: those of resolv.conf
    search: tuple[str, ...] | None = None
    announce_dns: bool = False  # tell the guest of resolvers, of the search list
    announce_search: bool = False
    hostname: str | None = None
    fqdn: str | None = None

    host_ports: tuple[PortRule, ...] = ()  # sockets on the host, to the guest
    wanted_sockets: tuple[Wanted, ...] = ()  # passed by who starts us; see passed.py
    passed_sockets: tuple[Passed, ...] = ()  # these, whose ports are in host_ports
    ns_ports: tuple[PortRule, ...] = ()  # in the namespace, to the host's loopback
    splice: bool = True  # loopback flows bypass the tap
    splice_only: bool = False  # there is no tap
    host_lo_to_ns_lo: bool = False
    preserve_source: bool = False
    freebind: bool = False

    @property
    def has_policy(self) -> bool:
        """Tell whether anything is said about what the guest may reach."""
        said = self.policy, self.policy_words, self.policy_mode, self.learn
        return any(said)

    @property
    def for_machine(self) -> bool:
        """Tell whether the guest is a virtual machine: we are passt, not pasta."""
        return isinstance(self.target, Machine)

    @property
    def program(self) -> str:
        """Return which of the two programs we are."""
        return "passt" if self.for_machine else "pasta"
