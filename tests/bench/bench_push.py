# SPDX-License-Identifier: Apache-2.0
"""Archives pushed."""
import concurrent.futures
import contextlib
import json
import os
import pathlib
import shutil
import statistics
import threading

from common import quiet, rss_anon_kib, timed
import images
import lib


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


class Peaks(threading.Thread):
    """The most that a mount's process holds in memory and in spool files, while it runs."""

    def __init__(self, mount):
        super().__init__(daemon=True)
        self.pid, self.cache = mount.process.pid, str(mount.test.dir / "cache")
        self.memory_kib = self.spool = 0
        self.ended = threading.Event()

    def spool_now(self):
        return sum(lib.unnamed_files(self.pid, self.cache).values())

    def run(self):
        while not self.ended.wait(0.02):
            with contextlib.suppress(OSError):
                self.memory_kib = max(self.memory_kib, rss_anon_kib(self.pid))
                self.spool = max(self.spool, self.spool_now())


def push_by_cp(bench, registry, archive, **options):
    """(seconds, CPU seconds, bytes sent, what was held) of cp into a fresh mount."""
    with bench.mounted(registry, **options) as mount:
        os.makedirs(mount.path("bench/app"))
        peaks = Peaks(mount)
        before = os.times()
        peaks.start()
        seconds = timed(lambda: quiet("cp", archive, mount.path("bench/app/_push/1.tar")))
        peaks.ended.set()
        peaks.join()
        cpu = cpu_seconds(mount.process.pid) + sum(os.times()[2:4]) - sum(before[2:4])
        return (seconds, cpu, mount.stats()["http_bytes_out"],
                f"memory {peaks.memory_kib / 1024:.0f} MiB, spool {peaks.spool / 1e6:.0f} MB")


def push_by_children(bench, registry, action):
    before = os.times()
    seconds = timed(action)
    return seconds, sum(os.times()[2:4]) - sum(before[2:4]), stored_bytes(registry), ""


def stored_bytes(registry):
    return sum(path.stat().st_size for path in registry.storage.rglob("blobs/*/*/*/data"))


def upload_by_curl(registry, layout, at_once):
    """Nothing but the blobs, so many at a time, and the manifest."""
    url = f"http://{registry.host}/v2/bench/app"

    def upload(blob):
        answer = quiet("curl", "-sS", "-o", os.devnull, "-w", "%header{location}", "-X", "POST", f"{url}/blobs/uploads/")
        where = answer.decode().strip()
        quiet("curl", "-sSf", "-X", "PUT", "-T", blob, "-H", "Content-Type: application/octet-stream",
              f"{where}{'&' if '?' in where else '?'}digest=sha256:{blob.name}")

    index = json.loads((layout / "index.json").read_text())
    blobs = layout / "blobs/sha256"
    top = index["manifests"][0]
    manifest = json.loads((blobs / top["digest"][7:]).read_text())
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        list(pool.map(upload, [blobs / part["digest"][7:] for part in [manifest["config"], *manifest["layers"]]]))
    quiet("curl", "-sSf", "-X", "PUT", "-H", f"Content-Type: {top['mediaType']}", "--data-binary",
          f"@{blobs / top['digest'][7:]}", f"{url}/manifests/1")


def measure_push(bench, ways):
    """Rounds of all WAYS (name: function of a registry), each with a registry of its own."""
    results = {name: [] for name in ways}
    for _ in range(3):
        for name, way in ways.items():
            registry = bench.test.registry()
            results[name].append((*way(registry), stored_bytes(registry)))
            registry.stop()
            shutil.rmtree(registry.storage)
    peer = list(ways)[-1]
    for name, runs in results.items():
        seconds, cpu = (statistics.median(run[i] for run in runs) for i in (0, 1))
        _, _, sent, held, stored = runs[-1]
        ratio = seconds / statistics.median(run[0] for run in results[peer])
        print(f"  {name:<28} {seconds:6.2f} s   ratio {ratio:5.2f}   CPU {cpu:5.2f} s   sent {sent / 1e6:6.1f} MB"
              f"   stored {stored / 1e6:6.1f} MB   {held}", flush=True)


def bench_push(bench):
    """cp of a docker save archive of 500 MB, and of the same as OCI archive, against skopeo copy and curl"""
    debian = images.debian()
    save, oci_archive = bench.dir / "save.tar", bench.dir / "oci.tar"
    quiet("skopeo", "copy", "-q", f"oci:{debian.layout('plain')}:latest", f"docker-archive:{save}:bench/app:1")
    quiet("skopeo", "copy", "-q", f"oci:{debian.layout('gzip')}:latest", f"oci-archive:{oci_archive}:1")

    def skopeo(kind, archive):
        return lambda registry: push_by_children(bench, registry, lambda: quiet(
            "skopeo", "copy", "-q", "--dest-tls-verify=false", f"{kind}:{archive}",
            f"docker://{registry.host}/bench/app:1"))

    print(f"  docker save, {save.stat().st_size / 1e6:.0f} MB:")
    measure_push(bench, {
        "cp (gzip)": lambda registry: push_by_cp(bench, registry, save),
        "cp (zstd)": lambda registry: push_by_cp(bench, registry, save, compress="zstd"),
        "skopeo copy": skopeo("docker-archive", save)})
    print(f"  OCI archive, {oci_archive.stat().st_size / 1e6:.0f} MB:")
    measure_push(bench, {
        "cp": lambda registry: push_by_cp(bench, registry, oci_archive),
        # From the push just before, by another process and to another registry.
        "cp, layers known": lambda registry: push_by_cp(bench, registry, oci_archive, cold=False),
        "cp (verify=stream)": lambda registry: push_by_cp(bench, registry, oci_archive, verify="stream"),
        "skopeo copy": skopeo("oci-archive", oci_archive),
        "curl, four blobs at a time": lambda registry: push_by_children(
            bench, registry, lambda: upload_by_curl(registry, debian.layout("gzip"), 4)),
        "curl, one blob at a time": lambda registry: push_by_children(
            bench, registry, lambda: upload_by_curl(registry, debian.layout("gzip"), 1))})
