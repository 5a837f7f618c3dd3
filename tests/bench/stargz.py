# SPDX-License-Identifier: Apache-2.0
"""stargz-snapshotter's store, the peer for lazy formats, and images mounted by it.

Knows how it is built (from Debian's library of it) and laid out. Must not know what is measured.
"""
import base64
import contextlib
import os
import shutil
import subprocess

from common import HERE, ROOT, quiet
import lib

LIBRARY = "golang-github-containerd-stargz-snapshotter-dev"


def build():
    """The program; made once."""
    program = ROOT / "build/bench/stargz-store"
    source = HERE / "stargz_store/main.go"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        lib.need("go")
        env = {**os.environ, "GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOFLAGS": "",
               "GOCACHE": str(program.parent / "go-cache")}
        quiet("go", "build", "-o", program, source.name, cwd=source.parent, env=env)
    return program


def version():
    ended = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", LIBRARY], capture_output=True, text=True,
                           check=False)
    return f"stargz-store {ended.stdout.partition('-')[0]}"


class Store:
    """One running store, its root empty when it starts."""

    def __init__(self, bench, host, *options):
        self.host = host
        self.dir = bench.fresh("stargz")
        self.point = self.dir / "store"
        self.point.mkdir()
        self.process = lib.Process([build(), *options, host, self.dir / "root", self.point], self.dir / "log")
        lib.wait_for(lambda: lib.mounts_under(self.point), "stargz-store")

    @contextlib.contextmanager
    def rootfs(self, repository, layers):
        """The root of an image (its LAYERS' digests, bottom first), merged by the kernel's overlay."""
        reference = f"{self.host}/{repository}".encode()
        image = self.point / base64.b64encode(reference).decode()
        merged, empty = self.dir / "merged", self.dir / "empty"
        merged.mkdir()
        empty.mkdir()  # overlay wants two
        for number, digest in enumerate(layers):
            (self.dir / f"{number}").symlink_to(image / digest / "diff")
        lower = ":".join([*(str(self.dir / f"{number}") for number in reversed(range(len(layers)))), str(empty)])
        quiet("mount", "-t", "overlay", "-o", f"ro,lowerdir={lower}", "overlay", merged)
        try:
            yield merged
        finally:
            quiet("umount", merged)

    def stop(self):
        self.process.stop()
        shutil.rmtree(self.dir, ignore_errors=True)
