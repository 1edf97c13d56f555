# SPDX-License-Identifier: GPL-2.0-or-later
"""podman 5 and buildah without root, in the network of our pasta."""

import pytest

from tests.clients.conftest import OTHER, PORT
from tests.lab import HOST4, HOST6, REMOTE4
from tests.netns.rootless import RootlessUser

RUN = "$P run --rm --cgroups=disabled"
ECHO = f"echo outside | busybox nc {REMOTE4} {{}}"


def said(user: RootlessUser, script: str) -> str:
    """The output of a script that must succeed."""
    done = user.do(script)
    assert done.returncode == 0, done.stdout
    return done.stdout


def assert_policed(shown: str) -> None:
    """One of two places was reached; the order of both outputs is anybody's."""
    assert shown.splitlines().count("outside") == 1
    assert "1" in shown.splitlines()
    assert "Connection refused" in shown


def test_a_container_has_the_hosts_addresses(user: RootlessUser) -> None:
    shown = said(user, f'{RUN} t sh -c "ip addr; cat /etc/hosts /etc/resolv.conf"')
    for words in (
        f"inet {HOST4}/24",
        f"inet6 {HOST6}/64",
        "mtu 65520",
        "169.254.1.2\thost.containers.internal",
        "nameserver 169.254.1.1",
    ):
        assert words in shown
    assert user.calls.read_text().startswith("--config-net --dns-forward 169.254.1.1")


def test_it_reaches_the_outside(user: RootlessUser) -> None:
    assert said(user, f'{RUN} t sh -c "{ECHO.format(PORT)}"') == "outside\n"


def test_a_policy_stands_behind_a_comma(user: RootlessUser) -> None:
    network = f"--network pasta:--policy,{user.home}/policy.toml"
    inside = f"{ECHO.format(PORT)}; {ECHO.format(OTHER)}; echo $?"
    shown = said(user, f"{RUN} {network} t sh -c '{inside}'")
    assert_policed(shown)


@pytest.mark.parametrize("network", ["pasta", "bridge"])
def test_a_port_is_published(user: RootlessUser, network: str) -> None:
    shown = said(
        user,
        f"$R --name web --network {network} -p 18081:80 t httpd -f -p 80 -h /www "
        ">/dev/null; fetch http://127.0.0.1:18081/; "
        f"fetch http://{HOST4}:18081/; $P rm -f -t 0 web >/dev/null",
    )
    assert shown == "hello\nhello\n"


def test_containers_of_a_network_of_their_own(user: RootlessUser) -> None:
    """One pasta for the namespace that all bridges of the user are in."""
    shown = said(
        user,
        "$P network create lan >/dev/null; "
        "$R --name web --network lan t httpd -f -p 80 -h /www >/dev/null; "
        f"{RUN} --network lan t sh -c '{ECHO.format(PORT)}; wget -q -O - http://web/'"
        "; $P rm -f -t 0 web >/dev/null; $P network rm lan >/dev/null",
    )
    assert shown == "outside\nhello\n"
    assert "rootless-netns" in user.calls.read_text()


def test_their_pasta_has_a_policy_by_the_users_configuration(
    user: RootlessUser,
) -> None:
    conf = user.home / "policed.conf"
    words = f'["--policy", "{user.home}/policy.toml"]'
    conf.write_text(f"[network]\npasta_options = {words}\n")
    inside = f"{ECHO.format(PORT)}; {ECHO.format(OTHER)}; echo $?"
    shown = said(
        user,
        f"export CONTAINERS_CONF_OVERRIDE={conf}; $P network create lan >/dev/null; "
        f"{RUN} --network lan t sh -c '{inside}'; $P network rm lan >/dev/null",
    )
    assert_policed(shown)


def test_containers_of_a_pod_share_it(user: RootlessUser) -> None:
    shown = said(
        user,
        "$P pod create --name p -p 18084:80 --infra-image t --infra-command 'sleep 99'"
        " >/dev/null; $R --pod p t httpd -f -p 80 -h /www >/dev/null; "
        f"{RUN} --pod p t wget -q -O - http://127.0.0.1/; "
        "fetch http://127.0.0.1:18084/; $P pod rm -f -t 0 p >/dev/null",
    )
    assert shown == "hello\nhello\n"


def test_an_image_is_built_with_it(user: RootlessUser) -> None:
    shown = said(
        user,
        f"printf 'FROM t\\nRUN {ECHO.format(PORT)}\\n' >run/Containerfile; "
        "$P build --isolation=rootless -f run/Containerfile run 2>&1",
    )
    assert "\noutside\n" in shown
    assert "--netns /proc/" in user.calls.read_text()


def test_buildah_runs_with_it(user: RootlessUser) -> None:
    buildah = "buildah --storage-driver=vfs"
    shown = said(
        user,
        f"name=$({buildah} from --pull=never localhost/t); "
        f'{buildah} run --isolation=rootless $name sh -c "{ECHO.format(PORT)}"; '
        f"{buildah} rm $name >/dev/null",
    )
    assert shown == "outside\n"
    assert "--netns /proc/" in user.calls.read_text()


def test_distrobox_takes_the_hosts_network_or_podmans(user: RootlessUser) -> None:
    create = "distrobox create --dry-run --yes --image localhost/t --name box"
    assert "--network host" in said(user, create)
    assert "--network" not in said(user, f"{create} --unshare-netns")
