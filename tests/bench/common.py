# SPDX-License-Identifier: Apache-2.0
"""What the measurements share: their directory, taking turns, rows of the report, counting at the registry.

Knows processes, clocks and the tests' own tools. Must not know what is measured.
"""
import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE.parent / "fs"))

import lib  # noqa: E402

RUNS = int(os.environ.get("BENCH_RUNS", "5"))
WARM_RUNS = int(os.environ.get("BENCH_WARM_RUNS", "11"))
# The rows of the table at the end: (what, peer, value, target, whether it is met).
TABLE = []


def quiet(*argv, **options):
    """Runs a command; its words only matter if it fails."""
    ended = subprocess.run([str(arg) for arg in argv], capture_output=True, **options)
    if ended.returncode:
        raise RuntimeError(f"{argv[0]} failed: {ended.stderr.decode(errors='replace')[-2000:]}")
    return ended.stdout


def timed(action):
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def drop_caches():
    os.sync()
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")


def row(what, ours, peer, theirs, note="", target=None, unit="ms"):
    """A line of the report, and of the table at its end. Times are given in seconds; TARGET is the ratio's
    greatest."""
    factor = 1000 if unit == "ms" else 1
    ratio = ours / theirs
    print(f"  {what:<56} {ours * factor:9.1f} {unit}   {peer:<24} {theirs * factor:9.1f} {unit}"
          f"   ratio {ratio:5.2f}  {note}", flush=True)
    TABLE.append((what, peer, f"{ratio:.2f}", f"≤ {target}" if target else "", target is None or ratio <= target))


def figure(what, value, unit, note="", target=None):
    """The same for what has no peer."""
    print(f"  {what:<56} {value:9.1f} {unit}  {note}", flush=True)
    TABLE.append((what, "–", f"{value:.1f} {unit}", f"≤ {target}" if target else "", target is None or value <= target))


def print_table():
    print("\nwhat | against | ratio | target |\n--- | --- | --- | --- | ---")
    for what, peer, value, target, met in TABLE:
        print(f"{what} | {peer} | {value} | {target} | {'' if not target else 'met' if met else 'NOT MET'}")


def rss_anon_kib(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1])
    return 0


class Bench:
    """One run: its directory, and the registries and mounts it has started."""

    def __init__(self, directory):
        self.test = lib.Test(directory)
        self.dir = pathlib.Path(directory)

    def fresh(self, name):
        path = self.dir / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path

    @contextlib.contextmanager
    def mounted(self, registry, cold=True, **options):
        if cold:
            shutil.rmtree(self.test.dir / "cache", ignore_errors=True)
        mount = self.test.mount(registry.host, log="error", **options)
        try:
            yield mount
        finally:
            mount.stop()

    def bytes_of(self, registry, action):
        """Seconds, requests and body bytes of ACTION at the registry."""
        before = len(registry.requests())
        seconds = timed(action)
        after = registry.requests()[before:]
        return seconds, len(after), sum(entry[3] for entry in after)


def podman(bench, *args):
    store = bench.dir / "podman"
    return ["podman", "--root", store / "root", "--runroot", store / "run", "--storage-driver", "overlay",
            *args]
