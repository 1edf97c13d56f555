# SPDX-License-Identifier: GPL-2.0-or-later
"""The reference of the verbs is what the table of verbs says."""

import json
from pathlib import Path

from openapi_spec_validator import OpenAPIV31SpecValidator

from passtpy.control import document
from passtpy.control.verbs import VERBS

DOCS = Path(__file__).parents[3] / "docs"


def test_the_page_is_up_to_date() -> None:
    assert (DOCS / "control-verbs.md").read_text() == document.page()


def test_the_openapi_document_is_up_to_date() -> None:
    assert (DOCS / "openapi.json").read_text() == document.openapi()


def test_the_openapi_document_is_valid() -> None:
    told = json.loads(document.openapi())
    assert not list(OpenAPIV31SpecValidator(told).iter_errors())
    # A validator that finds nothing anywhere would not notice this either.
    del told["paths"]["/v1/flows/{id}"]["delete"]["parameters"]
    assert list(OpenAPIV31SpecValidator(told).iter_errors())


def test_the_openapi_document_names_every_verb() -> None:
    paths = json.loads(document.openapi())["paths"]
    named = {op["operationId"] for path in paths.values() for op in path.values()}
    assert named == {verb.name for verb in VERBS}
    for path, operations in paths.items():
        for operation in operations.values():
            inside = {
                p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"
            }
            assert all(f"{{{name}}}" in path for name in inside)
            assert len(inside) == path.count("{")
