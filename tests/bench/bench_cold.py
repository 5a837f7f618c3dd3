# SPDX-License-Identifier: Apache-2.0
"""Cold starts off plain gzip, over a wire of several lengths, against pulling the image with this machine's podman."""
import shutil

from cold import ROUND_TRIPS_MS, Cold, report, report_bytes, rounds
from common import podman, quiet
from wire import wire
import lib
import service

IMAGE = "service:gzip"
PEER = "podman pull + run"


def publish_index(bench, registry):
    """The image's index, put beside it."""
    bench.fresh("cache")
    quiet(lib.REGFS, "index", "push", "-o", f"cache_dir={bench.test.dir / 'cache'},insecure={registry.host}",
          f"{registry.host}/{IMAGE}")


def bench_cold_start(bench):
    """a python3 service started off a plain gzip image of 500 MB, against podman pull and run"""
    storage = bench.dir / "storage"
    shutil.copytree(service.storage(bench.test), storage)
    with wire() as line:
        registry = line.registry(bench, storage=storage)
        cold = Cold(bench, registry, IMAGE)
        files = sum(cold.files_read().values())
        print(f"  the program reads files of {files / 1e6:.1f} MB")
        index = cold.save_index()
        recorded = cold.save_run(index, cold.in_podman)
        publish_index(bench, registry)
        for milliseconds in ROUND_TRIPS_MS:
            line.round_trip(milliseconds)
            far = milliseconds == 100
            # The start (by podman, as the peer's, or bare), the cache there is, options, and the target.
            ways = {
                "saved index, podman run --rootfs": (cold.in_podman, index, {}, 0.6 if far else 0.15),
                "saved index, chroot": (cold.in_chroot, index, {}, None),
                "recorded run, podman run --rootfs": (cold.in_podman, recorded, {}, 0.2 if far else 0.15),
                "published index, podman run --rootfs": (cold.in_podman, None, {"trust_index": registry.host}, None),
                "never seen, podman run --rootfs": (cold.in_podman, None, {}, 0.7),
            }
            runs = rounds({
                **{name: lambda way=way: cold.off_the_mount(way[0], way[1], **way[2]) for name, way in ways.items()},
                PEER: cold.pulled,
            })
            for name, way in ways.items():
                report(f"{milliseconds} ms, {name}", runs[name], PEER, runs[PEER], way[3])
            report_bytes(f"{milliseconds} ms, saved index: bytes fetched", runs["saved index, podman run --rootfs"],
                         "of the files read", files, 1.5)
        line.round_trip(0)
    quiet(*podman(bench, "rmi", "-af"))
