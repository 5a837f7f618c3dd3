# SPDX-License-Identifier: Apache-2.0
"""Blobs that the real docker-registry keeps elsewhere: its redirect middleware, and nginx as the other host."""
import os

import lib
import oci
import sample
from nginx import start_nginx


def redirected(t, extra=""):
    storage = t.dir / "storage"
    storage.mkdir()
    port, asked = start_nginx(t, storage, extra)
    registry = t.registry(storage, {"middleware": {"storage": [
        {"name": "redirect", "options": {"baseurl": f"http://127.0.0.1:{port}/"}}]}})
    pushed = sample.push_all(registry)
    return registry, pushed, asked


def test_redirect_to_nginx(t):
    """Blobs come from nginx; later ranges of one do not ask docker-registry again."""
    registry, pushed, asked = redirected(t)
    mount = t.mount(registry.host)
    lib.equal(mount.path("team/app:1.5/rootfs/noise").read_bytes(), sample.NOISE)
    base = oci.sha256(pushed["1.5"].layers[0].blob)
    lib.equal(registry.count("GET", f"/blobs/{base}"), 1)
    lines = lib.wait_for(lambda: asked.read_text().splitlines(), "nginx's log")
    assert any(base[7:] in line and " 200 " in line for line in lines), lines


def test_redirect_to_one_without_ranges(t):
    """max_ranges 0: all of it comes for each range, with status 200."""
    registry, pushed, asked = redirected(t, "max_ranges 0;")
    mount = t.mount(registry.host)
    blob = pushed["1.5"].layers[0].blob
    with open(mount.path("team/app/_blobs/sha256", oci.sha256(blob)[7:]), "rb", buffering=0) as file:
        lib.equal(os.pread(file.fileno(), 1000, len(blob) // 2), blob[len(blob) // 2:][:1000])
    lib.equal(mount.path("team/app:1.5/rootfs/noise").read_bytes(), sample.NOISE)
    assert " 206 " not in asked.read_text()
