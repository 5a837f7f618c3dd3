# SPDX-License-Identifier: Apache-2.0
"""Cold starts off plain gzip, over a wire of several lengths, against pulling the image with this machine's podman."""
from cold import ROUND_TRIPS_MS, Cold, report, rounds
from wire import wire
import service


def bench_cold_start(bench):
    """a python3 service started off a plain gzip image of 500 MB, against podman pull and run"""
    with wire() as line:
        registry = line.registry(bench, storage=service.storage(bench.test))
        cold = Cold(bench, registry, "service:gzip")
        saved, files = cold.save_index(), cold.files_read()
        recorded = cold.save_run(saved, cold.in_podman)
        total = sum(files.values())
        print(f"  the program reads {len(files)} files of {total / 1e6:.1f} MB")
        for milliseconds in ROUND_TRIPS_MS:
            line.round_trip(milliseconds)
            runs = rounds({
                "saved": lambda: cold.off_the_mount(cold.in_podman, saved),
                "recorded": lambda: cold.off_the_mount(cold.in_podman, recorded),
                "chroot": lambda: cold.off_the_mount(cold.in_chroot, saved),
                "never seen": lambda: cold.off_the_mount(cold.in_podman),
                "pull": cold.pulled,
            })
            at = f"at {milliseconds} ms"
            target = 0.6 if milliseconds == 100 else 0.15
            peer = "podman pull + run"
            report(f"{at}, saved index, podman run --rootfs", runs["saved"], peer, runs["pull"], target, total)
            report(f"{at}, saved index, chroot", runs["chroot"], peer, runs["pull"], target, total)
            report(f"{at}, recorded run, podman run --rootfs", runs["recorded"], peer, runs["pull"],
                   0.2 if milliseconds == 100 else 0.15, total)
            report(f"{at}, never seen, podman run --rootfs", runs["never seen"], peer, runs["pull"], 0.7)
        line.round_trip(0)
