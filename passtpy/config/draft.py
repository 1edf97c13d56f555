# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line while it is being read: what each option does to what was said.

Setters are named in the option table. finish() checks what only the whole line can
tell, and freezes the result.
"""

from collections.abc import Callable, Sequence
from typing import Any

from passtpy.addr import Address
from passtpy.config import values
from passtpy.config.impair import read_impair
from passtpy.config.late import read_late
from passtpy.config.model import (
    AttachPath,
    AttachPid,
    Config,
    Machine,
    ServeFd,
    ServeSocket,
    SpawnCommand,
    Target,
)
from passtpy.config.ports import DEFAULT_EPHEMERAL
from passtpy.config.ports import Span as PortSpan
from passtpy.config.resolver import MAX_SEARCH
from passtpy.config.unixend import read_folder
from passtpy.config.zones import ZoneEntry, read_entry
from passtpy.errors import ConfigError
from passtpy.log import LogLevel

MIN_MTU6 = 1280
MAX_RESOLVERS = 3  # per family; what a C library asks
NO_MIGRATION = "option {} has no effect: flows do not migrate"

_DNS_FIELDS = ("dns_forward4", "dns_forward6", "dns_host4", "dns_host6")
_OF_MACHINES: dict[str, Any] = {
    "announce_dns": True,
    "announce_search": True,
    "splice": False,  # there is no other side's loopback to reach
}
_IMPLIED: dict[str, dict[str, Any]] = {
    "pasta": {},
    "passt": _OF_MACHINES,
    "vhost-user": _OF_MACHINES | {"vhost_user": True},
}


class Draft:
    """Fields of Config said so far, and what is decided at the end."""

    def __init__(
        self, ephemeral: PortSpan = DEFAULT_EPHEMERAL, mode: str = "pasta"
    ) -> None:
        self.mode = mode  # "pasta", "passt" or "vhost-user"
        self.fields: dict[str, Any] = dict(_IMPLIED[mode])
        self.machine: Machine = ServeSocket()
        self.warnings: list[str] = []
        self.quiet = self.debug = self.trace = False
        self.netns: str | None = None
        self.prefix_from_address: int | None = None
        self.netmask: int | None = None
        self.ephemeral = ephemeral
        self.late_words: list[tuple[str, str]] = []  # see late.py

    def family(self, addr: Address) -> str:
        """Return the suffix of per-family fields."""
        return "4" if addr.version == 4 else "6"

    def set_per_family(self, name: str, addr: Address) -> None:
        """Say a field of one family; the last one wins."""
        self.fields[name + self.family(addr)] = addr

    def target(self, words: Sequence[str]) -> Target:
        """Decide which guest it is about."""
        if self.mode != "pasta":
            if words:
                raise ConfigError(f"Extra non-option argument: {words[0]}")
            return self.machine
        if self.netns is not None:
            if words:
                raise ConfigError("Both --netns and PID or command given")
            return AttachPath(self.netns)
        if len(words) == 1 and words[0].isascii() and words[0].isdigit():
            return AttachPid(values.read_pid(words[0]))
        return SpawnCommand(tuple(words))

    def _level(self, target: Target) -> LogLevel:
        if self.trace:
            return LogLevel.TRACE
        if self.debug:
            return LogLevel.DEBUG
        if self.quiet or isinstance(target, SpawnCommand):
            return LogLevel.QUIET  # the terminal belongs to the command
        return LogLevel.INFO

    def _finish_prefixes(self) -> None:
        addr4 = self.fields.get("address4")
        if self.netmask is not None:
            self.fields["prefix4"] = self.netmask
        elif addr4 is not None and self.fields.get("prefix4") is None:
            self.fields["prefix4"] = values.classful_prefix(addr4)

    def _finish_mtu(self) -> None:
        mtu = self.fields.get("mtu")
        if not mtu:
            return
        if self.fields.get("ipv6", True) and mtu < MIN_MTU6:
            self.warnings.append(f"MTU {mtu} is too small for IPv6 (minimum 1280)")

    def _finish_splice(self) -> None:
        for name in ("splice_only", "host_lo_to_ns_lo"):
            if self.fields.get(name) and not self.fields.get("splice", True):
                option = f"--{name.replace('_', '-')}"
                raise ConfigError(f"{option} is incompatible with --no-splice")
        if self.fields.get("splice_only"):
            self.fields.update(host_lo_to_ns_lo=True, icmp=False)

    def _finish_copies(self) -> None:
        for what in ("routes", "addrs"):
            option = f"--no-copy-{what}"
            if self.fields.get(f"copy_{what}", True):
                continue
            if not self.fields.get("config_net"):
                raise ConfigError(f"{option} needs --config-net")
            self.warnings.append(f"option {option} will be dropped")

    def lose_ipv6(self) -> None:
        """Do without IPv6, which this kernel does not know."""
        if not self.fields.get("ipv4", True):
            raise ConfigError("IPv6 not available but --ipv6-only given")
        self.fields["ipv6"] = False

    def finish(self, words: Sequence[str]) -> Config:
        """Check the line as a whole and freeze it."""
        target = self.target(words)
        self._finish_prefixes()
        self._finish_mtu()
        self._finish_splice()
        self._finish_copies()
        spawns = isinstance(target, SpawnCommand)
        implied: dict[str, Any] = {
            "target": target,
            "log_level": self._level(target),
            "warnings": tuple(self.warnings),
        }
        implied |= read_late(self.late_words, self.fields, self.ephemeral, self.mode)
        if isinstance(target, ServeFd):
            implied["one_off"] = True
        if self.fields.get("splice_only"):
            implied["dns_enabled"] = False
        said = ("policy", "policy_words", "policy_mode", "learn")
        if self.fields.get("audit") and not any(map(self.fields.get, said)):
            raise ConfigError("--audit needs --policy, --allow or --deny")
        if self.fields.get("learn"):
            implied["policy_mode"] = "observe"
        if spawns:
            implied["foreground"] = True
        elif self.fields.get("stats") and not self.fields.get("foreground"):
            raise ConfigError("Can't display statistics if not running in foreground")
        if isinstance(target, AttachPath) and not self.fields.get("userns"):
            implied["netns_only"] = True
        if not self.fields.get("icmp", True):
            implied["ndp"] = False
        return Config(**(self.fields | implied))


Setter = Callable[[Draft, str], None]


def switch(**fields: object) -> Setter:
    """Return a setter that says these fields."""

    def set_fields(draft: Draft, _: str) -> None:
        draft.fields.update(fields)

    return set_fields


def field(name: str, read: Callable[[str], object] = str) -> Setter:
    """Return a setter that reads a value into one field; the last one wins."""

    def set_field(draft: Draft, value: str) -> None:
        draft.fields[name] = read(value)

    return set_field


def path(name: str, what: str, most: int = values.MAX_PATH) -> Setter:
    """Return a setter for a path field of at most so many bytes."""
    return field(name, lambda value: values.read_path(value, what, most))


def per_family(name: str, read: Callable[[str], Address]) -> Setter:
    """Return a setter for an address that exists once per family."""

    def set_address(draft: Draft, value: str) -> None:
        draft.set_per_family(name, read(value))

    return set_address


def warn(text: str) -> Setter:
    """Return a setter that only warns: the option is accepted for its callers."""

    def add_warning(draft: Draft, _: str) -> None:
        draft.warnings.append(text)

    return add_warning


def ports(option: str) -> Setter:
    """Return a setter that keeps a port specification for the end of the line."""

    def add_ports(draft: Draft, value: str) -> None:
        draft.late_words.append((option, value))

    return add_ports


def set_dns(draft: Draft, value: str) -> None:
    """-D adds a resolver; `none` takes back what came before, and the forwarding."""
    fields = draft.fields
    if value == values.NONE:
        fields.update(dict.fromkeys(_DNS_FIELDS), dns=(), dns_enabled=False)
        return
    addr = values.read_resolver(value)
    known: tuple[Address, ...] = fields.get("dns") or ()
    of_family = sum(other.version == addr.version for other in known)
    if of_family < MAX_RESOLVERS and addr not in known:
        known = (*known, addr)
    fields.update(dns=known, dns_enabled=True)


def add_dns_record(draft: Draft, value: str) -> None:
    """--dns-record adds names that we answer, which only a server of our own does."""
    known: tuple[ZoneEntry, ...] = draft.fields.get("dns_records") or ()
    records = (*known, read_entry(value))
    draft.fields.update(dns_records=records, dns_server=True)


def add_unix_folder(draft: Draft, value: str) -> None:
    """--unix-folder adds one."""
    known: tuple[str, ...] = draft.fields.get("unix_folders", ())
    folder = read_folder(value)
    if folder not in known:
        draft.fields["unix_folders"] = (*known, folder)


def add_impairment(draft: Draft, value: str) -> None:
    """Make the link worse still."""
    draft.fields["impair"] = read_impair(value, draft.fields.get("impair"))


def policy_word(action: str) -> Setter:
    """Return a setter that adds a rule; egress/ reads it, which few ever load."""

    def add_word(draft: Draft, value: str) -> None:
        words: tuple[tuple[str, str], ...] = draft.fields.get("policy_words", ())
        draft.fields["policy_words"] = (*words, (action, value))

    return add_word


def set_search(draft: Draft, value: str) -> None:
    """-S adds domains; `none` takes back what came before it."""
    if value == values.NONE:
        draft.fields["search"] = ()
        return
    search = list(draft.fields.get("search") or ())
    for domain in values.read_search(value):
        if len(search) == MAX_SEARCH:
            raise ConfigError(f"Cannot use DNS search domain {domain}")
        if domain not in search:
            search.append(domain)
    draft.fields["search"] = tuple(search)


def set_quiet(draft: Draft, _: str) -> None:
    """-q cancels -d and --trace."""
    draft.quiet, draft.debug, draft.trace = True, False, False


def set_debug(draft: Draft, _: str) -> None:
    """-d cancels -q."""
    draft.quiet, draft.debug = False, True


def set_trace(draft: Draft, _: str) -> None:
    """--trace includes -d and cancels -q."""
    draft.quiet, draft.debug, draft.trace = False, True, True


def set_address(draft: Draft, value: str) -> None:
    """-a: a prefix length belongs here or in -n, not in both."""
    addr, prefix = values.read_address(value)
    if prefix is not None and draft.netmask is not None:
        raise ConfigError("Redundant prefix length specification")
    draft.set_per_family("address", addr)
    draft.fields["prefix" + draft.family(addr)] = prefix
    if prefix is not None:
        draft.prefix_from_address = prefix


def set_netmask(draft: Draft, value: str) -> None:
    """-n: see -a."""
    if draft.prefix_from_address is not None:
        raise ConfigError("Redundant prefix length specification")
    draft.netmask = values.read_netmask(value)


def set_netns(draft: Draft, value: str) -> None:
    """--netns: a path or a name."""
    draft.netns = values.read_netns(value)


def set_socket(draft: Draft, value: str) -> None:
    """-s cancels an earlier --fd."""
    draft.machine = ServeSocket(values.read_socket_path(value))


def set_fd(draft: Draft, value: str) -> None:
    """--fd cancels an earlier -s."""
    draft.machine = ServeFd(values.read_fd(value))


def set_repair_path(draft: Draft, value: str) -> None:
    """--repair-path is for migration, which nobody is offered; `none` says so too."""
    if value == values.NONE:
        return
    if draft.mode != "vhost-user":
        raise ConfigError("--repair-path is for vhost-user mode only")
    draft.warnings.append(NO_MIGRATION.format("--repair-path"))


def set_control(draft: Draft, value: str) -> None:
    """--control: `none` turns it off."""
    on = value != values.NONE
    what, most = "Invalid control socket", values.MAX_SOCKET_PATH
    path = values.read_path(value, what, most) if on else None
    draft.fields.update(control=path, control_enabled=on)


def set_userns(draft: Draft, value: str) -> None:
    """--userns cancels an earlier --netns-only."""
    userns = values.read_path(value, "Invalid userns")
    draft.fields.update(userns=userns, netns_only=False)


def set_netns_only(draft: Draft, _: str) -> None:
    """--netns-only cancels an earlier --userns."""
    draft.fields.update(userns=None, netns_only=True)


def set_map_host_loopback(draft: Draft, value: str) -> None:
    """`none` takes back both families and the gateway's default mapping."""
    addr = values.read_remap(value)
    if addr is None:
        draft.fields.update(
            map_host_loopback4=None, map_host_loopback6=None, map_gateway=False
        )
    else:
        draft.set_per_family("map_host_loopback", addr)


def set_map_guest_addr(draft: Draft, value: str) -> None:
    """`none` takes back both families."""
    addr = values.read_remap(value)
    if addr is None:
        draft.fields.update(map_guest_addr4=None, map_guest_addr6=None)
    else:
        draft.set_per_family("map_guest_addr", addr)
