# SPDX-License-Identifier: Apache-2.0
"""Cold starts off images with tables of contents, against stargz-snapshotter's store."""
import statistics

from cold import ROUND_TRIPS_MS, Cold, report, report_bytes, rounds
from wire import wire
import service
import stargz


class Peer:
    """Starts off the eStargz image by the peer."""

    def __init__(self, bench, registry):
        self.bench, self.registry = bench, registry
        self.layers = service.layer_digests(registry, "service", "estargz")

    def start(self, cold):
        store = stargz.Store(self.bench, self.registry.host, "-lazy")

        def mount_and_run():
            with store.rootfs("service:estargz", self.layers) as root:
                cold.in_chroot(root)

        try:
            return cold.measured(mount_and_run)
        finally:
            store.stop()


def bench_lazy_start(bench):
    """a python3 service started off eStargz and zstd:chunked of 500 MB, against stargz-store on the eStargz one"""
    stargz.build()
    storage = service.storage(bench.test)
    with wire() as line:
        registry = line.registry(bench, storage=storage)
        peer = Peer(bench, registry)
        ours = {tag: Cold(bench, registry, f"service:{tag}") for tag in service.FORMATS}
        print("  the peer does not fetch in the background")
        for milliseconds in ROUND_TRIPS_MS:
            line.round_trip(milliseconds)
            runs = rounds({
                **{tag: lambda cold=cold: cold.off_the_mount(cold.in_chroot) for tag, cold in ours.items()},
                "peer": lambda: peer.start(ours["estargz"]),
            })
            their_bytes = statistics.median(run[2] for run in runs["peer"])
            for tag in ours:
                what = f"{milliseconds} ms, {tag}, chroot"
                report(what, runs[tag], stargz.version(), runs["peer"], 0.8)
                report_bytes(f"{what}: bytes fetched", runs[tag], stargz.version(), their_bytes, 1)
        line.round_trip(0)
