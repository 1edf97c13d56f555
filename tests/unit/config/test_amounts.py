# SPDX-License-Identifier: GPL-2.0-or-later
"""Amounts as people write them."""

import pytest

from passtpy.config.amounts import (
    FASTEST,
    AmountError,
    read_rate,
    read_size,
    show_rate,
    show_size,
)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("10M", 1_250_000),
        ("10Mbit", 1_250_000),
        ("10 Mbit/s", 1_250_000),
        ("1G", 125_000_000),
        ("1.5k", None),
        ("8k", 1000),
        ("8000", 1000),
        ("20 MB/s", 20_000_000),
        ("20MB", 20_000_000),
        ("1MiB/s", 1 << 20),
        ("8Ki", 1024),
        ("100G", FASTEST),
        ("101G", None),
        ("0", None),
        ("-1M", None),
        ("10 mbit", None),
        ("10iB", None),
        ("1e9", None),
        ("1_000M", None),
        ("٣M", None),
        ("10M ", None),
        ("", None),
    ],
)
def test_rate(text: str, rate: int | None) -> None:
    if rate is None:
        with pytest.raises(AmountError, match="expected"):
            read_rate(text)
    else:
        assert read_rate(text) == rate


@pytest.mark.parametrize(
    ("text", "size"),
    [("5 MB", 5_000_000), ("5M", 5_000_000), ("1", 1), ("2 GiB", 2 << 30)],
)
def test_size(text: str, size: int) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["0", "5 Mbit", "5 MB/s", "999999999T", "5i"])
def test_no_size(text: str) -> None:
    with pytest.raises(AmountError, match="expected"):
        read_size(text)


@pytest.mark.parametrize(
    "text", ["10 Mbit/s", "1.5 Gbit/s", "8 kbit/s", "8001.6 kbit/s"]
)
def test_what_is_shown_can_be_read(text: str) -> None:
    assert read_rate(show_rate(read_rate(text))) == read_rate(text)


@pytest.mark.parametrize("text", ["5 MB", "1 B", "1234567 B", "2.5 GB"])
def test_sizes_are_shown_as_they_are_read(text: str) -> None:
    assert read_size(show_size(read_size(text))) == read_size(text)
