# SPDX-License-Identifier: Apache-2.0
"""What goes wrong, as errnos and words: registries that refuse, lie, stall and vanish; damaged
content; a damaged, full or deleted cache. And that all else goes on."""
import errno
import gzip
import json
import os
import random
import shutil
import signal
import threading
import time

import lib
import oci
import sample
import tree
from tarfiles import Tar

VERSION = "team/app:1.5/rootfs/app/version"


def bad(t, **options):
    """A server that can misbehave, with the sample in it, mounted."""
    registry = t.bad_registry()
    pushed = sample.push_all(registry)
    return registry, pushed, t.mount(registry.host, **{"timeout": 5, "name_timeout": 5, "tag_ttl": 0, **options})


def json_error(code, message):
    return json.dumps({"errors": [{"code": code, "message": message}]})


def check_answer(t, number, words, path, **actions):
    """The server answers requests for PATH like this: reading fails with errno NUMBER, the log has WORDS."""
    registry, _, mount = bad(t)
    registry.rule("GET|HEAD", path, **actions)
    with lib.fails(number):
        mount.path(VERSION).read_bytes()
    assert words in mount.read_log(), mount.read_log()
    # It has an end, and it is not kept.
    registry.rules.clear()
    lib.wait_for(lambda: readable(mount.path(VERSION)), "the file, once the registry is well again")
    lib.equal(mount.path("team/app:1.4/rootfs/app/version").read_text(), "1.4")


def readable(path):
    try:
        return path.read_bytes()
    except OSError:
        return None


# --- answers ---


def test_unauthorized(t):
    check_answer(t, errno.EACCES, "log in", "/manifests/", status=401, body=json_error("UNAUTHORIZED", "log in"))


def test_forbidden(t):
    check_answer(t, errno.EACCES, "not for you", "/blobs/", status=403, body=json_error("DENIED", "not for you"))


def test_not_found(t):
    registry, _, mount = bad(t, log="debug")
    registry.rule("GET", "/blobs/", status=404, body=json_error("BLOB_UNKNOWN", "no such blob"))
    with lib.fails(errno.ENOENT, errno.EIO):
        mount.path(VERSION).read_bytes()
    assert "no such blob" in mount.read_log(), mount.read_log()


def test_server_error(t):
    check_answer(t, errno.EIO, "500", "/manifests/", status=500, body="kaput")


def test_html(t):
    check_answer(t, errno.EIO, "team/app", "/manifests/", status=200, body="<html>log in here</html>",
                 headers={"Content-Type": "text/html"})


def test_json_that_is_none(t):
    check_answer(t, errno.EIO, "team/app", "/manifests/", status=200, body='{"schemaVersion": 2, ',
                 headers={"Content-Type": oci.MANIFEST})


def test_rate_limit(t):
    check_answer(t, errno.EBUSY, "429 (it asks for a pause of 3600 s)", "/manifests/", status=429, headers={"Retry-After": "3600"})


def test_rate_limit_that_passes(t):
    registry, _, mount = bad(t)
    registry.rule("GET|HEAD", "/manifests/", times=1, status=429, headers={"Retry-After": "1"})
    lib.equal(mount.path(VERSION).read_text(), "1.5")


def test_server_error_that_passes(t):
    registry, _, mount = bad(t)
    registry.rule("GET", "/blobs/", times=1, status=503)
    registry.rule("GET", "/blobs/", times=1, reset=True)
    lib.equal(mount.path(VERSION).read_text(), "1.5")


def test_nobody_answers(t):
    mount = t.mount(f"localhost:{lib.free_port()}", timeout=5)
    with lib.fails(errno.ECONNREFUSED):
        os.stat(mount.path("team/app:1.5"))
    assert mount.source in mount.read_log(), mount.read_log()


