# SPDX-License-Identifier: GPL-2.0-or-later
"""The stub of the extension module counts and orders the fields of records as it does.

Names, signatures and types are compared by stubtest, with `make lint`; here is what it
does not look at.
"""

import ast
import inspect
from pathlib import Path

import pytest

from passtpy import _native

STUB = ast.parse((Path(_native.__file__).parent / "_native.pyi").read_text())
RECORDS = {
    node.name: node
    for node in STUB.body
    if isinstance(node, ast.ClassDef)
    and any(ast.unparse(base).startswith("structseq") for base in node.bases)
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_has_the_fields_of_its_stub_in_order(name: str) -> None:
    node, record = RECORDS[name], getattr(_native, name)
    fields = [item.name for item in node.body if isinstance(item, ast.FunctionDef)]
    assert fields == list(record.__match_args__)
    (items,) = (base for base in node.bases if ast.unparse(base).startswith("tuple"))
    assert isinstance(items, ast.Subscript)
    counted = items.slice.elts if isinstance(items.slice, ast.Tuple) else [items.slice]
    assert len(counted) == record.n_fields
    returned = [
        ast.unparse(item.returns)
        for item in node.body
        if isinstance(item, ast.FunctionDef) and item.returns is not None
    ]
    assert returned == [ast.unparse(item) for item in counted]


def test_every_record_has_a_stub() -> None:
    made = {
        name
        for name, value in vars(_native).items()
        if isinstance(value, type) and hasattr(value, "n_sequence_fields")
    }
    assert made == {*RECORDS}


def test_every_function_tells_its_signature() -> None:
    """Without one, stubtest has nothing to compare."""
    public = [
        value
        for owner in (_native, _native.Datapath)
        for name, value in vars(owner).items()
        if callable(value) and not name.startswith("_") and not isinstance(value, type)
    ]
    assert len(public) > 30
    for function in [*public, _native.Datapath]:
        inspect.signature(function)
