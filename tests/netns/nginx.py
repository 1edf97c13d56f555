# SPDX-License-Identifier: GPL-2.0-or-later
"""nginx as one process that keeps all its files in one folder."""

from pathlib import Path

_AROUND = """
daemon off;
master_process off;
error_log stderr;
pid {folder}/nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{http}}}
"""


def nginx(folder: Path, http: str) -> list[str]:
    """The words that run it with these lines in its `http` block."""
    path = folder / "nginx.conf"
    path.write_text(_AROUND.format(folder=folder, http=http))
    return ["nginx", "-c", str(path), "-e", "stderr"]