def test_manifest_too_large(t):
    registry = t.bad_registry()
    image = sample.image()
    large = oci.Image([oci.Layer(sample.top_tar("1.5"))], annotations={"x": "y" * (5 << 20)})
    image.push(registry, "team/app", "1.4")
    large.push(registry, "team/app", "1.5")
    mount = t.mount(registry.host)
    with lib.fails(errno.EIO):
        mount.path(VERSION).read_bytes()
    lib.equal(mount.path("team/app:1.4/rootfs/app/version").read_text(), "1.5")


def test_manifest_with_a_wrong_digest(t):
    registry, pushed, mount = bad(t)
    registry.rule("GET", "/manifests/", flip=40)
    with lib.fails(errno.EIO):
        mount.path(f"team/app@{pushed['1.5'].digest}/manifest.json").read_bytes()
    assert pushed["1.5"].digest in mount.read_log(), mount.read_log()


def test_config_that_does_not_match(t):
    registry = t.bad_registry()
    layer = oci.Layer(sample.top_tar("1.5"))
    oci.Image([layer], {"rootfs": {"type": "layers", "diff_ids": ["sha256:" + "0" * 64] * 2}}).push(
        registry, "team/app", "1.5")
    mount = t.mount(registry.host)
    with lib.fails(errno.EIO):
        mount.path(VERSION).read_bytes()
    assert "diff" in mount.read_log(), mount.read_log()


# --- bytes ---


def check_blob(t, **actions):
    """Blobs that arrive like this give EIO and are not kept; both digests are logged."""
    registry, pushed, mount = bad(t)
    top = oci.sha256(pushed["1.5"].layers[1].blob)
    registry.rule("GET", f"/blobs/{top}", **actions)
    with lib.fails(errno.EIO):
        mount.path(VERSION).read_bytes()
    # Of another image nothing is affected.
    lib.equal(mount.path("team/app:1.4/rootfs/app/version").read_text(), "1.4")
    log = mount.read_log()
    assert top in log or top[7:19] in log, log
    registry.rules.clear()
    mount.restart()
    lib.equal(mount.path(VERSION).read_text(), "1.5")


def test_blob_with_a_wrong_bit(t):
    check_blob(t, flip=100)


def test_blob_that_is_another(t):
    check_blob(t, status=200, body="something else entirely")


def test_blob_cut_short(t):
    """However often it is asked for; with any progress at all it would be taken up where it stopped."""
    check_blob(t, truncate=0)


def test_blob_too_long_is_not_believed(t):
    """What the server sends beyond the blob's size never shows."""
    registry, pushed, mount = bad(t)
    registry.rule("GET", "/blobs/", extra=1000)
    data = readable(mount.path("team/app:1.5/rootfs/noise"))
    assert data in (None, sample.NOISE)
    assert pushed


def test_blob_with_a_lying_length(t):
    registry, _, mount = bad(t)
    registry.rule("GET", "/blobs/", set={"Content-Length": "10"})
    with lib.fails(errno.EIO):
        mount.path(VERSION).read_bytes()


def test_connection_that_drops(t):
    """A body that ends early is taken up where it stopped."""
    registry, _, mount = bad(t)
    registry.rule("GET", "/blobs/", times=2, truncate=100000)
    lib.equal(mount.path("team/app:1.5/rootfs/noise").read_bytes(), sample.NOISE)


def test_raw_blob_with_a_wrong_digest(t):
    """A raw blob streams, but cannot be read to its end."""
    registry, pushed, mount = bad(t)
    base = oci.sha256(pushed["1.5"].layers[0].blob)
    registry.rule("GET", f"/blobs/{base}", flip=1000)
    got = b""
    with lib.fails(errno.EIO):
        with open(mount.path("team/app:1.5/layers/01.tar.gz"), "rb", buffering=0) as file:
            while piece := file.read(65536):
                got += piece
    assert len(got) < len(pushed["1.5"].layers[0].blob), len(got)
    # Nor later, when the registry has it right: what was read wrong is not given again by the kernel.
    registry.rules.clear()
    path = mount.path("team/app:1.5/layers/01.tar.gz")
    lib.wait_for(lambda: readable(path), "the blob to be right")
    lib.equal(oci.sha256(path.read_bytes()), base)


