# SPDX-License-Identifier: GPL-2.0-or-later
"""Real servers of a test's remote host: nginx, sshd, git, repositories, HTTP/3.

All are at one address, under two names, with certificates of an authority of the
test's own; one name is to be allowed, the other not. What they serve are a package for
each package manager, a repository of git, and a redirect to another address.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab import GATEWAY4, REMOTE4, Lab
from tests.netns.nameserver import NameServer
from tests.netns.nginx import nginx

ALLOWED, HIDDEN = "allowed.example", "hidden.example"
ZONE = tuple(f"{name}. 300 A {REMOTE4}" for name in (ALLOWED, HIDDEN))
PAGE = "this is the page\n"
PACKAGE = "lab-package"
BACKEND = "/usr/lib/git-core/git-http-backend"
GIT_PORT = 8000
SOON = 30.0

HTTP = """\
    types {{ }}
    default_type text/html;
    server {{
        listen {address}:80;
        listen {address}:443 ssl http2;
        ssl_certificate {dir}/cert;
        ssl_certificate_key {dir}/key;
        root {dir}/www;
        location /away {{ return 302 http://{away}/; }}
        location = /npm/{package} {{ default_type application/json; }}
        location /cgi-bin/ {{ proxy_pass http://127.0.0.1:{git}; }}
    }}
"""
SSHD = """
Port 22
ListenAddress {address}
HostKey {dir}/host_key
AuthorizedKeysFile {dir}/client_key.pub
StrictModes no
UsePAM no
PidFile none
"""
CGI = f"""
import http.server, os
os.environ |= {{"GIT_HTTP_EXPORT_ALL": "1", "GIT_PROJECT_ROOT": os.getcwd()}}
class Handler(http.server.CGIHTTPRequestHandler):
    have_fork = False
http.server.ThreadingHTTPServer(("127.0.0.1", {GIT_PORT}), Handler).serve_forever()
"""
QUIC = """
import asyncio, sys
from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
class Server(QuicConnectionProtocol):
    http = None
    def quic_event_received(self, event):
        self.http = self.http or H3Connection(self._quic)
        for each in self.http.handle_event(event):
            if isinstance(each, HeadersReceived):
                self.http.send_headers(each.stream_id, [(b":status", b"200")])
                self.http.send_data(each.stream_id, b"over quic", True)
                self.transmit()
async def main(address, cert, key):
    config = QuicConfiguration(alpn_protocols=["h3"], is_client=False)
    config.load_cert_chain(cert, key)
    await serve(address, 443, configuration=config, create_protocol=Server)
    await asyncio.Event().wait()
asyncio.run(main(*sys.argv[1:]))
"""
# Prints what NAME serves; CA is whom it believes
QUIC_CLIENT = """
import asyncio, sys
from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived
from aioquic.quic.configuration import QuicConfiguration
class Client(QuicConnectionProtocol):
    http, text = None, None
    def quic_event_received(self, event):
        for each in self.http.handle_event(event) if self.http else ():
            if isinstance(each, DataReceived) and each.data and not self.text.done():
                self.text.set_result(each.data.decode())
async def main(name, ca):
    config = QuicConfiguration(alpn_protocols=["h3"], server_name=name)
    config.load_verify_locations(ca)
    async with connect(
        name, 443, configuration=config, create_protocol=Client
    ) as client:
        client.http = H3Connection(client._quic)
        client.text = asyncio.get_running_loop().create_future()
        stream = client._quic.get_next_available_stream_id()
        head = [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/")]
        head.append((b":authority", name.encode()))
        client.http.send_headers(stream, head, end_stream=True)
        client.transmit()
        print(await client.text)
asyncio.run(main(*sys.argv[1:]))
"""


def _certificate(folder: Path) -> None:
    """An authority in `ca`, and a certificate of it for both names."""
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    names = f"subjectAltName=DNS:{ALLOWED},DNS:{HIDDEN}"
    _do(
        *("openssl", "req", "-x509", *curve, "-subj", "/CN=lab", "-days", "2"),
        *("-keyout", f"{folder}/ca_key", "-out", f"{folder}/ca"),
    )
    _do(
        *("openssl", "req", *curve, "-subj", "/CN=x", "-addext", names),
        *("-keyout", f"{folder}/key", "-out", f"{folder}/request"),
    )
    _do(
        *("openssl", "x509", "-req", "-days", "2", "-copy_extensions", "copy"),
        *("-in", f"{folder}/request", "-out", f"{folder}/cert"),
        *("-CA", f"{folder}/ca", "-CAkey", f"{folder}/ca_key", "-CAcreateserial"),
    )


def _do(*argv: str, cwd: Path | None = None) -> None:
    subprocess.run(argv, check=True, capture_output=True, cwd=cwd)


def _wheel(www: Path) -> None:
    stem = PACKAGE.replace("-", "_")
    name = f"{stem}-1.0-py3-none-any.whl"
    folder = www / "simple" / PACKAGE
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / name, "w") as wheel:
        about = f"{stem}-1.0.dist-info"
        wheel.writestr(f"{stem}.py", "")
        text = f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.0\n"
        wheel.writestr(f"{about}/METADATA", text)
        text = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr(f"{about}/WHEEL", text)
        wheel.writestr(f"{about}/RECORD", "")
    page = f'<!DOCTYPE html><html><body><a href="{name}">{name}</a></body></html>'
    (folder / "index.html").write_text(page)


def _deb(www: Path, folder: Path) -> None:
    tree, repo = folder / "deb", www / "apt"
    (tree / "DEBIAN").mkdir(parents=True)
    repo.mkdir()
    control = (
        f"Package: {PACKAGE}\nVersion: 1.0\nArchitecture: all\n"
        "Maintainer: lab <lab@example.org>\nDescription: nothing\n"
    )
    (tree / "DEBIAN" / "control").write_text(control)
    file = repo / "package.deb"
    _do("dpkg-deb", "--build", "--root-owner-group", str(tree), str(file))
    data = file.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    place = f"Filename: ./package.deb\nSize: {len(data)}\nSHA256: {digest}\n"
    (repo / "Packages").write_text(control + place)


def _npm(www: Path, folder: Path) -> None:
    about = {"name": PACKAGE, "version": "1.0.0"}
    (folder / "package").mkdir()
    (folder / "package" / "package.json").write_text(json.dumps(about))
    (www / "npm").mkdir()
    file = www / "npm" / "package.tgz"
    with tarfile.open(file, "w:gz") as tar:
        tar.add(folder / "package", "package")
    shasum = hashlib.sha1(file.read_bytes(), usedforsecurity=False).hexdigest()
    dist = {"tarball": f"https://{ALLOWED}/npm/package.tgz", "shasum": shasum}
    told = {
        "name": PACKAGE,
        "dist-tags": {"latest": "1.0.0"},
        "versions": {"1.0.0": about | {"dist": dist}},
    }
    (www / "npm" / PACKAGE).write_text(json.dumps(told))


def _git(folder: Path) -> None:
    repo = folder / "cgi" / "repo.git"
    repo.mkdir(parents=True)
    who = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    _do("git", "init", "-q", "-b", "main", cwd=repo)
    (repo / "page").write_text(PAGE)
    _do("git", "add", "page", cwd=repo)
    _do("git", *who, "commit", "-q", "-m", "a page", cwd=repo)
    scripts = folder / "cgi" / "cgi-bin"
    scripts.mkdir()
    (scripts / "git").symlink_to(BACKEND)


def content(folder: Path) -> None:
    """Make all that is served."""
    www = folder / "www"
    www.mkdir()
    (www / "index.html").write_text(PAGE)
    _certificate(folder)
    _wheel(www)
    _deb(www, folder)
    _npm(www, folder)
    _git(folder)
    for name in ("host_key", "client_key"):
        _do("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))


def _servers(folder: Path) -> Iterator[tuple[str, list[str]]]:
    names = {"dir": folder, "address": REMOTE4, "away": GATEWAY4}
    http = HTTP.format(**names, package=PACKAGE, git=GIT_PORT)
    yield "nginx", nginx(folder, http)
    yield "git", [sys.executable, "-c", CGI]
    if shutil.which("sshd"):
        path = folder / "sshd.conf"
        path.write_text(SSHD.format(**names))
        Path("/run/sshd").mkdir(exist_ok=True)
        yield "sshd", [shutil.which("sshd") or "", "-D", "-e", "-f", str(path)]
    files = [str(folder / name) for name in ("cert", "key")]
    yield "quic", [sys.executable, "-c", QUIC, REMOTE4, *files]


@contextmanager
def internet(lab: Lab) -> Iterator[Path]:
    """All servers, until the block ends; where their keys and the authority are."""
    folder = lab.dir / "internet"
    folder.mkdir()
    content(folder)
    running = []
    try:
        with NameServer(*ZONE).serving(lab.remote, REMOTE4):
            for _, argv in _servers(folder):
                words = ["env", "-C", str(folder / "cgi"), *argv]
                running.append(lab.start(lab.remote, *words))
            for kind, port in (("tcp", 443), ("tcp", GIT_PORT), ("udp", 443)):
                lab.remote.wait_bound(kind, port, SOON)
            if shutil.which("sshd"):
                lab.remote.wait_bound("tcp", 22, SOON)
            yield folder
    finally:
        for each in running:
            each.stop()


def environment(folder: Path) -> dict[str, str]:
    """What clients have to be told of the authority."""
    authority = str(folder / "ca")
    names = ("CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT", "NODE_EXTRA_CA_CERTS")
    return {**os.environ, **dict.fromkeys(names, authority), "HOME": str(folder)}
