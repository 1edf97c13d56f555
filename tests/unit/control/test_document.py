# SPDX-License-Identifier: GPL-2.0-or-later
"""The reference of the verbs is what the table of verbs says."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from passtpy.control import document
from passtpy.control.verbs import VERBS
from tests.unit.control.test_verbs import Asker

DOCS = Path(__file__).parents[3] / "docs"
HOW = "python -m passtpy.control.document [openapi] >docs/…"


def test_the_page_is_up_to_date() -> None:
    assert (DOCS / "control-verbs.md").read_text() == document.page(), HOW


def test_the_openapi_document_is_up_to_date() -> None:
    assert (DOCS / "openapi.json").read_text() == document.openapi(), HOW


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


def schema_of(method: str, path: str, *, answer: bool) -> Draft202012Validator:
    """What the document says of a body, ready to validate one."""
    told = json.loads(document.openapi())
    operation = told["paths"][path][method.lower()]
    where = operation["responses"]["200"] if answer else operation["requestBody"]
    schema = where["content"]["application/json"]["schema"]
    return Draft202012Validator({**schema, "components": told["components"]})


def test_what_is_told_of_forwards_is_what_comes() -> None:
    """Every field is there, and is what it is said to be, of every kind of forward."""
    asker = Asker()
    told = json.loads(document.openapi())["components"]["schemas"]["Forward"]
    takes = schema_of("POST", "/v1/forwards", answer=False)
    kinds = ["tcp:unix:/run/x.sock:80,proxy=v2", "tcp-ns:80:unix:/run/x.sock"]
    examples = told_examples(takes)
    assert len(examples) > 3
    for specs in ([each] for each in (*examples, *kinds)):
        takes.validate({"specs": specs})
        status, given = asker.ask("POST", "/v1/forwards", {"specs": specs})
        assert status == 200, given
        schema_of("POST", "/v1/forwards", answer=True).validate(given)
        assert list(given["forwards"][0]) == list(told["properties"])
    _, listed = asker.ask("GET", "/v1/forwards")
    schema_of("GET", "/v1/forwards", answer=True).validate(listed)
    ids = {"ids": [each["id"] for each in listed["forwards"][1:]]}
    schema_of("DELETE", "/v1/forwards", answer=False).validate(ids)
    number = listed["forwards"][0]["id"]
    _, removed = asker.ask("DELETE", f"/v1/forwards/{number}")
    schema_of("DELETE", "/v1/forwards/{id}", answer=True).validate(removed)
    _, removed = asker.ask("DELETE", "/v1/forwards", ids)
    schema_of("DELETE", "/v1/forwards", answer=True).validate(removed)


def told_examples(takes: Draft202012Validator) -> list[str]:
    """The specifications that the document shows."""
    return list(takes.schema["properties"]["specs"]["items"]["examples"])


LONG = ["tcp:" + "1" * 16384]


@pytest.mark.parametrize(
    "specs",
    [["sctp:80"], ["80"], ["tcp:"], [7], "tcp:80", ["tcp:80"] * 1001, LONG],
    ids=["kind", "no kind", "no ports", "no text", "no list", "too many", "too long"],
)
def test_what_is_no_specification_is_neither_told_nor_taken(specs: object) -> None:
    takes = schema_of("POST", "/v1/forwards", answer=False)
    assert not takes.is_valid({"specs": specs})
    assert Asker().ask("POST", "/v1/forwards", {"specs": specs})[0] >= 400


def test_every_argument_of_a_body_is_told_in_words() -> None:
    for path in json.loads(document.openapi())["paths"].values():
        for operation in path.values():
            for media in operation.get("requestBody", {}).get("content", {}).values():
                for told in media["schema"]["properties"].values():
                    assert told["description"]
                    assert told["type"] != "array" or told["items"]["type"]