def broken_layer(t, layer):
    """An image of this layer: EIO where it is needed; another image is unaffected."""
    registry = t.registry()
    oci.Image([layer]).push(registry, "broken", "1")
    sample.push_all(registry)
    mount = t.mount(registry.host)
    with lib.fails(errno.EIO):
        tree.read(mount.path("broken:1/rootfs"))
    lib.equal(mount.path(VERSION).read_text(), "1.5")
    assert "broken" in mount.read_log() or oci.sha256(layer.blob)[7:19] in mount.read_log(), mount.read_log()
    # As stored it is what it is.
    name = "01.tar.gz" if layer.media_type.endswith("gzip") else "01.tar"
    lib.equal(mount.path("broken:1/layers", name).read_bytes(), layer.blob)


def test_layer_cut_in_a_member(t):
    broken_layer(t, oci.Layer(Tar().file("a", "x" * 5000).file("b", "y" * 5000).cut(8000)))


def test_layer_cut_in_a_header(t):
    broken_layer(t, oci.Layer(Tar().file("a", "x").file("b", "y").cut(1024 + 300)))


def test_layer_that_is_no_tar(t):
    broken_layer(t, oci.Layer(random.Random(2).randbytes(20000), "none"))


def test_layer_with_a_wrong_checksum(t):
    data = bytearray(Tar().file("a", "x").file("b", "y").end())
    data[1024 + 5] ^= 1
    broken_layer(t, oci.Layer(bytes(data)))


def test_layer_cut_in_its_gzip(t):
    tar = Tar().file("a", sample.NOISE).end()
    broken_layer(t, oci.Layer(tar, blob=gzip.compress(tar, mtime=0)[:300_000]))


def test_layer_with_a_wrong_gzip_sum(t):
    tar = Tar().file("a", "x" * 10000).end()
    blob = bytearray(gzip.compress(tar, mtime=0))
    blob[-6] ^= 1
    broken_layer(t, oci.Layer(tar, blob=bytes(blob)))


# --- silence ---


def test_stalled_registry_stops_nothing_else(t):
    """SIGSTOP in the middle: 64 readers wait, each ends at once by Ctrl-C, the rest of the mount goes on."""
    registry = t.registry()
    sample.push_all(registry)
    mount = t.mount(registry.host, tag_ttl=3600)
    lib.equal(mount.path("team/app:1.4/rootfs/noise").read_bytes(), sample.NOISE)
    os.stat(mount.path("team/app:1.5/rootfs"))
    os.stat(mount.path("solo:1/rootfs"))
    os.listdir(mount.path("team/app/_tags"))
    os.listdir(mount.point)
    registry.process.signal(signal.SIGSTOP)
    try:
        readers = [t.start("cat", mount.path("team/app:1.5/rootfs/app/version" if number % 2 else
                                             "solo:1/rootfs/app/version")) for number in range(64)]
        lib.wait_for(lambda: mount.stats()["fuse_waiting_now"] >= 2, "readers that wait")
        # What is cached, and what needs no registry, is usable.
        lib.equal(mount.path("team/app:1.4/rootfs/noise").read_bytes(), sample.NOISE)
        lib.equal(mount.path("team/app:1.4/rootfs/app/version").read_text(), "1.4")
        t.run("ls", "-l", mount.point, mount.path("team/app/_tags"), mount.path("team/app:1.5"))
        os.statvfs(mount.point)
        for reader in readers:
            reader.signal(signal.SIGINT)
        for reader in readers:
            lib.equal(reader.wait(), -signal.SIGINT)
    finally:
        registry.process.signal(signal.SIGCONT)
    lib.equal(mount.path(VERSION).read_text(), "1.5")


