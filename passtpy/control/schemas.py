# SPDX-License-Identifier: GPL-2.0-or-later
"""Says in JSON Schema what forwards look like, for the OpenAPI document.

What an argument is in general, its declaration says. A test compares the rest with what
the verbs take and give.
"""

from typing import Any, Final

from passtpy.config.portrule import MAX_PORT, Side

Schema = dict[str, Any]

MAX_SPECS: Final = 1000  # in one batch, and rules: many more than tables hold
MAX_SPEC: Final = 16 * 1024  # characters of one
# How a specification names its table and protocol; long names as on command lines.
SPEC_KINDS: Final = {
    "tcp": "tcp-ports",
    "udp": "udp-ports",
    "tcp-ns": "tcp-ns",
    "udp-ns": "udp-ns",
}


def _optional(kind: str, text: str) -> Schema:
    return {"type": [kind, "null"], "description": text}


def _port(text: str, least: int = 0) -> Schema:
    bounds = {"minimum": least, "maximum": MAX_PORT}
    return {"type": "integer", "description": text, **bounds}


def _plain(kind: str, text: str) -> Schema:
    return {"type": kind, "description": text}


SPEC: Final[Schema] = {
    "type": "string",
    "description": (
        "`KIND:PORTS`. `tcp` and `udp` listen on the host, as -t and -u do; `tcp-ns`"
        " and `udp-ns` in the namespace, as -T and -U do. PORTS is what these options"
        " take: `[ADDRESS[%INTERFACE]/]PORT[-PORT][:[TARGET/]PORT[-PORT]]`, where more"
        " ports may follow a comma; `~PORT[-PORT]` leaves ports out, `auto` and `all`"
        " take whatever there is, `proxy=v1` and `proxy=v2` tell the server who its"
        " client is. At a UNIX socket of the host, in a folder of --unix-folder,"
        " begins `tcp:unix:PATH:PORT`, and"
        " `tcp-ns:PORT:unix:PATH` ends at one."
    ),
    "pattern": f"^({'|'.join(SPEC_KINDS)}):.",
    "maxLength": MAX_SPEC,
    "examples": [
        "tcp:8080:80",
        "udp:127.0.0.1/5353:53",
        "tcp:[::1]/8000-8010,~8005",
        "tcp:0.0.0.0/2222:192.0.2.9/22",
        "tcp-ns:5432",
    ],
}

IDS: Final[Schema] = {"type": "integer", "description": "`id` of a forward"}

_FIELDS: Final[Schema] = {
    "id": _plain("integer", "its id as long as it stands"),
    "table": {"enum": [each.value for each in Side], "description": "where it listens"},
    "proto": {"enum": ["tcp", "udp"], "description": "protocol"},
    "addr": _optional("string", "address it listens at; null: any of both families"),
    "interface": _optional("string", "interface it listens on alone"),
    "first": _port("first port"),
    "last": _port("last port"),
    "target": _optional("string", "address it leads to; null: the other side's own"),
    "target_first": _port("port that the first one leads to"),
    "weak": _plain("boolean", "ports that cannot be had are left out"),
    "auto": _plain("boolean", "ports open as somebody listens on the other side"),
    "proxy": {"enum": [0, 1, 2], "description": "version of the PROXY protocol; 0: no"},
    "socket": _optional("string", "UNIX socket it listens at instead"),
    "target_socket": _optional("string", "UNIX socket it leads to instead"),
    "open_ports": _plain("integer", "on how many of its ports a socket listens now"),
    "text": _plain("string", "all of it, for people"),
}
FORWARD: Final[Schema] = {
    "type": "object",
    "properties": _FIELDS,
    "required": list(_FIELDS),
    "additionalProperties": False,
}


def _list(name: str) -> Schema:
    items = {"$ref": "#/components/schemas/Forward"}
    return {
        "type": "object",
        "properties": {name: {"type": "array", "items": items}},
        "required": [name],
    }


# By the name of the verb
ANSWERS: Final[dict[str, Schema]] = {
    "forwards": _list("forwards"),
    "add-forwards": _list("forwards"),
    "remove-forward": _list("removed"),
    "remove-forwards": _list("removed"),
}
