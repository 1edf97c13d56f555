# SPDX-License-Identifier: GPL-2.0-or-later
"""An ordinary user's docker, whose daemon lives in the network of rootlesskit."""

import os
import subprocess

from tests.netns.rootless import RootlessUser, missing

# Not rootlesskit's own sandbox: dockerd-rootless.sh looks for what it needs.
STARTER = "/usr/share/docker.io/contrib/dockerd-rootless.sh"
NEEDED = ("dockerd", "docker", "containerd", "runc", "iptables", "rootlesskit")
_SCRIPT = """
export PATH=$PATH:/usr/sbin:/sbin DOCKER_HOST=unix://$XDG_RUNTIME_DIR/docker.sock
export DOCKERD_ROOTLESS_ROOTLESSKIT_NET={net}
export DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER={ports}
sh {starter} --storage-driver=vfs --exec-opt native.cgroupdriver=cgroupfs \
    --data-root $HOME/run/docker-{net}-{ports} >run/log 2>&1 &
daemon=$!
until docker version >/dev/null 2>&1; do
    kill -0 $daemon || {{ cat run/log; exit 1; }}
    sleep 0.2
done
docker import image.tar t >/dev/null
docker run --rm t sh -c '{inside}'
docker run --detach --name web --publish 18086:80 t httpd -f -p 80 -h /www >/dev/null
fetch http://127.0.0.1:18086/
docker rm --force web >/dev/null
kill $daemon
wait $daemon
:
"""


def why_missing() -> str | None:
    """Why there can be no docker here: a program is not installed, or no NAT."""
    lacks = missing((*NEEDED, "newuidmap", "busybox"))
    if lacks is not None:
        return f"{lacks} is not installed"
    words = ["unshare", "--net", "iptables", "--table", "nat", "--list-rules"]
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    done = subprocess.run(
        words, env={"PATH": path}, capture_output=True, text=True, timeout=60
    )
    return done.stderr.strip() or None if done.returncode else None


def use_docker(user: RootlessUser, net: str, ports: str, inside: str) -> str:
    """Run a shell line in a container, and ask another by its port; what they say."""
    script = _SCRIPT.format(net=net, ports=ports, starter=STARTER, inside=inside)
    done = user.do(script)
    assert done.returncode == 0, done.stdout
    return done.stdout
