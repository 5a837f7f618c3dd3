# SPDX-License-Identifier: Apache-2.0
"""What is at hand, read in all ways, against the same tree on the disk. Each row names the mount's mode."""
import statistics
import subprocess

from common import ROOT, RUNS, WARM_RUNS, drop_caches, quiet, row, timed
import images
import oci
import tarfiles

READER = ROOT / "build/bench/reader"
SMALL_FILES = 10000
FAST = 1.25  # 0.8 of ext4's rate
TAR = "tar -cf - . | cat >/dev/null"
# Mode: its mount options. Where nothing can be pushed a close() is no request.
MODES = {"default": {}, "ro": {"ro": True}, "passthrough": {"passthrough": True, "ro": True}}


def reader(way, path, names=None):
    """Seconds that READER took, without its start."""
    return float(quiet(READER, way, path, **({"stdin": open(names, "rb")} if names else {})))


def shell(line, root):
    """Seconds that LINE took in ROOT."""
    return timed(lambda: subprocess.run(f"cd '{root}' && {line}", shell=True, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL, check=False))


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


def compare(what, ours, theirs, target, runs=WARM_RUNS, before=None):
    """Both in turns, after one round that does not count."""
    times = ([], [])
    for _ in range(runs + 1):
        for side, action in zip(times, (ours, theirs)):
            if before:
                before()
            side.append(action())
    row(what, statistics.median(times[0][1:]), "the same on ext4", statistics.median(times[1][1:]), target=target)


def measure_big(trees, mode, root):
    for way in ("sequential", "random", "mmap"):
        compare(f"{way} read of {trees.big.name}, warm ({mode})", lambda way=way: reader(way, root / trees.big),
                lambda way=way: reader(way, trees.disk / trees.big), FAST)
    compare(f"sequential read, pages dropped ({mode})", lambda: reader("once", root / trees.big),
            lambda: reader("once", trees.disk / trees.big), FAST if mode == "passthrough" else None, RUNS, drop_caches)


def measure_tree(trees, mode, root):
    target = None if mode == "passthrough" else FAST
    for name, line in (("find", "find ."), ("tar c", TAR), ("grep -r", "grep -rqs 'no such words here' .")):
        compare(f"{name}, warm ({mode})", lambda line=line: shell(line, root),
                lambda line=line: shell(line, trees.disk), target)
    compare(f"tar c, pages dropped ({mode})", lambda: shell(TAR, root), lambda: shell(TAR, trees.disk), None, RUNS,
            drop_caches)


def measure(bench, trees, mode, options):
    with bench.mounted(trees.registry, **options) as mount:
        root = mount.path("debian:gzip/rootfs")
        measure_big(trees, mode, root)
        measure_tree(trees, mode, root)
    with bench.mounted(trees.many, **options) as mount:
        root = mount.path("many:1/rootfs")
        compare(f"open, read, close of {SMALL_FILES} files, warm ({mode})",
                lambda: reader("small", root, trees.names), lambda: reader("small", trees.small, trees.names),
                None if mode == "passthrough" else 2)


def bench_warm(bench):
    """a whole image that is at hand, against the same tree on the disk, in each mode"""
    trees = Trees(bench)
    for mode, options in MODES.items():
        measure(bench, trees, mode, options)
