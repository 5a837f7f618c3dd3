# SPDX-License-Identifier: Apache-2.0
"""README.md tells the truth: its commands run as they stand there.

Each line "    $ command" is run by a shell in which /mnt/reg is a mount and localhost:5000 a registry
that has the images the README speaks of; `docker` is a script that loads and saves by skopeo.
"""
import os
import re

import lib
import oci
import sample
from tarfiles import Tar

DOCKER = """#!/bin/sh
# save: an archive on stdout. load: reads one from stdin, as docker load would.
case $1 in
save) cat {archive} ;;
load) cat >{directory}/loaded.tar && exec skopeo --insecure-policy inspect docker-archive:{directory}/loaded.tar >/dev/null ;;
*) echo "docker $*: not in this test" >&2; exit 1 ;;
esac
"""


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
    sample.image("alpine").push(registry, "library/alpine", "3.20")
    sample.image("1.6").write_layout(t.dir / "layout")
    t.skopeo("copy", f"oci:{t.dir}/layout:latest", f"docker-archive:{t.dir}/save.tar:acme/web:1.6")
    tools = t.dir / "tools"
    tools.mkdir()
    (tools / "docker").write_text(DOCKER.format(archive=t.dir / "save.tar", directory=t.dir))
    (tools / "docker").chmod(0o755)
    (tools / "regfs").symlink_to(lib.REGFS)
    return registry, tools


def test_commands_run(t):
    lib.need("getfattr", "skopeo")
    registry, tools = world(t)
    mount = t.mount(registry=registry.host)
    os.listdir(mount.point)
    done = 0
    for command in commands():
        if command.startswith("regfs /mnt/reg") or command.startswith("make"):
            continue  # it is mounted already; test_cli.py makes
        command = command.replace("/mnt/reg", str(mount.point)).replace("localhost:5000", registry.host)
        lib.note(command)
        # diff says by 1 that there are differences: there are.
        expected = 1 if command.startswith("diff") else 0
        t.run("sh", "-c", command, status=expected, env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"})
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
