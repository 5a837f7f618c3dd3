# SPDX-License-Identifier: Apache-2.0
"""Starts of a program off an image of which nothing is here, and what they cost at the registry.

Knows the ways to start it. Must not know what is compared with what.
"""
import os
import shutil
import statistics
import subprocess

from common import ROOT, RUNS, podman, quiet, row, timed
import program

ROUND_TRIPS_MS = (0, 20, 100)
# This machine's limits are lower than those that podman wants to set.
RUN = ("run", "--rm", "--runtime", "runc", "--network", "none", "--ulimit", "nofile=4096:4096",
       "--ulimit", "nproc=4096:4096")


class Cold:
    """Starts of one image at one registry; each leaves nothing behind that would help the next."""

    def __init__(self, bench, registry, image):
        self.bench, self.registry, self.image = bench, registry, image
        self.cache = bench.test.dir / "cache"

    def measured(self, action):
        """(seconds, requests, body bytes) of ACTION, once the disk has what came before."""
        os.sync()
        self.registry.forget()
        seconds = timed(action)
        served = self.registry.requests()
        return seconds, len(served), sum(entry[3] for entry in served)

    def off_the_mount(self, start, saved=None, **options):
        """START (a function of a root) off a fresh mount whose cache is a copy of SAVED, or empty."""
        shutil.rmtree(self.cache, ignore_errors=True)
        if saved:
            subprocess.run(["cp", "-a", "--sparse=always", saved, self.cache], check=True)
        mount = self.bench.test.mount(self.registry.host, log="error", insecure=self.registry.host, **options)
        try:
            return self.measured(lambda: start(mount.path(self.image, "rootfs")))
        finally:
            mount.stop()

    def in_podman(self, root):
        quiet(*podman(self.bench, *RUN, "--rootfs", f"{root}:O", *program.ARGV))

    @staticmethod
    def in_chroot(root):
        quiet(*program.in_chroot(root))

    def pulled(self):
        """The peer: podman pull into an empty store, and run."""
        reference = f"{self.registry.host}/{self.image}"
        quiet(*podman(self.bench, "rmi", "-af"))

        def pull_and_run():
            quiet(*podman(self.bench, "pull", "-q", "--tls-verify=false", reference))
            quiet(*podman(self.bench, *RUN, reference, *program.ARGV))

        return self.measured(pull_and_run)

    def look(self, look):
        """What LOOK (a function of the image's directory) finds at a mount that is not measured."""
        shutil.rmtree(self.cache, ignore_errors=True)
        mount = self.bench.test.mount(self.registry.host, log="error", insecure=self.registry.host)
        try:
            return look(mount.path(self.image))
        finally:
            mount.stop()

    def files_read(self):
        """{path: bytes} of the files that a start reads."""
        return self.look(lambda image: program.files_read(image / "rootfs"))

    def save_index(self):
        """A cache that has seen all of the image once, and whose blocks had to give way."""
        self.look(lambda image: [os.listdir(layer) for layer in (image / "layers").iterdir() if layer.name.isdigit()])
        return self.keep_evicted("saved")

    def save_run(self, saved, start):
        """SAVED after one START off it, which it has a record of, and after its blocks had to give way again."""
        self.off_the_mount(start, saved)
        return self.keep_evicted("recorded")

    def keep_evicted(self, name):
        quiet(ROOT / "build/bench/evict", self.cache)
        kept = self.bench.dir / name
        shutil.rmtree(kept, ignore_errors=True)
        self.cache.rename(kept)
        return kept


def rounds(ways):
    """{name: [(seconds, requests, bytes)]} of all ways, in turns."""
    runs = {name: [] for name in ways}
    for _ in range(RUNS):
        for name, way in ways.items():
            runs[name].append(way())
    return runs


def report(what, ours, peer, theirs, target):
    """A row of two lists of (seconds, requests, bytes)."""
    ours, theirs = ([statistics.median(column) for column in zip(*runs)] for runs in (ours, theirs))
    row(what, ours[0], peer, theirs[0],
        f"{ours[2] / 1e6:.2f} MB in {ours[1]:.0f} requests, theirs {theirs[2] / 1e6:.1f} MB in {theirs[1]:.0f}", target)


def report_bytes(what, ours, other, theirs, target):
    """A row of bytes at the registry, in the median of ours, and of what they are compared with."""
    row(what, statistics.median(run[2] for run in ours) / 1e6, other, theirs / 1e6, target=target, unit="MB")