def test_stalled_lookup_is_interrupted(t):
    registry = t.registry()
    sample.push_all(registry)
    mount = t.mount(registry.host, name_timeout=600)
    registry.process.signal(signal.SIGSTOP)
    try:
        process = t.start("stat", mount.path("team/app:1.5"))
        lib.wait_for(lambda: mount.stats()["fuse_waiting_now"] >= 1, "the lookup to wait")
        process.signal(signal.SIGINT)
        lib.equal(process.wait(), -signal.SIGINT)
    finally:
        registry.process.signal(signal.SIGCONT)
    lib.equal(mount.path(VERSION).read_text(), "1.5")


def test_many_lookups_of_one_name_wait_once(t):
    """The kernel lets one of them through at a time: what one was told is the answer of those behind it."""
    registry = t.registry()
    sample.push_all(registry)
    mount = t.mount(registry.host, name_timeout=3)
    registry.process.signal(signal.SIGSTOP)
    try:
        lookups = [t.start("stat", mount.path("team/app:1.5")) for _ in range(64)]
        # One wait each would be three minutes.
        for lookup in lookups:
            lib.equal(lookup.wait(), 1)
    finally:
        registry.process.signal(signal.SIGCONT)
    lib.wait_for(lambda: os.path.exists(mount.path(VERSION)), "the registry to be asked again")


def test_a_stall_has_an_end(t):
    """timeout= without any progress, name_timeout= for a name."""
    registry = t.registry()
    sample.push_all(registry)
    mount = t.mount(registry.host, timeout=2, name_timeout=2)
    os.stat(mount.path("team/app:1.5/rootfs"))
    registry.process.signal(signal.SIGSTOP)
    try:
        with lib.fails(errno.ETIMEDOUT, errno.EHOSTUNREACH):
            mount.path(VERSION).read_bytes()
        with lib.fails(errno.ETIMEDOUT, errno.EHOSTUNREACH):
            os.stat(mount.path("solo:1"))
    finally:
        registry.process.signal(signal.SIGCONT)
    lib.wait_for(lambda: readable(mount.path(VERSION)), "the file")


def test_slow_is_not_stalled(t):
    """A layer may take longer than timeout= as long as it makes progress."""
    registry, pushed, mount = bad(t, timeout=2)
    base = oci.sha256(pushed["1.5"].layers[0].blob)
    registry.rule("GET", f"/blobs/{base}", slow=150_000)
    start = time.monotonic()
    lib.equal(mount.path("team/app:1.5/rootfs/noise").read_bytes(), sample.NOISE)
    assert time.monotonic() - start > 2, "the server was not slow enough to tell"


def test_stall_in_a_body(t):
    registry, pushed, mount = bad(t, timeout=2)
    base = oci.sha256(pushed["1.5"].layers[0].blob)
    registry.rule("GET", f"/blobs/{base}", stall_after=100_000, times=1)
    data = readable(mount.path("team/app:1.5/rootfs/noise"))
    assert data in (None, sample.NOISE)
    lib.wait_for(lambda: readable(mount.path("team/app:1.5/rootfs/noise")) == sample.NOISE, "the file")


def test_unmount_while_a_blob_is_asked_for(t):
    """Its reader is gone, and it is waited for a while yet: who does ends before the store that it asks."""
    registry, pushed, mount = bad(t)
    blob = f"/blobs/{oci.sha256(pushed['1.5'].layers[0].blob)}"
    registry.rule("GET", blob, stall=None)
    reader = t.start("cat", mount.path("team/app:1.5/layers/01.tar.gz"))
    lib.wait_for(lambda: registry.count("GET", blob), "the request")
    reader.signal(signal.SIGKILL)
    reader.wait()
    mount.stop()


def test_single_threaded(t):
    """-s: a request that waits does not keep others out."""
    registry = t.registry()
    sample.push_all(registry)
    mount = t.mount(registry.host, "-s")
    os.stat(mount.path("team/app:1.5/rootfs"))
    registry.process.signal(signal.SIGSTOP)
    try:
        process = t.start("cat", mount.path(VERSION))
        lib.wait_for(lambda: mount.stats()["fuse_waiting_now"] >= 1, "the reader to wait")
        os.statvfs(mount.point)
        process.signal(signal.SIGINT)
        lib.equal(process.wait(), -signal.SIGINT)
    finally:
        registry.process.signal(signal.SIGCONT)
    lib.equal(mount.path(VERSION).read_text(), "1.5")


