# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules about calls and TCP's table can fail, as test_rules.py shows of others."""

import subprocess
from pathlib import Path

from tests.house import calls, sys_calls, tcp_steps

A = "int b(void);\nint a(void);\nint a(void)\n{\n\treturn b();\n}\n"
B = "int a(void);\nint b(void);\nint b(void)\n{\n\treturn a();\n}\n"
LEAF = "int b(void);\nint b(void)\n{\n\treturn 1;\n}\n"


def _build(root: Path, **files: str) -> Path:
    """Compile C files, named floor_file, to where the build puts them."""
    for name, text in files.items():
        floor, _, file = name.partition("_")
        source = root / "native" / floor / f"{file}.c"
        target = root / calls.OBJECTS / "passtpy_core.dir" / floor / f"{file}.c.o"
        for path in (source, target):
            path.parent.mkdir(parents=True, exist_ok=True)
        source.write_text(text)
        subprocess.run(["cc", "-c", "-o", target, source], check=True)
    return root


def test_calls_downwards_pass(tmp_path: Path) -> None:
    assert calls.c_calls(_build(tmp_path, proto_a=A, table_b=LEAF)) == []


def test_call_upwards_is_named(tmp_path: Path) -> None:
    found = calls.c_calls(_build(tmp_path, table_a=A, proto_b=LEAF))
    assert found == ["native/table/a.c: calls b of proto/b.c above it"]


def test_circle_is_named(tmp_path: Path) -> None:
    found = calls.c_calls(_build(tmp_path, proto_a=A, proto_b=B))
    assert len(found) == 1
    assert found[0].startswith("circle: ")
    assert "proto/a.c -> proto/b.c (b)" in found[0]


def test_what_was_removed_is_not_looked_at(tmp_path: Path) -> None:
    root = _build(tmp_path, proto_a=A, proto_b=B)
    (root / "native/proto/b.c").unlink()
    assert calls.c_calls(root) == []


def test_nothing_built_is_no_pass(tmp_path: Path) -> None:
    assert len(calls.c_calls(tmp_path)) == 1


def test_call_without_a_row_is_named(tmp_path: Path) -> None:
    root = _build(
        tmp_path,
        base_a="int dup(int);\nint f(int fd);\n"
        "int f(int fd)\n{\n\treturn dup(fd);\n}\n",
        base_b=LEAF,
    )
    head = root / sys_calls.TABLE
    head.write_text("#define sys_recv(...) recv(__VA_ARGS__)\n")
    assert sys_calls.every_call_is_known(root) == [
        f"native/base/a.c: dup() has no row in {sys_calls.TABLE}"
    ]
    head.write_text("#define sys_dup(...) dup(__VA_ARGS__)\n")
    assert sys_calls.every_call_is_known(root) == []


def test_page_must_show_the_table(tmp_path: Path) -> None:
    source, page = tmp_path / tcp_steps.SOURCE, tmp_path / tcp_steps.PAGE
    for path in (source, page):
        path.parent.mkdir(parents=True)
    source.write_text('TCP_STEP(OPEN,\tNOTHING,\tnothing,\t"it began")\n')
    page.write_text(
        f"# TCP\n\n{tcp_steps.BEGIN}{tcp_steps.table(tmp_path)}{tcp_steps.END}"
    )
    assert tcp_steps.tcp_steps_are_printed(tmp_path) == []
    source.write_text('TCP_STEP(OPEN,\tCLOSED,\tnothing,\t"it began")\n')
    assert len(tcp_steps.tcp_steps_are_printed(tmp_path)) == 1


def test_state_changes_in_one_place(tmp_path: Path) -> None:
    folder = tmp_path / "native/proto"
    folder.mkdir(parents=True)
    (folder / "tcp_state.c").write_text("flow_set_events(flow, 1);")
    assert tcp_steps.tcp_state_changes_in_one_place(tmp_path) == []
    (folder / "tcp_end.c").write_text("flow_set_events(flow, 1);")
    assert len(tcp_steps.tcp_state_changes_in_one_place(tmp_path)) == 1
