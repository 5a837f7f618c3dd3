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


def test_index_damaged_under_the_mount(t):
    """It is dropped and made again out of what is cached: the registry is gone."""
    registry = t.registry()
    push_one(registry, "gzip")
    mount = t.mount(registry.host)
    noise = mount.path("one:gzip/rootfs/noise")
    right = noise.read_bytes()
    lib.equal(len(right), 3_000_000)
    registry.stop()
    for damage in (lambda path: os.truncate(path, 0), scribble):
        for index in (t.dir / "cache/files/index").iterdir():
            damage(index)
        with open(noise, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            lib.equal(file.read(), right)
    log = mount.read_log()
    lib.equal(log.count("damaged in the cache while it was in use"), 2)


def scribble(path):
    with open(path, "r+b") as file:
        file.write(b"\xff" * path.stat().st_size)


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
