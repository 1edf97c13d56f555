# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes what editors and programs read of a policy file: its JSON schema.

`python -m passtpy.egress.schema > docs/policy.schema.json` after a change of the keys.
"""

import json
import sys
from typing import Any

from passtpy.egress.keys import (
    FILE_KEYS,
    RULE_KEYS,
    SET_KEYS,
    TARGETS,
    table_schema,
)


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
        "items": table_schema(RULE_KEYS, {}),
    }
    told = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Policy of passtpy: what a guest may reach",
        **table_schema(FILE_KEYS, {"sets": _sets(), "rule": rules}),
    }
    return json.dumps(told, indent=1) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema())
