# SPDX-License-Identifier: Apache-2.0
"""What is at hand, read in all ways, against the same tree on the disk. Each row names the mount's mode."""
import resource
import statistics
import subprocess
import time

from common import ROOT, RUNS, WARM_RUNS, drop_caches, quiet, row, timed
import images
import oci
import tarfiles

READER = ROOT / "build/bench/reader"
SMALL_FILES = 10000
FAST = 1.25  # 0.8 of ext4's rate
# How often each is done in one run, so that it takes some tenths of a second.
ROUNDS = {"sequential": 60, "random": 30, "mmap": 100, "small": 6, "find": 15}
TAR = "tar -cf - . | cat >/dev/null"
# Mode: its mount options. Where nothing can be pushed a close() is no request.
MODES = {"default": {}, "ro": {"ro": True}, "passthrough": {"passthrough": True, "ro": True}}


class Cost:
    """Seconds, those of CPU, and requests that the mount got."""

    def __init__(self, wall, cpu, requests=0):
        self.wall, self.cpu, self.requests = wall, cpu, requests


def reader(way, path, names=None, rounds=None):
    """What READER took, without its start."""
    wall, cpu = quiet(READER, way, rounds or ROUNDS[way], path,
                      **({"stdin": open(names, "rb")} if names else {})).split()
    return Cost(float(wall), float(cpu))


def shell(line, root, rounds=1):
    """What LINE took in ROOT, done ROUNDS times."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall = timed(lambda: subprocess.run(f"cd '{root}' && for i in $(seq {rounds}); do {line}; done", shell=True,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def process_cpu(pid):
    return time.clock_gettime(~pid << 3 | 2)  # clock_getcpuclockid(3)


def on(mount, action):
    """The cost of ACTION, what it costs MOUNT with it."""
    requests, cpu = mount.stats()["fuse_requests"], process_cpu(mount.process.pid)
    cost = action()
    cost.cpu += process_cpu(mount.process.pid) - cpu
    cost.requests = mount.stats()["fuse_requests"] - requests
    return cost


class Trees:
    """The same tree: on the disk, and in an image with a big file and many small ones beside it."""

    def __init__(self, bench):
        debian = images.debian()
        self.registry = bench.test.registry(storage=debian.storage)
        self.disk = bench.dir / "bundle/rootfs"
        quiet("umoci", "unpack", "--image", f"{debian.layout('gzip')}:latest", bench.dir / "bundle")
        tar = tarfiles.Tar()
        (bench.dir / "small").mkdir()
        names = bench.dir / "names"
        for number in range(SMALL_FILES):
            if number % 100 == 0:
                tar.dir(f"d{number // 100}")
                (bench.dir / f"small/d{number // 100}").mkdir()
            name, data = f"d{number // 100}/f{number}", f"{number}\n".encode() * 700
            tar.file(name, data)
            (bench.dir / "small" / name).write_bytes(data)
        names.write_text("".join(f"d{number // 100}/f{number}\n" for number in range(SMALL_FILES)))
        self.names = names
        self.small = bench.dir / "small"
        self.many = bench.test.registry()
        oci.Image([oci.Layer(tar.end(), "gzip")]).push(self.many, "many", "1")
        self.big = max((path for path in (self.disk / "usr").rglob("*") if path.is_file() and not path.is_symlink()),
                       key=lambda path: path.stat().st_size).relative_to(self.disk)


def median(costs, field):
    return statistics.median(getattr(cost, field) for cost in costs[1:])


def compare(what, ours, theirs, target, runs=WARM_RUNS, before=None):
    """Both in turns, after one round that does not count."""
    costs = ([], [])
    for _ in range(runs + 1):
        for side, action in zip(costs, (ours, theirs)):
            if before:
                before()
            side.append(action())
    cpu = median(costs[0], "cpu") / median(costs[1], "cpu")
    row(what, median(costs[0], "wall"), "the same on ext4", median(costs[1], "wall"),
        f"CPU {cpu:.2f}; {median(costs[0], 'requests'):.0f} requests", target)


def measure_big(trees, mode, mount, root):
    for way in ("sequential", "random", "mmap"):
        compare(f"{way} read of {trees.big.name}, warm ({mode})",
                lambda way=way: on(mount, lambda: reader(way, root / trees.big)),
                lambda way=way: reader(way, trees.disk / trees.big), FAST)
    compare(f"sequential read, pages dropped ({mode})",
            lambda: on(mount, lambda: reader("sequential", root / trees.big, rounds=1)),
            lambda: reader("sequential", trees.disk / trees.big, rounds=1),
            FAST if mode == "passthrough" else None, RUNS, drop_caches)


def measure_tree(trees, mode, mount, root):
    target = None if mode == "passthrough" else FAST
    for name, line in (("find", "find ."), ("tar c", TAR), ("grep -r", "grep -rqs 'no such words here' .")):
        rounds = ROUNDS.get(name, 1)
        compare(f"{name}, warm ({mode})", lambda line=line, rounds=rounds: on(mount, lambda: shell(line, root, rounds)),
                lambda line=line, rounds=rounds: shell(line, trees.disk, rounds), target)
    compare(f"tar c, pages dropped ({mode})", lambda: on(mount, lambda: shell(TAR, root)),
            lambda: shell(TAR, trees.disk), None, RUNS, drop_caches)


def measure(bench, trees, mode, options):
    with bench.mounted(trees.registry, **options) as mount:
        root = mount.path("debian:gzip/rootfs")
        measure_big(trees, mode, mount, root)
        measure_tree(trees, mode, mount, root)
    with bench.mounted(trees.many, **options) as mount:
        root = mount.path("many:1/rootfs")
        compare(f"open, read, close of {SMALL_FILES} files, warm ({mode})",
                lambda: on(mount, lambda: reader("small", root, trees.names)),
                lambda: reader("small", trees.small, trees.names), None if mode == "passthrough" else 2)


def bench_warm(bench):
    """a whole image that is at hand, against the same tree on the disk, in each mode"""
    trees = Trees(bench)
    for mode, options in MODES.items():
        measure(bench, trees, mode, options)
