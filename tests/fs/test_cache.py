# SPDX-License-Identifier: Apache-2.0
"""regfs cache verify: the diff IDs of layers, out of the cache, with no registry there."""
import os

import lib
import oci
import tarfiles


def push_one(registry, compression):
    tar = tarfiles.Tar().file("noise", os.urandom(3_000_000)).end()
    return oci.Image([oci.Layer(tar, compression)]).push(registry, "one", compression)


def verify(t, status=0):
    return t.run(lib.REGFS, "cache", "verify", "--cache-dir", t.dir / "cache", status=status).stdout.decode()


def test_verify_knows_diff_ids(t):
    registry = t.registry()
    mount = t.mount(registry.host)
    for compression in ("gzip", "zstd", "none"):
        push_one(registry, compression)
        lib.equal(os.path.getsize(mount.path(f"one:{compression}/rootfs/noise")), 3_000_000)
    mount.stop()
    registry.stop()
    found = verify(t)
    assert "3 right, 0 wrong, 0 not whole" in found, found


def test_verify_passes_over_what_is_not_whole(t):
    registry = t.registry()
    mount = t.mount(registry.host, cache_size="2M")
    push_one(registry, "gzip")
    lib.equal(os.path.getsize(mount.path("one:gzip/rootfs/noise")), 3_000_000)
    mount.stop()
    found = verify(t)
    assert "0 wrong" in found, found


def test_index_cut_under_the_mount(t):
    """Nothing wrong is shown, the log says why, and the next mount has it again."""
    registry = t.registry()
    push_one(registry, "gzip")
    mount = t.mount(registry.host)
    noise = mount.path("one:gzip/rootfs/noise")
    lib.equal(os.path.getsize(noise), 3_000_000)
    for index in (t.dir / "cache/files/index").iterdir():
        os.truncate(index, 0)
    with lib.fails(5):
        noise.read_bytes()
    assert "damaged in the cache while it was in use" in mount.read_log(), mount.read_log()
    mount.restart()
    lib.equal(len(noise.read_bytes()), 3_000_000)


def test_config_that_says_another_diff_id(t):
    """Computed while the layer streamed or by verify, a wrong diff ID is EIO from then on."""
    registry = t.registry()
    tar = tarfiles.Tar().file("noise", os.urandom(3_000_000)).end()
    liar = {"rootfs": {"type": "layers", "diff_ids": ["sha256:" + "0" * 64]}}
    oci.Image([oci.Layer(tar, "gzip")], config=liar).push(registry, "one", "liar")
    mount = t.mount(registry.host)
    try:
        os.stat(mount.path("one:liar/rootfs/noise"))
    except OSError:
        pass  # a core was idle
    mount.stop()
    assert "0 wrong" in verify(t)
    mount.start()
    with lib.fails(5):
        os.stat(mount.path("one:liar/rootfs/noise"))
    assert "diff ID" in mount.read_log()
