# SPDX-License-Identifier: Apache-2.0
"""What mounts cost: memory, and time until the first answer."""
import statistics

from common import RUNS, figure, quiet, rss_anon_kib, timed
import images
import lib
import oci
import tarfiles


def bench_memory(bench):
    """ten images of 50,000 files each, open and walked"""
    registry = bench.test.registry()
    for number in range(10):
        tar = tarfiles.Tar()
        for directory in range(500):
            tar.dir(f"d{directory}")
            for file in range(99):
                tar.file(f"d{directory}/file-{number}-{file}", f"{number} {file}\n")
        oci.Image([oci.Layer(tar.end(), "gzip")]).push(registry, "many", f"{number}")
    with bench.mounted(registry) as mount:
        before = rss_anon_kib(mount.process.pid)
        peak = before
        for number in range(10):
            quiet("find", mount.path(f"many:{number}/rootfs"), "-ls")
            peak = max(peak, rss_anon_kib(mount.process.pid))
        print(f"  RssAnon when mounted: {before / 1024:.1f} MiB")
        figure("RssAnon, ten images of 50,000 files walked", peak / 1024, "MiB", target=64)


def bench_mount(bench):
    """mounting, and the first ls of an image that is cached"""
    debian = images.debian()
    registry = bench.test.registry(storage=debian.storage)
    with bench.mounted(registry, tag_ttl=3600) as mount:
        quiet("ls", mount.path("debian:gzip/rootfs"))
    point = bench.fresh("point")
    options = f"cache_dir={bench.test.dir / 'cache'},store={bench.test.dir / 'store'},tag_ttl=3600"
    registry.forget()
    mounts, lists = [], []
    for _ in range(RUNS):
        # It goes to the background once it is mounted.
        mounts.append(timed(lambda: quiet(lib.REGFS, "-o", options, registry.host, point)))
        lists.append(timed(lambda: quiet("ls", point / "debian:gzip/rootfs")))
        lib.unmount(point)
    note = f"{registry.count()} requests in {RUNS} rounds"
    figure("mount", statistics.median(mounts) * 1000, "ms", target=20)
    figure("first ls of a cached image", statistics.median(lists) * 1000, "ms", note, target=20)
