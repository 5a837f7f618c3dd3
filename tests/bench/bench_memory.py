# SPDX-License-Identifier: Apache-2.0
"""What an open image costs in memory, against stargz-snapshotter's store."""
import statistics

from common import RUNS, quiet, row, rss_anon_kib
import large
import oci
import service
import stargz

FILES = 100000


def bench_memory_per_file(bench):
    """RssAnon for an open eStargz image of 100,000 files, all of them walked, against stargz-store"""
    registry = bench.test.registry()
    oci.Image([large.Layer(large.many_files(FILES // 500, 500))]).push(registry, "many", "gzip")
    layers = service.convert(bench.test, registry, "many", {"estargz": "--estargz"})["estargz"]

    def ours():
        with bench.mounted(registry) as mount:
            before = rss_anon_kib(mount.process.pid)
            quiet("find", mount.path("many:estargz/rootfs"), "-size", "+1M")
            return rss_anon_kib(mount.process.pid) - before

    def theirs():
        store = stargz.Store(bench, registry.host, "-lazy")
        try:
            before = rss_anon_kib(store.process.pid)
            with store.rootfs("many:estargz", layers) as root:
                quiet("find", root, "-size", "+1M")
                return rss_anon_kib(store.process.pid) - before
        finally:
            store.stop()

    runs = [(ours(), theirs()) for _ in range(RUNS)]
    mine, peer = (statistics.median(column) / 1024 for column in zip(*runs))
    row("memory (RssAnon) for 100,000 files of an open image", mine, stargz.version(), peer, target=0.2, unit="MiB")
