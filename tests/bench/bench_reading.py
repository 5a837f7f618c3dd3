# SPDX-License-Identifier: Apache-2.0
"""Files of an image read: never seen, cached, and the first pass."""
import json
import os
import pathlib
import shutil
import statistics
import subprocess

from common import ROOT, RUNS, podman, quiet, row, timed
import images
import lib


def bench_cold_cat(bench):
    """cat of one file, nothing cached, against pulling the image first"""
    debian = images.debian()
    registry = bench.test.registry(storage=debian.storage)

    def cat(path):
        with bench.mounted(registry) as mount:
            quiet("cat", mount.path(path))

    def skopeo_umoci():
        where = bench.fresh("peer")
        quiet("skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{registry.host}/debian:gzip",
              f"oci:{where}/layout:x")
        quiet("umoci", "unpack", "--image", f"{where}/layout:x", where / "bundle")

    def podman_pull():
        quiet(*podman(bench, "rmi", "-af"))
        quiet(*podman(bench, "pull", "-q", "--tls-verify=false", f"{registry.host}/debian:gzip"))

    for what, path in (("cat, file of the top layer", "debian:gzip/layers/06/etc/os-release"),
                       ("cat, file found in the base layer", "debian:gzip/rootfs/etc/debian_version")):
        if "top" in what:
            path = "debian:gzip/rootfs/" + top_file(bench, registry)
        ours = [bench.bytes_of(registry, lambda path=path: cat(path)) for _ in range(RUNS)]
        for peer_name, peer in (("skopeo + umoci unpack", skopeo_umoci), ("podman pull", podman_pull)):
            theirs = [bench.bytes_of(registry, peer) for _ in range(3)]
            row(what, statistics.median(o[0] for o in ours), peer_name, statistics.median(t[0] for t in theirs),
                f"bytes {ours[-1][2] / 1e6:.1f} MB in {ours[-1][1]} requests, theirs {theirs[-1][2] / 1e6:.1f} MB")
    with bench.mounted(registry) as mount:
        path = mount.path("debian:gzip/rootfs/etc/debian_version")
        quiet("cat", path)
    indexed = []
    for _ in range(RUNS):
        with bench.mounted(registry, cold=False) as mount:
            indexed.append(timed(lambda: quiet("cat", mount.path("debian:gzip/rootfs/etc/debian_version"))))
    print(f"  the same after a remount, index and blocks kept: {statistics.median(indexed) * 1000:.1f} ms")


def top_file(bench, registry):
    """A file that the top layer decides."""
    with bench.mounted(registry) as mount:
        layers = sorted(path for path in os.listdir(mount.path("debian:gzip/layers")) if path.isdigit())
        top = mount.path("debian:gzip/layers", layers[-1])
        for directory, _, names in os.walk(top):
            for name in sorted(names):
                path = os.path.join(directory, name)
                if not name.startswith(".wh.") and os.path.isfile(path) and not os.path.islink(path):
                    return os.path.relpath(path, top)
    raise RuntimeError("the top layer has no file")


def bench_first_pass(bench):
    """a gzip layer never seen: fetched, hashed, decompressed, indexed"""
    debian = images.debian()
    registry = bench.test.registry(storage=debian.storage)
    index = json.loads((debian.layout("gzip") / "index.json").read_text())
    blobs = debian.layout("gzip") / "blobs/sha256"
    manifest = json.loads((blobs / index["manifests"][0]["digest"][7:]).read_text())
    number, layer = max(enumerate(manifest["layers"], 1), key=lambda pair: pair[1]["size"])
    blob = blobs / layer["digest"][7:]
    decoded = int(subprocess.run(f"gzip -dc {blob} | wc -c", shell=True, capture_output=True,
                                 check=True).stdout)
    report = quiet(ROOT / "build/bench/bench_codec", blob).decode()
    bare = max(float(line.split()[-2]) for line in report.splitlines()
               if "MB/s" in line and "ISA-L" in line)
    store = bench.test.dir / "store"
    store.mkdir(exist_ok=True)
    shutil.copytree(debian.layout("gzip"), store / "debian")

    def first_pass(source, image):
        shutil.rmtree(bench.test.dir / "cache", ignore_errors=True)
        mount = bench.test.mount(source, log="error")
        try:
            os.listdir(mount.path(f"{image}/layers"))
            return timed(lambda: os.listdir(mount.path(f"{image}/layers/{number:02}")))
        finally:
            mount.stop()

    print(f"  layer of {layer['size'] / 1e6:.0f} MB, {decoded / 1e6:.0f} MB decoded;"
          f" ISA-L alone {bare:.0f} MB/s")
    for where, source, image in (("the registry", registry.host, "debian:gzip"),
                                 ("the embedded store", "local", "debian:latest")):
        ours = decoded / statistics.median(first_pass(source, image) for _ in range(RUNS)) / 1e6
        print(f"  from {where}: {ours:.0f} MB/s   ratio {ours / bare:.2f}", flush=True)


def bench_random_reads(bench):
    """4 KiB at random in a gzip layer that is cached and indexed, against zran's way from the same points"""
    layout = images.debian().layout("gzip")
    index = json.loads((layout / "index.json").read_text())
    manifest = json.loads((layout / "blobs/sha256" / index["manifests"][0]["digest"][7:]).read_text())
    layer = max(manifest["layers"], key=lambda one: one["size"])
    runs = [[float(word) for word in quiet(ROOT / "build/bench/bench_zran", layout.parent, layout.name, layer["digest"],
                                           layer["size"], bench.fresh("cache")).split()] for _ in range(RUNS)]
    ours, theirs, reads = (statistics.median(column) for column in zip(*runs))
    row("4 KiB in a file of the layer", ours, "zlib, the same points", theirs,
        f"{reads:.0f} reads, each from another point; without FUSE", 1.2)
