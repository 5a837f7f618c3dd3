# SPDX-License-Identifier: Apache-2.0
"""Scale: what is large or many, and what it costs in memory and time. tests/fs/test_scale.py is the same in small."""
import concurrent.futures
import contextlib
import json
import os
import random
import statistics
import time

from common import ROOT, RUNS, figure, quiet, rss_anon_kib, timed
import large
import oci
import tarfiles


def anon_mib(mount):
    return rss_anon_kib(mount.process.pid) / 1024


@contextlib.contextmanager
def local_image(bench, layers):
    """An image in the embedded store, mounted; afterwards store and cache are as if it had never been."""
    layout = bench.fresh("store") / "many"
    oci.Image(layers).write_layout(layout)
    bench.fresh("cache")
    mount = bench.test.mount("local", log="error", cache_size="30G")
    try:
        yield mount
    finally:
        mount.stop()


def bench_scale_files(bench):
    """an image of 1,000,000 files"""
    layer = large.Layer(large.many_files(1000, 1000))
    with local_image(bench, [layer]) as mount:
        root = mount.path("many:latest/rootfs")
        figure("1,000,000 files: first ls (with the first pass)", timed(lambda: quiet("ls", root)), "s")
        print(f"  RssAnon after the first pass {anon_mib(mount):.1f} MiB")
        figure("1,000,000 files: find", timed(lambda: quiet("find", root, "-size", "+1M")), "s")
        figure("1,000,000 files: RssAnon with all walked", anon_mib(mount), "MiB")
        mount.restart()
        figure("1,000,000 files: ls after a remount", timed(lambda: quiet("ls", root)) * 1000, "ms", target=20)
        names = [root / f"d{random.randrange(1000):03}" / f"f{random.randrange(1000):03}" for _ in range(1000)]
        figure("1,000,000 files: stat of one", timed(lambda: [os.stat(name) for name in names]), "ms")


def bench_scale_bytes(bench):
    """a layer of 20 GB, mostly zeros"""
    size = 20 << 30
    words = {offset: b"here" for offset in range(1 << 30, size, 5 << 30)}
    layer = large.Layer(large.big_file("big", size, words))
    print(f"  blob of {len(layer.blob) / 1e6:.1f} MB")
    with local_image(bench, [layer]) as mount:
        path = mount.path("many:latest/rootfs/big")
        figure("20 GB layer: first stat (with the first pass)", timed(lambda: os.stat(path)), "s")
        print(f"  RssAnon after the first pass {anon_mib(mount):.1f} MiB")
        index = bench.test.dir / "cache/files/index"
        print(f"  index {sum(file.stat().st_size for file in index.rglob('*')) / 1e6:.1f} MB")
        times = []
        with open(path, "rb", buffering=0) as file:
            for offset, word in words.items():
                start = time.perf_counter()
                got = os.pread(file.fileno(), len(word), offset)
                times.append(time.perf_counter() - start)
                assert got == word, (offset, got)
        figure("20 GB layer: read somewhere", statistics.median(times) * 1000, "ms")
        figure("20 GB layer: RssAnon", anon_mib(mount), "MiB")
        mount.restart()
        figure("20 GB layer: stat after a remount", timed(lambda: os.stat(path)) * 1000, "ms", target=20)


def bench_scale_layers(bench):
    """an image of 127 layers, each with 100 files and one of the one below changed"""
    layers = []
    for number in range(127):
        tar = tarfiles.Tar().dir("all").dir(f"own{number}")
        tar.file("all/changing", f"{number}\n")
        for file in range(100):
            tar.file(f"own{number}/{file}", f"{number}\n").file(f"all/{number}-{file}", "x")
        layers.append(oci.Layer(tar.end()))
    with local_image(bench, layers) as mount:
        root = mount.path("many:latest/rootfs")
        figure("127 layers: first find", timed(lambda: quiet("find", root)) * 1000, "ms")
        assert (root / "all/changing").read_text() == "126\n"
        figure("127 layers: find again", timed(lambda: quiet("find", root)) * 1000, "ms")
        figure("127 layers: RssAnon", anon_mib(mount), "MiB")
        mount.restart()
        figure("127 layers: first ls after a remount", timed(lambda: quiet("ls", root / "all")) * 1000, "ms")


def bench_scale_images(bench):
    """100 images open at once, a file of each held open"""
    registry = bench.test.registry()
    for number in range(100):
        tar = tarfiles.Tar()
        for file in range(1000):
            tar.file(f"f{file}", f"{number} {file}\n")
        oci.Image([oci.Layer(tar.end())]).push(registry, "many", f"{number}")
    with bench.mounted(registry) as mount, contextlib.ExitStack() as opened:
        before = anon_mib(mount)
        seconds = []
        for number in range(100):
            path = mount.path(f"many:{number}/rootfs/f999")
            start = time.perf_counter()
            file = opened.enter_context(open(path, encoding="utf-8"))
            assert file.read() == f"{number} 999\n"
            seconds.append(time.perf_counter() - start)
        quiet("find", mount.path("many:50/rootfs"))
        figure("100 images open: RssAnon over an empty mount's", anon_mib(mount) - before, "MiB")
        first, last = (statistics.median(part) * 1000 for part in (seconds[:20], seconds[-20:]))
        figure("100 images: to open and read the last, over the first", last / first, "×", f"{first:.1f} ms")


def bench_scale_readers(bench):
    """64 readers at once, of files of 1 MiB in one gzip layer, each its own and all of them"""
    contents = [random.Random(number).randbytes(1 << 20) for number in range(64)]
    tar = tarfiles.Tar()
    for number, content in enumerate(contents):
        tar.file(f"f{number}", content)
    registry = bench.test.registry()
    oci.Image([oci.Layer(tar.end())]).push(registry, "many", "1")

    def read(path, number):
        for other in range(64):
            which = (number + other) % 64
            assert (path / f"f{which}").read_bytes() == contents[which], which

    with bench.mounted(registry) as mount, concurrent.futures.ThreadPoolExecutor(64) as pool:
        path = mount.path("many:1/rootfs")
        start = time.perf_counter()
        list(pool.map(lambda number: read(path, number), range(64)))
        figure("64 readers: all have read 64 MiB each", time.perf_counter() - start, "s",
               f"{registry.count()} requests")
        figure("64 readers: RssAnon", anon_mib(mount), "MiB")


def bench_scale_cache(bench):
    """the bookkeeping of a cache full of small blocks, their bytes left out"""
    for gib in (1, 10, 100):
        runs = [json.loads(quiet(ROOT / "build/bench/bench_cache", bench.fresh("bookkeeping"), gib))
                for _ in range(RUNS)]
        middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        note = f"{middle['entries']} entries"
        figure(f"cache of {gib} GB: find and touch a block", middle["find_ns"], "ns", note)
        figure(f"cache of {gib} GB: a block takes the place of the oldest", middle["replace_ns"], "ns")
        figure(f"cache of {gib} GB: open", middle["open_ms"], "ms",
               f"made anew {middle['make_ms']:.1f} ms, after a reboot {middle['reboot_ms']:.1f} ms", target=20)
