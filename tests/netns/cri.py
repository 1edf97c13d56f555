# SPDX-License-Identifier: GPL-2.0-or-later
"""Says to containerd what a kubelet says: a few messages of CRI, by curl over HTTP/2.

A message of gRPC is five bytes (a zero, the length) and a protobuf; the fields used
here are those of runtime/v1/api.proto.
"""

import io
import json
import struct
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path

_PREFIX = struct.Struct("!BI")
_TEXT, _NUMBER = 2, 0  # wire types


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number: int, value: str | bytes | int) -> bytes:
    """One field of a protobuf: a text, a message or a number."""
    if isinstance(value, int):
        return _varint(number << 3 | _NUMBER) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | _TEXT) + _varint(len(data)) + data


def pod(
    name: str, annotations: Mapping[str, str], ports: Iterable[tuple[int, int]]
) -> bytes:
    """A RunPodSandboxRequest; ports are of the host and of the container."""
    metadata = field(1, name) + field(2, f"uid-{name}") + field(3, "default")
    config = field(1, metadata) + field(2, name)
    for host, inside in ports:
        config += field(5, field(2, inside) + field(3, host))
    for key, value in annotations.items():
        config += field(7, field(1, key) + field(2, value))
    return field(1, config)


class Runtime:
    """A containerd at a socket."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def call(self, method: str, message: bytes) -> bytes:
        """The answer's protobuf; AssertionError with what was said instead."""
        head = self._path.with_name("answer.head")
        done = subprocess.run(
            [
                *("curl", "-sS", "--http2-prior-knowledge", "--max-time", "60"),
                *("--unix-socket", str(self._path), "--data-binary", "@-"),
                *("-H", "content-type: application/grpc", "-H", "te: trailers"),
                *("-D", str(head), f"http://localhost/runtime.v1.{method}"),
            ],
            input=_PREFIX.pack(0, len(message)) + message,
            capture_output=True,
            timeout=90,
        )
        assert done.returncode == 0, done.stderr
        said = head.read_text().lower()
        assert "grpc-status: 0" in said, said
        return done.stdout[_PREFIX.size :]

    def has_image(self, name: str) -> bool:
        """Whether it serves yet, and knows an image that was given to it."""
        try:
            return name.encode() in self.call("ImageService/ListImages", b"")
        except AssertionError:  # it has not come so far
            return False

    def run_pod(self, request: bytes) -> str:
        """Start a pod; its name from then on, which is the answer's only field."""
        return self.call("RuntimeService/RunPodSandbox", request)[2:].decode()

    def end_pod(self, identity: str) -> None:
        """Stop a pod, and forget it."""
        for word in ("Stop", "Remove"):
            self.call(f"RuntimeService/{word}PodSandbox", field(1, identity))


def make_archive(root: Path, path: Path, name: str) -> None:
    """An image for containerd to import: a folder, and what keeps a pod alive."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add(root, ".")
    digest = sha256(layer.getvalue()).hexdigest()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/bin/sleep", "9999"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as tar:
        for member, data in (
            ("config.json", json.dumps(config).encode()),
            ("layer.tar", layer.getvalue()),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