# --- the registry gone ---


def test_what_is_cached_outlives_the_registry(t):
    registry = t.registry()
    sample.push_all(registry)
    mount = t.mount(registry.host, tag_ttl=0, timeout=5)
    expected = tree.read(mount.path("team/app:1.5/rootfs"))
    names = [sorted(os.listdir(mount.path(path))) for path in ("", "team/app/_tags")]
    registry.stop()
    for _ in range(2):
        lib.equal(tree.read(mount.path("team/app:1.5/rootfs")), expected)
        lib.equal([sorted(os.listdir(mount.path(path))) for path in ("", "team/app/_tags")], names)
        mount.restart()
    with lib.fails(errno.ECONNREFUSED):
        os.stat(mount.path("team/app:1.4/rootfs"))


def test_offline(t):
    registry = t.registry()
    sample.push_all(registry)
    mount = t.mount(registry.host)
    lib.equal(mount.path(VERSION).read_text(), "1.5")
    mount.stop()
    registry.forget()
    mount.options["offline"] = True
    mount.start()
    lib.equal(mount.path(VERSION).read_text(), "1.5")
    with lib.fails(errno.EHOSTUNREACH):
        os.symlink("1.5", mount.path("team/app/_tags/new"))
    assert "this mount is offline" in mount.read_log()
    lib.equal(registry.count(), 0)


def test_mounting_needs_no_registry(t):
    port = lib.free_port()
    mount = t.mount(f"localhost:{port}", timeout=5)
    os.statvfs(mount.point)
    assert mount.path("_regfs/version").read_text().strip()
    lib.equal(mount.stats()["http_requests"], 0)


def test_a_registry_that_comes_back(t):
    registry = t.registry()
    sample.push_all(registry)
    mount = t.mount(registry.host, tag_ttl=0, timeout=5)
    registry.stop()
    with lib.fails(errno.ECONNREFUSED):
        os.stat(mount.path("team/app:1.5"))
    registry.start()
    lib.wait_for(lambda: readable(mount.path(VERSION)) == b"1.5", "the file")


# --- the cache ---


