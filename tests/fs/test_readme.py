# SPDX-License-Identifier: Apache-2.0
"""README.md tells the truth: its commands run as they stand there.

Each line "    $ command" is run by a shell in which /mnt/reg is a mount and localhost:5000 a registry
that has the images the README speaks of; `docker` is a script that loads and saves by skopeo, `podman` one
that runs with a storage of its own. What starts a container is left out where it does not work in a plain
directory either: in some sandboxes it cannot.
"""
import io
import os
import re
import shlex
import shutil
import tarfile

import lib
import oci
import sample
from podman import Podman
from tarfiles import Tar
from test_containers import busybox_image

DOCKER = """#!/bin/sh
# save: an archive on stdout. load: reads one from stdin, as docker load would.
case $1 in
save) cat {archive} ;;
load) cat >{directory}/loaded.tar && exec skopeo --insecure-policy inspect docker-archive:{directory}/loaded.tar >/dev/null ;;
*) echo "docker $*: not in this test" >&2; exit 1 ;;
esac
"""


STARTS_CONTAINERS = ("bwrap", "chroot", "podman", "systemd-nspawn")


def commands():
    """The command lines of the README, without the comments beside them."""
    text = (lib.ROOT / "README.md").read_text()
    return [re.sub(r"\s+#\s.*$", "", line) for line in re.findall(r"^\s+\$ (.+)$", text, re.M)]


def world(t):
    """The registry of the README, and a docker that has acme/web:1.6."""
    registry = t.registry()
    for tag in ("1.4", "1.5"):
        sample.image(tag).push(registry, "acme/web", tag)
    curl = oci.Image([oci.Layer(Tar().dir("usr").dir("usr/bin").file("usr/bin/curl", "x", mode=0o755).end())])
    curl.push(registry, "app", "1.5")
    busybox_image().push(registry, "library/alpine", "3.20")
    sample.image("1.6").write_layout(t.dir / "layout")
    t.skopeo("copy", f"oci:{t.dir}/layout:latest", f"docker-archive:{t.dir}/save.tar:acme/web:1.6")
    tools = t.dir / "tools"
    tools.mkdir()
    (tools / "docker").write_text(DOCKER.format(archive=t.dir / "save.tar", directory=t.dir))
    (tools / "docker").chmod(0o755)
    (tools / "regfs").symlink_to(lib.REGFS)
    return registry, tools


def plain_root(t):
    """The image that containers are made of, as a directory."""
    root = t.dir / "plain/rootfs"
    with tarfile.open(fileobj=io.BytesIO(busybox_image().layers[0].tar)) as tar:
        tar.extractall(root, filter="fully_trusted")
    return root


def podman_tool(t, tools):
    """A podman of the test's own, with limits that a sandbox can have."""
    try:
        own = Podman(t)
    except lib.Skip as why:
        return lib.note(str(why))
    argv = own.argv(*own.in_container())
    (tools / "podman").write_text(f'#!/bin/sh\nshift 2\nexec {shlex.join(map(str, argv))} "$@"\n')
    return (tools / "podman").chmod(0o755)


def can_run(t, command, root, env):
    """Whether COMMAND, if it starts a container, does so in the plain directory ROOT."""
    program = command.split()[0]
    if program not in STARTS_CONTAINERS:
        return True
    if not shutil.which(program, path=env["PATH"]):
        lib.note(f"no {program}")
        return False
    plain = re.sub(r"\S+/rootfs\b", str(root), command)
    return t.run("sh", "-c", plain, status=None, env=env).returncode == 0


def test_commands_run(t):
    lib.need("getfattr", "skopeo")
    lib.need_root()
    registry, tools = world(t)
    root = plain_root(t)
    podman_tool(t, tools)
    mount = t.mount(registry=registry.host, whiteouts="overlay")
    os.listdir(mount.point)
    env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    for name in ("alpine", "up", "work", "merged"):
        (t.dir / name).mkdir()
    done = 0
    for command in commands():
        if command.startswith("regfs /mnt/reg") or command.startswith("make"):
            continue  # it is mounted already; test_cli.py makes
        command = command.replace("/mnt/reg", str(mount.point)).replace("/mnt/", f"{t.dir}/")
        command = command.replace("localhost:5000", registry.host)
        command = command.replace("localhost+5000", registry.host.replace(":", "+"))
        lib.note(command)
        if not can_run(t, command, root, env):
            lib.note("not here")
            continue
        # diff says by 1 that there are differences: there are.
        expected = 1 if command.startswith("diff") else 0
        t.run("sh", "-c", command, status=expected, env=env)
        done += 1
    assert done >= 4, f"only {done} commands were found"


def test_names_exist(t):
    """Each file that the README names by a path is in the tree, and each option is one."""
    text = (lib.ROOT / "README.md").read_text()
    text = re.sub(r"^## Not in this version$.*?(?=^## |\Z)", "", text, flags=re.M | re.S)
    for path in re.findall(r"`((?:contrib|src|tests|include)/[\w./-]+)`", text):
        assert (lib.ROOT / path).exists(), f"README.md names {path}"
    known = t.output(lib.REGFS, "--help")
    for option in re.findall(r"`-o ([a-z_]+)", text) + re.findall(r"`([a-z_]+)=[^`]*`", text):
        assert option in known, f"README.md names the option {option}"
