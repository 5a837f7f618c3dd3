# SPDX-License-Identifier: Apache-2.0
"""Archives that are pushed while they are still being written: what goes when, and every fault on the way."""
import base64
import contextlib
import errno
import functools
import gzip
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile

import lib
import oci
from tarfiles import Tar
from test_push import empty, manifest, new_docker_save, old_docker_save

MIB = 1 << 20
# More than what is kept whole: what is sent while it is written.
LARGE = 9 * MIB


@functools.cache
def noise(size, seed):
    return random.Random(seed).randbytes(size)


def big_image(version="1", compression="gzip", size=LARGE):
    """A layer that is larger than what is kept, and two small ones of which one is compressible."""
    tars = [Tar().file("noise", noise(size, 1)).end(), Tar().file("zeros", bytes(2 * MIB)).end(),
            Tar().file("version", version).end()]
    return oci.Image([oci.Layer(tar, compression, tar if compression == "none" else gzip.compress(tar, 1, mtime=0))
                      for tar in tars])


def oci_archive(image, index_first=False, leave_out=(), spoil=()):
    """As skopeo writes one: blobs first. LEAVE_OUT, SPOIL: digests of blobs."""
    last = [("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
            ("index.json", oci.to_json({"schemaVersion": 2, "manifests": [image.descriptor("1")]}))]
    blobs = [(f"blobs/sha256/{digest[7:]}", data[:-1] + b"?" if digest in spoil else data)
             for digest, data in {**image.blobs(), image.digest: image.manifest}.items() if digest not in leave_out]
    tar = Tar()
    for name, data in last + blobs if index_first else blobs + last:
        tar.file(name, data)
    return tar.end()


class Writer:
    """A file under _push that is written piece by piece."""

    def __init__(self, mount, path="team/app/_push/1.tar"):
        self.fd = os.open(mount.path(path), os.O_RDWR | os.O_CREAT, 0o644)

    def write(self, data):
        left = memoryview(data)
        while left:
            left = left[os.write(self.fd, left[:MIB]):]

    def close(self):
        os.close(self.fd)


def push(mount, data, path="team/app/_push/1.tar"):
    writer = Writer(mount, path)
    try:
        writer.write(data)
    except OSError:
        with contextlib.suppress(OSError):
            writer.close()
        raise
    writer.close()


def push_backwards(mount, data, path):
    """The same bytes in an order that cannot be streamed."""
    fd = os.open(mount.path(path), os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        for start in reversed(range(0, len(data), MIB)):
            os.pwrite(fd, data[start:start + MIB], start)
    except OSError:
        with contextlib.suppress(OSError):
            os.close(fd)
        raise
    os.close(fd)


def spool_blocks(mount):
    """Bytes on disk of the spool files, which have no names."""
    return sum(lib.unnamed_files(mount.process.pid, mount.options["cache_dir"]).values())


# --- what goes when ---


def test_goes_while_it_is_written(t):
    """The first layer is at the registry before the rest of the archive exists."""
    registry, mount = empty(t)
    image = big_image()
    data = old_docker_save(image, ["a:1"])
    writer = Writer(mount)
    cut = len(data) - MIB
    writer.write(data[:cut])
    # What cp writes at a time.
    lib.equal(os.stat(mount.path("team/app/_push/1.tar")).st_blksize, MIB)
    lib.wait_for(lambda: registry.count("PUT", "/blobs/uploads/"), "the first layer")
    # The registry's word comes before ours.
    line = lib.wait_for(lambda: [line for line in map(str.split, mount.path("_regfs/pushes").read_text().splitlines())
                                 if "writing" in line and int(line[1]) >= LARGE], "progress")[0]
    assert int(line[1]) <= int(line[2]), line
    lib.wait_for(lambda: spool_blocks(mount) < LARGE / 2, "what was sent to be dropped")
    lib.equal(manifest(registry, "team/app", "1"), None)
    writer.write(data[cut:])
    lib.equal(manifest(registry, "team/app", "1"), None)
    writer.close()
    lib.equal(manifest(registry, "team/app", "1")[1]["config"]["digest"], oci.sha256(image.config))
    assert "/manifests/1" in [path for method, path, _, _ in registry.requests() if method in ("PUT", "POST")][-1]


def session_bytes(registry):
    """What upload sessions hold, each."""
    return [path.stat().st_size for path in registry.storage.rglob("_uploads/*/data")]


def test_blob_goes_before_it_is_whole(t):
    """A blob's header says its digest: it travels as it comes, and is called off where that was no truth, or the
    writer is killed."""
    registry, mount = empty(t)
    image = big_image()
    data = oci_archive(image)
    writer = Writer(mount)
    writer.write(data[:LARGE - MIB // 2])
    lib.wait_for(lambda: sum(session_bytes(registry)) > LARGE - 2 * MIB, "half a blob")
    writer.write(data[LARGE - MIB // 2:])
    writer.close()
    lib.equal(manifest(registry, "team/app", "1")[0], image.digest)
    lib.equal(len(registry.requests("POST", "/blobs/uploads/")), 4)

    other = big_image(size=LARGE + 1)
    layer = oci.sha256(other.layers[0].blob)
    data = oci_archive(other, spoil=[layer])
    with lib.fails(errno.EINVAL):
        push(mount, data, "team/app/_push/2.tar")
    assert f"the archive's blob {layer} has the digest sha256:" in mount.read_log(), mount.read_log()
    lib.equal(session_bytes(registry), [])

    registry, _, mount = bad(t)
    writer = Writer(mount, "team/app/_push/3.tar")
    writer.write(data[:LARGE])
    lib.wait_for(lambda: registry.count("PATCH", "/uploads/"), "the upload to begin")
    # As that of one who was killed.
    with lib.fails(errno.EINVAL):
        writer.close()
    lib.wait_for(lambda: registry.count("DELETE", "/uploads/"), "the upload to be called off")


def test_same_result_in_any_order(t):
    """What is streamed is bit for bit what is pushed from the spool."""
    registry, mount = empty(t)
    image = big_image()
    plain = big_image(compression="none")
    repositories = Tar().file("repositories", '{"a":{"1":"x"}}').end()
    archives = {
        "old": old_docker_save(image, ["a:1"]),
        "new": new_docker_save(image, ["a:1"])[:-1024] + repositories,
        "layout": oci_archive(image),
        "index_first": oci_archive(image, index_first=True),
        "plain": oci_archive(plain),
        "plain_index_first": oci_archive(plain, index_first=True),
    }
    got = {}
    for name, data in archives.items():
        lib.note(name)
        push(mount, data, f"team/app/_push/{name}.tar")
        os.makedirs(mount.path("team/back"), exist_ok=True)
        push_backwards(mount, data, f"team/back/_push/{name}.tar")
        got[name] = manifest(registry, "team/app", name)
        lib.equal(got[name], manifest(registry, "team/back", name), name)
    for name in ("layout", "index_first"):
        lib.equal(got[name][0], image.digest)
    for name in ("plain", "plain_index_first"):
        lib.equal(got[name][0], plain.digest)
    for name in ("old", "new"):
        lib.equal(got[name][1]["config"]["digest"], oci.sha256(image.config))
        assert all("gzip" in layer["mediaType"] for layer in got[name][1]["layers"]), name
    # And it is what it was.
    lib.equal(mount.path("team/app:new/rootfs/noise").read_bytes(), noise(LARGE, 1))


def test_white_space_before_json(t):
    """However much of it there is, a manifest and a config are documents."""
    registry, mount = empty(t)
    image = big_image()
    image.config = b" \n" * 2048 + image.config
    parsed = json.loads(image.manifest)
    parsed["config"] |= {"digest": oci.sha256(image.config), "size": len(image.config)}
    image.manifest = b"\n" * 4096 + oci.to_json(parsed)
    push(mount, oci_archive(image))
    lib.equal(manifest(registry, "team/app", "1")[0], image.digest)


def test_into_the_local_store(t):
    mount = t.mount("local")
    image = big_image()
    os.makedirs(mount.path("team/app"))
    push(mount, oci_archive(image), "team/app/_push/1")
    push(mount, old_docker_save(image, ["a:1"]), "team/app/_push/2")
    lib.equal(t.output("skopeo", "inspect", "--format", "{{.Digest}}", f"oci:{t.dir}/store/team/app:1").strip(),
              image.digest)
    lib.equal(mount.path("team/app:2/rootfs/noise").read_bytes(), noise(LARGE, 1))
    # A blob that was cut short is put right by the next push.
    blob = t.dir / "store/team/app/blobs/sha256" / oci.sha256(image.layers[0].blob)[7:]
    os.truncate(blob, 1000)
    push(mount, oci_archive(image), "team/app/_push/3")
    lib.equal(blob.read_bytes(), image.layers[0].blob)


def test_compressed(t):
    registry, mount = empty(t)
    image = big_image()
    data = oci_archive(image)
    for name, packed in (("1.tar.gz", gzip.compress(data, 1)), ("2.tar.zst", oci.zstd(data)),
                         ("3", gzip.compress(data[:LARGE // 2], 1) + gzip.compress(data[LARGE // 2:], 1) + bytes(512))):
        # A flush that comes too early keeps what was written.
        writer = Writer(mount, f"team/app/_push/{name}")
        writer.write(packed[:-5])
        if name != "3":
            with lib.fails(errno.EINVAL):
                os.fsync(writer.fd)
        writer.write(packed[-5:])
        writer.close()
        lib.equal(manifest(registry, "team/app", name[0])[0], image.digest)


def test_levels_and_zstd(t):
    """The options count for layers that are streamed too."""
    registry = t.registry()
    sizes = []
    data = old_docker_save(big_image(), ["a:1"])
    for number, options in enumerate(({"compress": "zstd"}, {"compress_level": 9}, {"compress": "none"})):
        mount = t.mount(registry.host, **options)
        os.makedirs(mount.path("team/app"), exist_ok=True)
        push(mount, data, f"team/app/_push/{number}")
        layers = manifest(registry, "team/app", str(number))[1]["layers"]
        assert layers[0]["mediaType"].endswith(("zstd", "gzip", "tar")[number]), layers
        sizes.append(layers[1]["size"])
        mount.stop()
    assert sizes[0] < sizes[1] < sizes[2], sizes


def test_last_flush_decides(t):
    registry, mount = empty(t)
    image = big_image()
    data = oci_archive(image)
    writer = Writer(mount)
    second = data.index(oci.sha256(image.layers[1].blob)[7:].encode())
    for part in (data[:LARGE - MIB], data[LARGE - MIB:second], data[second:-1000]):
        writer.write(part)
        with lib.fails(errno.EINVAL):
            os.close(os.dup(writer.fd))
        lib.equal(manifest(registry, "team/app", "1"), None)
    writer.write(data[-1000:] + bytes(9 * 1024))
    os.fsync(writer.fd)
    lib.equal(manifest(registry, "team/app", "1")[0], image.digest)
    registry.forget()
    writer.close()
    lib.equal(registry.requests("PUT"), [], "the verdict is repeated")


def test_what_was_sent_is_gone(t):
    """It can be neither read nor written again; truncated to nothing, it begins anew."""
    registry, mount = empty(t)
    first, second = oci_archive(big_image("1")), big_image("2")
    writer = Writer(mount)
    writer.write(first)
    with lib.fails(errno.ESPIPE):
        os.pwrite(writer.fd, b"x", 100)
    with lib.fails(errno.ESPIPE):
        os.pread(writer.fd, 10, 100)
    with lib.fails(errno.ESPIPE):
        os.ftruncate(writer.fd, MIB)
    assert "was sent on already" in mount.read_log()
    os.ftruncate(writer.fd, 0)
    os.lseek(writer.fd, 0, os.SEEK_SET)
    writer.write(oci_archive(second))
    writer.close()
    lib.equal(manifest(registry, "team/app", "1")[0], second.digest)
    third = big_image("3")
    (t.dir / "again.tar").write_bytes(oci_archive(third))
    t.run("cp", t.dir / "again.tar", mount.path("team/app/_push/1.tar"))
    lib.equal(manifest(registry, "team/app", "1")[0], third.digest)


def test_confirmed_leaves_the_spool(t):
    """What is confirmed goes at once, large or small, streamed or not, and not when the kernel forgets it."""
    registry, mount = empty(t)
    image, small = big_image(), oci.Image([oci.Layer(Tar().file("f", noise(MIB, 5)).end(), "none")])
    data = oci_archive(image)
    push_backwards(mount, data, "team/app/_push/1.tar")
    push(mount, old_docker_save(image, [f"{registry.host}/team/all:1"]), "_push/all.tar")
    for number in range(3):
        push(mount, oci_archive(small), f"team/app/_push/small{number}")
    # With what no image needs, and in a spool of its own, decoded.
    stray = Tar().file("blobs/sha256/" + "0" * 64, noise(2 * MIB, 6)).parts
    push(mount, b"".join(stray) + data, "team/app/_push/2.tar")
    push(mount, gzip.compress(b"".join(stray) + data, 1), "team/app/_push/3.tar.gz")
    lib.wait_for(lambda: spool_blocks(mount) < MIB / 2, "the spool to be empty")
    for name, size in (("1.tar", len(data)), ("small1", len(oci_archive(small)))):
        path = mount.path("team/app/_push", name)
        lib.equal(path.stat().st_size, size)
        with lib.fails(errno.ESPIPE):
            path.read_bytes()
        file = os.open(path, os.O_WRONLY)
        with lib.fails(errno.ESPIPE):
            os.pwrite(file, b"x", 1)
        # Padding of an archive that was whole at an earlier close.
        os.pwrite(file, bytes(512), size)
        os.close(file)
    lib.equal(manifest(registry, "team/app", "1")[0], image.digest)


def test_written_anew(t):
    """A confirmed name takes another archive, truncated or written from its first byte on."""
    registry, mount = empty(t)
    path = mount.path("team/app/_push/1.tar")
    (t.dir / "x").mkdir()
    source = t.dir / "x/1.tar"
    for version, size in (("1", LARGE), ("2", LARGE), ("3", 1000), ("4", 1000)):
        image = big_image(version, size=size)
        source.write_bytes(oci_archive(image))
        if version in "24":
            t.run("dd", f"if={source}", f"of={path}", "bs=1M", "conv=notrunc")
        else:
            t.run("cp", source, path)
        lib.equal(manifest(registry, "team/app", "1")[0], image.digest, version)
    file = os.open(path, os.O_WRONLY)
    os.pwrite(file, b"no archive", 0)
    with lib.fails(errno.EINVAL):
        os.close(file)
    lib.equal(manifest(registry, "team/app", "1")[0], image.digest)


def test_holes(t):
    """What is skipped is zeros, as in any file: cp --sparse leaves zeros out."""
    registry, mount = empty(t)
    image = big_image("1", "none")
    (t.dir / "sparse.tar").write_bytes(oci_archive(image))
    t.run("cp", "--sparse=always", t.dir / "sparse.tar", mount.path("team/app/_push/1.tar"))
    lib.equal(manifest(registry, "team/app", "1")[0], image.digest)


def test_temporary(t):
    """Its blobs are at the registry when it is renamed, which needs no more of them."""
    registry, mount = empty(t)
    image = big_image()
    push(mount, oci_archive(image), "team/app/_push/.x")
    lib.equal(manifest(registry, "team/app", "1"), None)
    registry.forget()
    os.rename(mount.path("team/app/_push/.x"), mount.path("team/app/_push/1"))
    lib.equal(registry.requests("PUT|POST|HEAD", "/blobs/"), [])
    lib.equal(manifest(registry, "team/app", "1")[0], image.digest)
    lib.need("rsync")
    second = big_image("2")
    (t.dir / "2.tar").write_bytes(oci_archive(second))
    for options in (["-a"], ["-a", "--inplace"]):
        t.run("rsync", *options, t.dir / "2.tar", f"{mount.path('team/app/_push')}/")
        lib.equal(manifest(registry, "team/app", "2")[0], second.digest)


# --- bad input ---


def refused(mount, data, words, path="team/app/_push/1.tar"):
    with lib.fails(errno.EINVAL):
        push(mount, data, path)
    log = mount.read_log()
    assert words in log, log


def test_bad_archives(t):
    registry, mount = empty(t)
    image, other = big_image(), big_image("2")
    digests = [oci.sha256(layer.blob) for layer in image.layers]
    refused(mount, oci_archive(image, leave_out=digests[1:2]), "is not in the archive")
    refused(mount, oci_archive(image, spoil=digests[:1]), "has the digest")
    # A layer that was compressed on suspicion that docker saved it.
    plain = big_image(compression="none")
    wrong = oci.sha256(plain.layers[0].blob)
    refused(mount, oci_archive(plain, spoil=[wrong]), f"blob {wrong} has the digest")
    refused(mount, old_docker_save(image, ["a:1"]).replace(oci.sha256(image.layers[2].tar)[7:].encode(),
                                                          oci.sha256(b"other")[7:].encode()), "the image's config says")
    two = Tar().file("c.json", image.config).file("d.json", other.config)
    names = []
    for layer in [*image.layers, other.layers[2]]:
        names.append(f"{oci.sha256(layer.tar)[7:]}.tar")
        two.file(names[-1], layer.tar)
    two.file("manifest.json", json.dumps([
        {"Config": "c.json", "RepoTags": ["a/first:1"], "Layers": names[:3]},
        {"Config": "d.json", "RepoTags": ["b/second:1"], "Layers": names[:2] + names[3:]}]))
    refused(mount, two.end(), "b/second:1")
    refused(mount, noise(LARGE, 3), "cannot be used")
    refused(mount, gzip.compress(oci_archive(image), 1)[:-3 * MIB], "not finished")
    lib.equal(manifest(registry, "team/app", "1"), None)
    # A blob that nothing refers to may be anything.
    stray = Tar().file("blobs/sha256/" + "0" * 64, b"\x1f\x8b wrong").parts + [oci_archive(image)]
    push(mount, b"".join(stray))
    lib.equal(manifest(registry, "team/app", "1")[0], image.digest)


def await_unpacked(mount, number):
    """What stats.json says may be a moment old."""
    lib.wait_for(lambda: mount.stats()["push_layers_unpacked"] >= number, "the counter")
    lib.equal(mount.stats()["push_layers_unpacked"], number)


def test_wrong_diff_id(t):
    """What is confirmed can be run: each layer of an OCI image is what the config says, however it comes."""
    registry, mount = empty(t)
    for compression, number in (("gzip", 1), ("zstd", 3)):
        image = big_image(compression=compression)
        # In the order of pieces and in the other.
        for way in (push, push_backwards):
            tag = f"{compression}-{way.__name__}"
            way(mount, oci_archive(image), f"team/app/_push/{tag}")
            lib.equal(manifest(registry, "team/app", tag)[0], image.digest)
        found = [oci.sha256(layer.tar) for layer in image.layers]
        wrong = list(found)
        wrong[number - 1] = oci.sha256(b"other")
        bad = oci.Image(image.layers, {"rootfs": {"type": "layers", "diff_ids": wrong}})
        for way in (push, push_backwards):
            # What is not known is unpacked, though the registry has it.
            t.run(lib.REGFS, "cache", "prune", "--max", "0", "--cache-dir", mount.options["cache_dir"])
            mark = len(mount.read_log())
            with lib.fails(errno.EINVAL):
                way(mount, oci_archive(bad), "team/app/_push/bad")
            words = f"layer {number} unpacks to {found[number - 1]}, the image's config says {wrong[number - 1]}"
            assert words in mount.read_log()[mark:], mount.read_log()[mark:]
    lib.equal(manifest(registry, "team/app", "bad"), None)
    # The blobs are the same ones each time: those of the first image, and of each that is refused.
    await_unpacked(mount, 15)
    mount.stop()
    believing = t.mount(registry.host, verify="stream")
    for way in (push, push_backwards):
        way(believing, oci_archive(bad), f"team/app/_push/{way.__name__}")
        lib.equal(manifest(registry, "team/app", way.__name__)[0], bad.digest)


# --- faults ---


def kept(registry, before):
    lib.equal(registry.repos["team/app"]["tags"], before)


def bad(t, **options):
    """A server that misbehaves, with a tag that must stay as it is."""
    registry = t.bad_registry()
    big_image("old", size=1000).push(registry, "team/app", "1")
    before = dict(registry.repos["team/app"]["tags"])
    return registry, before, t.mount(registry.host, **options)


def test_refused_on_the_way(t):
    """A full quota ends the writing: nobody copies the rest for nothing."""
    registry, before, mount = bad(t, timeout=5)
    registry.rule("PUT|PATCH", "/uploads/", status=413)
    writer = Writer(mount)
    layer = Tar().file("x", noise(MIB, 1)).end()
    with lib.fails(errno.EDQUOT):
        for _ in range(64):
            writer.write(Tar().file("x.tar", layer).cut())
    with lib.fails(errno.EDQUOT):
        writer.close()
    kept(registry, before)
    assert "413" in mount.read_log()


def test_known_layers_are_not_unpacked(t):
    """What was seen once of a layer is a fact: a CI job that pushes the same base again pays for what is new."""
    registry, mount = empty(t)
    image = big_image()
    push(mount, oci_archive(image))
    await_unpacked(mount, 3)
    # Only the large one travels before its digest is known to be right.
    lib.equal(registry.count("PATCH", "/blobs/uploads/"), 1)
    other = t.registry()
    mount.stop()
    mount = t.mount(other.host)
    os.makedirs(mount.path("team/app"))
    # Elsewhere, where every blob has to travel; in any order; as a directory; and where the blobs are already.
    push(mount, oci_archive(image))
    push_backwards(mount, oci_archive(image), "team/app/_push/2")
    with tarfile.open(fileobj=io.BytesIO(oci_archive(image))) as archive:
        archive.extractall(t.dir / "layout")
    t.run("cp", "-r", t.dir / "layout", mount.path("team/app/_push/3"))
    for tag in "123":
        lib.equal(manifest(other, "team/app", tag)[0], image.digest)
    bad = oci.Image(image.layers, {"rootfs": {"type": "layers", "diff_ids": [oci.sha256(b"other")] * 3}})
    refused(mount, oci_archive(bad), "the image's config says", "team/app/_push/4")
    refused(mount, oci_archive(image, spoil=[oci.sha256(image.layers[0].blob)]), "has the digest", "team/app/_push/5")
    # The one that is new, and nothing of what came before.
    push(mount, oci_archive(big_image("2")), "team/app/_push/6")
    await_unpacked(mount, 1)


def test_slow_registry_slows_the_writer(t):
    """The spool does not fill while the registry takes nothing; the writer can be ended, and its uploads are."""
    registry, before, mount = bad(t, timeout=30)
    registry.rule("PUT|PATCH", "/uploads/", stall=1000)
    script = ("import os, sys\nfd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)\n"
              "for i in range(200): os.write(fd, bytes.fromhex(sys.argv[2])); os.write(fd, bytes(1 << 20))\n")
    header = Tar().header("x.tar", b"0", size=MIB).parts[0]
    writer = subprocess.Popen([sys.executable, "-c", script, mount.path("team/app/_push/1.tar"), header.hex()])
    waiting = lib.wait_for(lambda: mount.stats().get("fuse_waiting_now"), "the writer to be kept back")
    assert waiting and writer.poll() is None
    assert spool_blocks(mount) < 60 * MIB, "the archive would have 200"
    writer.send_signal(signal.SIGTERM)
    lib.equal(writer.wait(), -signal.SIGTERM)
    lib.wait_for(lambda: not registry.uploads, "the uploads to be called off")
    kept(registry, before)


def test_killed_writer(t):
    """Nothing is published, whole or not."""
    registry, mount = empty(t)
    data = oci_archive(big_image())
    for name, cut in (("1.tar", len(data)), ("1", LARGE - MIB)):
        (t.dir / "part").write_bytes(data[:cut])
        script = ("import os, sys, time\nfd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)\n"
                  "os.write(fd, open(sys.argv[2], 'rb').read())\nprint('written', flush=True)\ntime.sleep(1000)\n")
        writer = subprocess.Popen([sys.executable, "-c", script, mount.path("team/app/_push", name), t.dir / "part"],
                                  stdout=subprocess.PIPE)
        lib.equal(writer.stdout.readline(), b"written\n")
        if cut == len(data):
            lib.wait_for(lambda: registry.count("PUT", "/blobs/uploads/") == 3, "all blobs but the config")
        writer.kill()
        writer.wait()
        writer.stdout.close()
    mount.stop()
    lib.equal(manifest(registry, "team/app", "1"), None)


def test_registry_restarts(t):
    """It is killed at any point, and comes back: confirmed and there, or an error and the tag as before."""
    registry, mount = empty(t, timeout=30)
    image = big_image()
    data = oci_archive(image)
    for number, phase in enumerate((LARGE - MIB, LARGE + MIB, len(data) - 1024)):
        writer = Writer(mount, f"team/app/_push/{number}")
        writer.write(data[:phase])
        registry.process.signal(signal.SIGKILL)
        registry.process.wait()
        registry.start()
        try:
            try:
                writer.write(data[phase:])
            finally:
                writer.close()
        except OSError as err:
            lib.note(f"phase {number}: {err}")
            lib.equal(manifest(registry, "team/app", f"{number}"), None)
        else:
            lib.equal(manifest(registry, "team/app", f"{number}")[0], image.digest)
    push(mount, data, "team/app/_push/last")
    lib.equal(manifest(registry, "team/app", "last")[0], image.digest)


def test_registry_is_away_for_a_while(t):
    """Killed at any request about a blob, it is waited for: by blobs that were begun and by those that were not."""
    registry, _, mount = bad(t, timeout=30)
    file = t.dir / "big.tar"
    file.write_bytes(oci_archive(big_image()))
    for method, path, skip in (("HEAD", "/blobs/sha256:", 1), ("POST", "/uploads/", 0), ("POST", "/uploads/", 2),
                               ("PATCH", "/uploads/", 0), ("PUT", "/uploads/", 0), ("PUT", "/uploads/", 3)):
        registry.rule(method, path, times=1, skip=skip, away=True)
        repo = f"team/{method.lower()}{skip}"
        os.makedirs(mount.path(repo))
        failures = mount.read_log().count("Failed to connect")
        # Not in this process: each program that it starts would close the file once more, and wait for the verdict.
        writer = t.start("cp", file, mount.path(repo, "_push/1.tar"))
        lib.wait_for(lambda: mount.read_log().count("Failed to connect") > failures, f"{method} in vain")
        registry.come_back()
        lib.equal(writer.wait(), 0, f"{method} {skip}: {writer.output()}")
        assert "1" in registry.repos[repo]["tags"], registry.repos[repo]


def test_away_while_no_archive_is_pushed(t):
    """It is waited for by a link into another repository, a base's layers, and `regfs index push` too."""
    registry, _, mount = bad(t, timeout=30)
    repos = registry.repos
    words = "Failed to connect"

    def away_at(rule, argv, output):
        lib.note(argv)
        registry.rule(*rule, times=1, away=True)
        before = output().count(words)
        command = t.start(*argv)
        lib.wait_for(lambda: output().count(words) > before or not command.running(), "a request in vain")
        registry.come_back()
        lib.equal(command.wait(), 0, command.output())

    os.makedirs(mount.path("team/web"))
    away_at(("POST", "mount="), ["ln", "-s", "../../app:1", mount.path("team/web/_tags/1")], mount.read_log)
    lib.equal(repos["team/web"]["tags"]["1"], repos["team/app"]["tags"]["1"])

    staged = mount.path("team/built/_push/1")
    os.makedirs(staged)
    (staged / "base").symlink_to("../../../app:1")
    (staged / "config.json").write_text('{"User": "me"}')
    away_at(("POST", "mount="), ["sync", staged], mount.read_log)
    lib.equal(mount.path("team/built:1/rootfs/version").read_bytes(), b"old")

    log = t.dir / "index.log"
    log.touch()
    away_at(("HEAD", "/blobs/" + oci.sha256(b"{}")),
            ["sh", "-c", f"exec {lib.REGFS} index push -o timeout=30,cache_dir={t.dir}/other --min-layer-size 0 "
             f"{registry.host}/team/app:1 2> {log}"], log.read_text)
    assert oci.sha256(b"{}") in repos["team/app"]["blobs"]


def test_registry_gone_for_good(t):
    registry, mount = empty(t, timeout=3)
    data = oci_archive(big_image())
    writer = Writer(mount)
    writer.write(data[:LARGE])
    registry.stop()
    with lib.fails(errno.ECONNREFUSED):
        try:
            writer.write(data[LARGE:])
        finally:
            writer.close()
    registry.start()
    lib.equal(manifest(registry, "team/app", "1"), None)


def test_dropped_uploads(t):
    """Each upload breaks off once, and is taken up where it stopped."""
    registry, _, mount = bad(t, timeout=30)
    image = big_image()
    registry.rule("PUT", "/uploads/", times=1, take=5 * MIB)
    push(mount, oci_archive(image))
    lib.equal(registry.repos["team/app"]["tags"]["1"], image.digest)
    assert registry.count("PATCH", "/uploads/"), "the rest alone is sent again"


def test_expired_credentials(t):
    """Tokens that live for a moment, while an archive takes its time."""
    registry = t.bad_registry()
    registry.auth, registry.users = "bearer", {"me": "secret"}
    (t.dir / "auth.json").write_text(json.dumps(
        {"auths": {registry.host: {"auth": base64.b64encode(b"me:secret").decode()}}}))
    mount = t.mount(registry.host, authfile=t.dir / "auth.json")
    os.makedirs(mount.path("team/app"))
    image = big_image()
    data = oci_archive(image)
    second = data.index(oci.sha256(image.layers[1].blob)[7:].encode())
    writer = Writer(mount)
    writer.write(data[:second])
    lib.wait_for(lambda: registry.count("PUT", "/uploads/"), "the first blob")
    with registry.lock:
        registry.tokens.clear()
    writer.write(data[second:])
    writer.close()
    lib.equal(registry.repos["team/app"]["tags"]["1"], image.digest)


def test_two_writers_of_one_tag(t):
    """The last confirmed wins, and both are told the truth."""
    registry, mount = empty(t)
    images = [big_image(name) for name in "ab"]
    archives = [oci_archive(image) for image in images]
    writers = [Writer(mount, f"team/app/_push/{name}") for name in ("1.tar", "1.tar.gz")]
    for start in range(0, 2 * LARGE, MIB):
        for writer, data in zip(writers, archives):
            writer.write(data[start:start + MIB])
    for writer, image in zip(writers, images):
        writer.close()
        lib.equal(manifest(registry, "team/app", "1")[0], image.digest)


def test_many_at_once(t):
    """Pushes do not stand in each other's way, and each gets its own verdict."""
    registry, mount = empty(t)
    images = {f"{number}": big_image(f"{number}") for number in range(4)}
    for name, image in images.items():
        bad_ones = [oci.sha256(image.layers[2].blob)] if name == "3" else []
        (t.dir / f"{name}.tar").write_bytes(oci_archive(image, spoil=bad_ones))
    copies = {name: t.start("cp", t.dir / f"{name}.tar", mount.path("team/app/_push", name)) for name in images}
    for name, copy in copies.items():
        lib.equal(copy.wait(), 1 if name == "3" else 0, name)
        got = manifest(registry, "team/app", name)
        lib.equal(got and got[0], None if name == "3" else images[name].digest)


def test_spool_full(t):
    lib.need_root()
    registry = t.registry()
    cache = t.dir / "small"
    cache.mkdir()
    t.run("mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", cache)
    try:
        mount = t.mount(registry.host, cache_dir=cache, cache_size="1M")
        os.makedirs(mount.path("team/app"))
        # Layers that are compressed and sent one after the other do not need so much.
        image = oci.Image([oci.Layer(Tar().file("noise", noise(MIB, seed)).end()) for seed in range(24)])
        data = old_docker_save(image, ["a:1"])
        assert len(data) > 24 * MIB
        with lib.fails(errno.ENOSPC):
            push_backwards(mount, data, "team/app/_push/2.tar")
        blob = noise(20 * MIB, 1)
        with lib.fails(errno.ENOSPC):
            push(mount, Tar().file(f"blobs/sha256/{oci.sha256(blob)[7:]}", b"\x1f\x8b" + blob).end())
        assert "No space left" in mount.read_log()
        lib.equal(manifest(registry, "team/app", "1"), None)
        lib.wait_for(lambda: not spool_blocks(mount), "what failed to go")
        push(mount, oci_archive(big_image("3", size=MIB)), "team/app/_push/3")
        # A tag that there is stays as it is, and cp says why.
        big_image("4", "none", 20 * MIB).push(registry, "team/big", "1")
        ended = t.run("cp", mount.path("team/big:1/image.tar"), mount.path("team/app/_push/3.tar"), status=1)
        assert b"No space left" in ended.stderr, ended.stderr
        lib.equal(manifest(registry, "team/app", "3")[0], big_image("3", size=MIB).digest)
        lib.equal(mount.path("team/app:3/rootfs/version").read_bytes(), b"3")
        mount.stop()
    finally:
        t.run("umount", cache)


def test_regfs_killed(t):
    """Nothing of the spool is left when it is back."""
    registry, mount = empty(t)
    data = oci_archive(big_image())
    before = sorted(path.name for path in (t.dir / "cache").rglob("*") if path.is_file())
    writer = Writer(mount)
    writer.write(data[:LARGE])
    mount.process.signal(signal.SIGKILL)
    mount.process.wait()
    with contextlib.suppress(OSError):
        writer.close()
    lib.unmount(mount.point)
    mount.start()
    lib.equal(sorted(path.name for path in (t.dir / "cache").rglob("*") if path.is_file()), before)
    lib.equal(spool_blocks(mount), 0)
    lib.equal(manifest(registry, "team/app", "1"), None)
    os.makedirs(mount.path("team/app"))
    push(mount, data)
    lib.equal(manifest(registry, "team/app", "1")[0], big_image().digest)


def test_unmounted_while_it_is_written(t):
    registry, mount = empty(t)
    writer = Writer(mount)
    writer.write(oci_archive(big_image())[:LARGE])
    t.run("umount", "-l", mount.point)
    with contextlib.suppress(OSError):
        writer.close()
    mount.process.wait()
    mount.process = None
    lib.equal(manifest(registry, "team/app", "1"), None)
