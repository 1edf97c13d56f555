# SPDX-License-Identifier: GPL-2.0-or-later
"""The schema of a policy file says what its reader accepts."""

import json
import tomllib
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from passtpy.egress.schema import schema
from tests.unit.egress.test_document import RULE, WHOLE

DOCS = Path(__file__).resolve().parents[3] / "docs"


def _validator() -> Draft202012Validator:
    Draft202012Validator.check_schema(json.loads(schema()))
    return Draft202012Validator(json.loads(schema()))


def test_the_page_is_of_today() -> None:
    text = (DOCS / "policy.schema.json").read_text()
    assert text == schema(), "python -m passtpy.egress.schema > docs/policy.schema.json"


def test_what_is_read_is_valid() -> None:
    _validator().validate(tomllib.loads(WHOLE))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "version = 2",
        "version = 1\ncolour = 3",
        "version = 1\n[[rule]]",
        RULE + "limits = 1",
        RULE + "to = []",
        RULE + "ports = [0]",
        RULE + "proto = 'sctp'",
        "version = 1\n[sets]\na = { file = 'x' }",
    ],
)
def test_what_is_refused_is_invalid(text: str) -> None:
    assert not _validator().is_valid(tomllib.loads(text))
