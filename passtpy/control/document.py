# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes the reference of the verbs: `python -m passtpy.control.document [openapi]`.

It prints a page, or the OpenAPI document, to stdout; a test compares what lies in
docs/ with what this would print.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

from passtpy.control.filter import BOUNDS, FIELDS
from passtpy.control.schemas import ANSWERS, FORWARD
from passtpy.control.verb import UNBOUNDED, Code, Kind, Param, Verb
from passtpy.control.verbs import VERBS

API_VERSION = "1.0.0"

HEAD = """\
# Verbs of the control socket

<!-- Made by `python -m passtpy.control.document`; change passtpy/control/verbs.py. -->

HTTP/1.1 over a UNIX socket, JSON in and out; [control.md](control.md) tells how to
reach it. Arguments stand in the path, in the query or in a JSON object as body,
wherever the client likes. Lists come as one JSON object a line
(`application/x-ndjson`). An error is `{"error": {"code", "message", "field",
"details"}}`, the last two only where they say something; the same is in
[openapi.json](openapi.json) for programs.

| Code | Status | Meaning |
|---|---|---|
"""

_MEANINGS = {
    Code.BAD_REQUEST: (400, "an argument is missing, unknown or malformed"),
    Code.FORBIDDEN: (403, "not for this client"),
    Code.NOT_FOUND: (404, "there is no such thing, or no more"),
    Code.CONFLICT: (409, "it contradicts what there is; nothing was changed"),
    Code.TOO_MUCH: (429, "more than is served at once"),
    Code.INTERNAL: (500, "a bug; the log has its traceback"),
    Code.UNAVAILABLE: (503, "not possible in this daemon, or not now"),
}


def _param(param: Param) -> str:
    kind = ", ".join(f"`{c}`" for c in param.choices) or param.kind.value
    need = "required" if param.required else "optional"
    return f"| `{param.name}` | {kind} | {need} | {param.help} |"


def _verb(verb: Verb[Any]) -> Iterator[str]:
    yield f"\n## {verb.name}\n"
    yield f"`{verb.method} {verb.path}`\n"
    yield f"{verb.help} Answer: {verb.answer[0].lower()}{verb.answer[1:]}"
    if verb.params:
        yield "\n| Argument | Kind | | Meaning |\n|---|---|---|---|"
        yield from map(_param, verb.params)


def _cell(word: str) -> str:
    bar = "\\|"
    return f"`{word.replace('|', bar)}`"


def page() -> str:
    """Return the reference for people."""
    codes = "\n".join(
        f"| `{code.value}` | {status} | {text} |"
        for code, (status, text) in _MEANINGS.items()
    )
    lines = [HEAD + codes]
    for verb in VERBS:
        lines += _verb(verb)
    lines.append("\n## Filters\n\n| Word | Chooses |\n|---|---|")
    lines += (f"| {_cell(word)} | {text} |" for word, text in FIELDS)
    lines.append(f"\n{BOUNDS}")
    return "\n".join(lines) + "\n"


def _schema(param: Param) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": param.kind.value}
    if param.choices:
        schema["enum"] = list(param.choices)
    if param.kind.value == "integer":
        schema |= {"minimum": param.least, "maximum": param.most}
    if param.items is not None:
        schema["items"] = dict(param.items)
    if param.kind is Kind.LIST and param.most < UNBOUNDED:
        schema["maxItems"] = param.most
    return schema


def _operation(verb: Verb[Any]) -> dict[str, Any]:
    media = "application/x-ndjson" if verb.lines else verb.media
    told = ANSWERS.get(verb.name)
    answer = {} if told is None else {"schema": told}
    operation: dict[str, Any] = {
        "operationId": verb.name,
        "summary": verb.help,
        "responses": {
            "200": {"description": verb.answer, "content": {media: answer}},
            "default": {
                "description": "What went wrong.",
                "content": {
                    "application/json": {
                        "schema": {"$ref": "#/components/schemas/Error"}
                    }
                },
            },
        },
    }
    body = [p for p in verb.params if p.kind.value in ("array", "object")]
    parameters = [
        {
            "name": param.name,
            "in": "path" if "{" + param.name + "}" in verb.path else "query",
            "required": param.required,
            "description": param.help,
            "schema": _schema(param),
        }
        for param in verb.params
        if param not in body
    ]
    if parameters:
        operation["parameters"] = parameters
    if body:
        schema = {
            "type": "object",
            "properties": {
                param.name: {"description": param.help, **_schema(param)}
                for param in body
            },
            "required": [param.name for param in body if param.required],
        }
        operation["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    return operation


def openapi() -> str:
    """Return the reference for programs (OpenAPI 3.1)."""
    paths: dict[str, dict[str, Any]] = {}
    for verb in VERBS:
        paths.setdefault(verb.path, {})[verb.method.lower()] = _operation(verb)
    error = {
        "type": "object",
        "properties": {
            "error": {
                "type": "object",
                "properties": {
                    "code": {"type": "string", "enum": [c.value for c in Code]},
                    "message": {"type": "string"},
                    "field": {"type": "string"},
                    "details": {"type": "array", "items": {"type": "object"}},
                },
                "required": ["code", "message"],
            }
        },
    }
    document = {
        "openapi": "3.1.0",
        "info": {"title": "passtpy", "version": API_VERSION},
        "paths": paths,
        "components": {"schemas": {"Error": error, "Forward": FORWARD}},
    }
    return json.dumps(document, indent=1) + "\n"


if __name__ == "__main__":
    sys.stdout.write(openapi() if sys.argv[1:] == ["openapi"] else page())
