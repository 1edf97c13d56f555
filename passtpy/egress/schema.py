# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes what editors and programs read of a policy file: its JSON schema.

`python -m passtpy.egress.schema > docs/policy.schema.json` after a change of the keys.
"""

import json
import sys
from collections.abc import Sequence
from typing import Any

from passtpy.egress.keys import FILE_KEYS, RULE_KEYS, SET_KEYS, TARGETS, Key


def _table(keys: Sequence[Key], more: dict[str, Any]) -> dict[str, Any]:
    properties = {
        key.name: {"description": f"{key.help[0].upper()}{key.help[1:]}.", **key.schema}
        for key in keys
    }
    return {
        "type": "object",
        "properties": properties | more,
        "required": [key.name for key in keys if key.required],
        "additionalProperties": False,
    }


def _sets() -> dict[str, Any]:
    one_or_more = {
        "to": TARGETS,
        "include": {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}},
            ]
        },
    }
    table = {
        "type": "object",
        "properties": {
            name: {"description": text, **one_or_more[name]}
            for name, text in SET_KEYS.items()
        },
        "additionalProperties": False,
    }
    return {
        "description": "Sets of targets, each named without its @.",
        "type": "object",
        "patternProperties": {"^[A-Za-z0-9_-]+$": {"anyOf": [TARGETS, table]}},
        "additionalProperties": False,
    }


def schema() -> str:
    """Return the schema as text."""
    rules = {
        "description": "Rules; the first that matches a flow decides about it.",
        "type": "array",
        "items": _table(RULE_KEYS, {}),
    }
    told = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Policy of passtpy: what a guest may reach",
        **_table(FILE_KEYS, {"sets": _sets(), "rule": rules}),
    }
    return json.dumps(told, indent=1) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema())
