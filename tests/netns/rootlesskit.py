# SPDX-License-Identifier: GPL-2.0-or-later
"""A page behind an ordinary user's rootlesskit, and who asks for it from outside."""

from tests.netns.rootless import RootlessUser

PORT = 18085  # on both sides, as the implicit port driver has it
_SCRIPT = """
rm -f run/heard
rootlesskit --net={net} --port-driver={ports} --copy-up=/etc \
    --disable-host-loopback {options} sh -c '
{inside}
busybox httpd -f -p {port} -h image/www &
until [ -e run/heard ]; do sleep 0.1; done
kill $!
' &
kit=$!
fetch http://127.0.0.1:{port}/
touch run/heard
wait $kit
"""


def use_rootlesskit(
    user: RootlessUser, net: str, ports: str, inside: str, *options: str
) -> str:
    """Run a shell line in its network, and ask for the page; what they say."""
    if ports != "implicit":
        options = (*options, f"--publish=127.0.0.1:{PORT}:{PORT}/tcp")
    words = " ".join(options)
    script = _SCRIPT.format(
        net=net, ports=ports, options=words, inside=inside, port=PORT
    )
    done = user.do(script)
    assert done.returncode == 0, done.stdout
    return done.stdout