def damage(directory, seed):
    """Changes a byte every few hundred in all files of the cache."""
    noise = random.Random(seed)
    for path in sorted(directory.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with open(path, "r+b") as file:
                size = os.fstat(file.fileno()).st_size
                blocks = os.fstat(file.fileno()).st_blocks
                if not blocks:
                    continue
                for _ in range(max(10, min(size // 300, 3000))):
                    offset = noise.randrange(size)
                    file.seek(offset)
                    old = file.read(1)
                    file.seek(offset)
                    file.write(bytes([old[0] ^ 0x55]))


def test_damaged_cache(t):
    """Bytes that somebody changed on disk are noticed and fetched again."""
    registry = t.registry()
    sample.push_all(registry)
    mount = t.mount(registry.host)
    expected = tree.read(mount.path("team/app:1.5/rootfs"))
    for seed in range(3):
        mount.stop()
        damage(t.dir / "cache", seed)
        mount.start()
        lib.equal(tree.read(mount.path("team/app:1.5/rootfs")), expected)


def test_cache_deleted_under_the_mount(t):
    registry = t.registry()
    sample.push_all(registry)
    mount = t.mount(registry.host)
    expected = tree.read(mount.path("team/app:1.5/rootfs"))
    shutil.rmtree(t.dir / "cache")
    lib.equal(mount.path("team/app:1.4/rootfs/app/version").read_text(), "1.4")
    lib.equal(mount.path("team/app:1.4/rootfs/noise").read_bytes(), sample.NOISE)
    mount.restart()
    lib.equal(tree.read(mount.path("team/app:1.5/rootfs")), expected)


def test_cache_on_a_full_disk(t):
    """It is turned off; reads go on."""
    lib.need_root()
    small = t.dir / "small"
    small.mkdir()
    t.run("mount", "-t", "tmpfs", "-o", "size=3m", "none", small)
    t.stack.callback(lambda: t.run("umount", small))
    registry = t.registry()
    data = {f"f{number}": random.Random(number).randbytes(1_000_000) for number in range(8)}
    tar = Tar()
    for name, content in data.items():
        tar.file(name, content)
    oci.Image([oci.Layer(tar.end())]).push(registry, "large", "1")
    sample.push_all(registry)
    mount = t.mount(registry.host, cache_dir=small / "cache", cache_size="256M")
    for name, content in data.items():
        lib.equal(mount.path("large:1/rootfs", name).read_bytes() == content, True, name)
    lib.equal(mount.path(VERSION).read_text(), "1.5")
    mount.stop()


def test_cache_stays_within_its_limit(t):
    registry = t.registry()
    files = {f"f{number}": random.Random(number).randbytes(3_000_000) for number in range(8)}
    for name, content in files.items():
        oci.Image([oci.Layer(Tar().file(name, content).end(), "none")]).push(registry, name, "1")
    mount = t.mount(registry.host, cache_size="10M")
    largest = 0
    for _ in range(2):
        for name, content in files.items():
            lib.equal(mount.path(f"{name}:1/rootfs", name).read_bytes() == content, True, name)
            used = sum(path.lstat().st_blocks * 512 for path in (t.dir / "cache").rglob("*"))
            largest = max(largest, used)
    assert largest <= 10 << 20, largest


def test_killed_at_any_moment(t):
    """kill -9 in the middle of filling the cache; what is there afterwards is right."""
    registry = t.registry()
    pushed = sample.push_all(registry)
    mount = t.mount(registry.host)
    expected = tree.read(mount.path("team/app:1.5/rootfs"))
    for seed in range(5):
        shutil.rmtree(t.dir / "cache")
        mount.restart()
        reader = threading.Thread(target=lambda: readable(mount.path("team/app:1.5/rootfs/noise")))
        reader.start()
        wanted = random.Random(seed).randrange(1, 4)
        lib.wait_for(lambda: mount_requests(mount) >= wanted, "some requests")
        mount.kill()
        reader.join()
        mount.start()
        lib.equal(tree.read(mount.path("team/app:1.5/rootfs")), expected)
        mount.kill()
        mount.start()
        lib.equal(tree.read(mount.path("team/app:1.5/rootfs")), expected)
    assert pushed


def mount_requests(mount):
    try:
        return mount.stats()["http_requests"]
    except OSError:
        return 1000


def test_several_processes_share_a_cache(t):
    registry = t.registry()
    pushed = sample.push_all(registry)
    first, second = t.mount(registry.host), t.mount(registry.host)
    expected = tree.read(first.path("team/app:1.5/rootfs"))
    registry.forget()
    lib.equal(tree.read(second.path("team/app:1.5/rootfs")), expected)
    lib.equal(registry.count("GET", f"/blobs/{oci.sha256(pushed['1.5'].layers[0].blob)}"), 0)
    first.kill()
    lib.equal(tree.read(second.path("team/app:1.4/rootfs"))[b"noise"], expected[b"noise"] )
    lib.equal(second.path("team/app:1.4/rootfs/app/version").read_text(), "1.4")


def test_secrets_are_not_logged(t):
    registry = t.bad_registry()
    sample.push_all(registry)
    registry.rule("GET", "/blobs/", redirect="http://user:hunter2@127.0.0.1:1/{path}?X-Signature=hunter2")
    mount = t.mount(registry.host, timeout=5)
    assert readable(mount.path(VERSION)) is None
    log = mount.read_log()
    assert "hunter2" not in log + mount.output(), log
