# SPDX-License-Identifier: Apache-2.0
"""Archives pushed."""
import concurrent.futures
import contextlib
import functools
import json
import os
import pathlib
import shutil
import statistics
import threading

from common import RUNS, quiet, rss_anon_kib, timed
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


@contextlib.contextmanager
def watched(mount, ret):
    """Fills RET with the peaks of what goes on inside."""
    peaks = Peaks(mount)
    peaks.start()
    yield
    peaks.ended.set()
    peaks.join()
    ret.append(f"memory {peaks.memory_kib / 1024:.0f} MiB, spool {peaks.spool / 1e6:.0f} MB")


def push_by_cp(bench, registry, archive, held=None, **options):
    """(seconds, CPU seconds, bytes sent) of cp into a fresh mount. With HELD, what was held is put there, which
    takes some of the time that it is about."""
    with bench.mounted(registry, **options) as mount:
        os.makedirs(mount.path("bench/app"))
        before = os.times()
        with contextlib.nullcontext() if held is None else watched(mount, held):
            seconds = timed(lambda: quiet("cp", archive, mount.path("bench/app/_push/1.tar")))
        cpu = cpu_seconds(mount.process.pid) + sum(os.times()[2:4]) - sum(before[2:4])
        return seconds, cpu, mount.stats()["http_bytes_out"]


def push_by_children(bench, registry, action):
    before = os.times()
    seconds = timed(action)
    return seconds, sum(os.times()[2:4]) - sum(before[2:4]), stored_bytes(registry)


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


@contextlib.contextmanager
def fresh_registry(bench):
    registry = bench.test.registry()
    yield registry
    registry.stop()
    shutil.rmtree(registry.storage)


def measure_push(bench, ways):
    """Rounds of all WAYS (name: function of a registry), each with a registry of its own. Those of cp also take
    HELD: a round of their own, before."""
    results, held = {name: [] for name in ways}, {name: [] for name in ways}
    for name, way in ways.items():
        if name.startswith("cp"):
            with fresh_registry(bench) as registry:
                way(registry, held=held[name])
    for _ in range(RUNS):
        for name, way in ways.items():
            with fresh_registry(bench) as registry:
                results[name].append((*way(registry), stored_bytes(registry)))
    peer = list(ways)[-1]
    for name, runs in results.items():
        seconds, cpu = (statistics.median(run[i] for run in runs) for i in (0, 1))
        _, _, sent, stored = runs[-1]
        ratio = seconds / statistics.median(run[0] for run in results[peer])
        print(f"  {name:<28} {seconds:6.2f} s   ratio {ratio:5.2f}   CPU {cpu:5.2f} s   sent {sent / 1e6:6.1f} MB"
              f"   stored {stored / 1e6:6.1f} MB   {''.join(held[name])}", flush=True)


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
        "cp (gzip)": functools.partial(push_by_cp, bench, archive=save),
        "cp (zstd)": functools.partial(push_by_cp, bench, archive=save, compress="zstd"),
        "skopeo copy": skopeo("docker-archive", save)})
    print(f"  OCI archive, {oci_archive.stat().st_size / 1e6:.0f} MB:")
    measure_push(bench, {
        "cp": functools.partial(push_by_cp, bench, archive=oci_archive),
        # From the push just before, by another process and to another registry.
        "cp, layers known": functools.partial(push_by_cp, bench, archive=oci_archive, cold=False),
        "cp (verify=stream)": functools.partial(push_by_cp, bench, archive=oci_archive, verify="stream"),
        "skopeo copy": skopeo("oci-archive", oci_archive),
        "curl, four blobs at a time": lambda registry: push_by_children(
            bench, registry, lambda: upload_by_curl(registry, debian.layout("gzip"), 4)),
        "curl, one blob at a time": lambda registry: push_by_children(
            bench, registry, lambda: upload_by_curl(registry, debian.layout("gzip"), 1))})
