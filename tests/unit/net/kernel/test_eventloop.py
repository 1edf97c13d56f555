# SPDX-License-Identifier: GPL-2.0-or-later
"""The event loop comes without OpenSSL, and leaves `ssl` to whoever else wants it."""

from tests.unit.fresh import said

WITHOUT = """\
from passtpy.net.kernel.eventloop import new_event_loop
import sys
print([m for m in ("ssl", "_ssl", "hashlib", "_hashlib") if m in sys.modules])
print("libcrypto" in open("/proc/self/maps").read())
"""
# Everything that serves, and what is imported for it later
SERVING = """\
from passtpy import loading
from passtpy.isolation import stages as isolation
s = loading.SERVING
import importlib
for name in s:
    importlib.import_module(name)
for _ in isolation.imports(loading.CONTROL):
    pass
print("libcrypto" in open("/proc/self/maps").read())
"""
WORKS = """\
import asyncio
from passtpy.net.kernel.eventloop import new_event_loop
async def echo(reader, writer):
    writer.write(await reader.read(9))
    writer.close()
async def talk():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"hello")
    print(await reader.read(9))
    writer.close()
    server.close()
new_event_loop().run_until_complete(talk())
import ssl
print(ssl.create_default_context().verify_mode.name)
"""
OLD = """\
import ssl
from passtpy.net.kernel.eventloop import new_event_loop
import uvloop.loop, sys
print(new_event_loop() is not None, sys.modules["ssl"] is ssl)
"""
WANTS_MORE = """\
import sys
class Wants:
    def find_spec(self, name, path=None, target=None):
        if name == "uvloop" and type(sys.modules.get("ssl")).__name__ == "_Empty":
            raise ImportError("not with that")
sys.meta_path.insert(0, Wants())
from passtpy.net.kernel.eventloop import new_event_loop
import ssl
print(new_event_loop() is not None, ssl.OPENSSL_VERSION_NUMBER > 0)
"""


def test_openssl_is_not_loaded_with_the_loop() -> None:
    assert said(WITHOUT) == "[]\nFalse\n"


def test_nothing_that_serves_loads_openssl() -> None:
    assert said(SERVING) == "False\n"


def test_the_loop_works_and_the_real_ssl_can_be_had_afterwards() -> None:
    assert said(WORKS) == "b'hello'\nCERT_REQUIRED\n"


def test_an_ssl_that_is_there_already_is_used() -> None:
    assert said(OLD) == "True True\n"


def test_a_loop_that_wants_more_of_ssl_than_names_gets_the_real_one() -> None:
    assert said(WANTS_MORE) == "True True\n"
