# SPDX-License-Identifier: GPL-2.0-or-later
"""Names in the one form in which a policy compares them."""

import pytest

from passtpy.egress.names import NameFault, from_labels, normalise


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("GitHub.COM", "github.com"),
        ("github.com.", "github.com"),
        ("_dmarc.example.com", "_dmarc.example.com"),
        ("xn--BCHER-kva.example", "xn--bcher-kva.example"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("example。com", "example.com"),
        ("ｇithub.com", "github.com"),
        ("a" * 63 + ".example", "a" * 63 + ".example"),
    ],
)
def test_what_dns_asks_for_alike_is_one_name(text: str, name: str) -> None:
    assert normalise(text) == name


def test_a_homograph_is_another_name() -> None:
    assert normalise("gith\u0443b.com") != "github.com"  # a Cyrillic letter


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "github.com..",
        "a..b",
        ".github.com",
        "github.com\0.evil.example",
        "git hub.com",
        "github.com/",
        "*.github.com",
        "a" * 64 + ".example",
        ".".join(["a" * 63] * 4),
        "192.0.2.1",
        "127.1",
        "0x7f.1.0x1",
        "[::1]",
        "::1",
        "faß.de",
        "a\u200db.example",
        "\ud800.example",
    ],
)
def test_what_could_be_read_in_two_ways_is_no_name(text: str) -> None:
    with pytest.raises(NameFault):
        normalise(text)


def test_a_longest_name_is_one() -> None:
    name = ".".join(["a" * 63] * 3 + ["b" * 61])
    assert len(name) == 253
    assert normalise(name + ".") == name


def test_labels_of_a_message_are_a_name() -> None:
    assert from_labels([b"GitHub", b"com"]) == "github.com"


@pytest.mark.parametrize(
    "labels",
    [
        [b"github.com", b"evil"],
        [b"github\0", b"com"],
        [b"gith\xc3\xbcb", b"com"],
        [b"github", b"", b"com"],
        [],
    ],
)
def test_bytes_in_a_label_that_change_its_meaning_are_refused(
    labels: list[bytes],
) -> None:
    with pytest.raises(NameFault):
        from_labels(labels)
