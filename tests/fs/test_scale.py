# SPDX-License-Identifier: Apache-2.0
"""What is large or many: it works, and memory stays what it is for small ones. tests/bench/bench_scale.py measures
the same in large."""
import concurrent.futures
import contextlib
import os
import random

import large
import lib
import oci
import tarfiles

# SHA-256, CRC-32 and length of the tar in test_layer_beyond_4_gib: to compute them takes longer than the test.
BIG_SUMS = ("3ab75902bcd41b20b6d087e869e7962bc022e15032d5b7d106d302d704c93bd4", 1091320514, 5368710656)


def rss_anon_kib(mount):
    with open(f"/proc/{mount.process.pid}/status", encoding="utf-8") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))


def local(t, layers):
    """A mount of the embedded store, which has an image of LAYERS as many:latest."""
    oci.Image(layers).write_layout(t.dir / "store/many")
    return t.mount("local")


@lib.slow
def test_50000_files(t):
    mount = local(t, [large.Layer(large.many_files(100, 500))])
    before = rss_anon_kib(mount)
    root = mount.path("many:latest/rootfs")
    listed = t.output("find", root, "-type", "f", "-size", "5c").splitlines()
    lib.equal(len(listed), 50000, "files")
    assert rss_anon_kib(mount) - before < 16 << 10, f"{rss_anon_kib(mount) - before} KiB"
    lib.equal((root / "d099/f499").read_text(), "line\n")


@lib.slow
def test_layer_beyond_4_gib(t):
    size = 5 << 30
    words = {offset: f"at {offset}".encode() for offset in (0, (4 << 30) - 3, (4 << 30) + 12345, size - 100)}
    mount = local(t, [large.Layer(large.big_file("big", size, words), BIG_SUMS)])
    path = mount.path("many:latest/rootfs/big")
    lib.equal(os.stat(path).st_size, size)
    with open(path, "rb", buffering=0) as file:
        for offset, word in reversed(words.items()):
            lib.equal(os.pread(file.fileno(), len(word) + 1, offset), word + b"\0", f"at {offset}")
    assert rss_anon_kib(mount) < 64 << 10, f"{rss_anon_kib(mount)} KiB"


def test_127_layers(t):
    layers = []
    for number in range(127):
        tar = tarfiles.Tar().dir("all").file("all/changing", f"{number}\n").file(f"all/of-{number}", "x")
        if number:
            tar.file(f"all/.wh.gone-{number - 1}", b"")
        layers.append(oci.Layer(tar.file(f"all/gone-{number}", "x").end()))
    mount = local(t, layers)
    path = mount.path("many:latest/rootfs/all")
    lib.equal((path / "changing").read_text(), "126\n")
    lib.equal(set(os.listdir(path)), {"changing", "gone-126", *(f"of-{number}" for number in range(127))})
    lib.equal(len(os.listdir(mount.path("many:latest/layers"))), 254)


def test_100_images_open(t):
    shared = oci.Layer(tarfiles.Tar().file("base", "the same\n").end())
    for number in range(100):
        own = oci.Layer(tarfiles.Tar().file("own", f"{number}\n").end())
        oci.Image([shared, own]).write_layout(t.dir / f"store/many{number}")
    mount = t.mount("local")
    with contextlib.ExitStack() as opened:
        files = {name: [opened.enter_context(open(mount.path(f"many{number}:latest/rootfs", name), encoding="utf-8"))
                        for number in range(100)] for name in ("own", "base")}
        lib.equal([file.read() for file in files["own"]], [f"{number}\n" for number in range(100)])
        lib.equal({file.read() for file in files["base"]}, {"the same\n"})
    # What they share was looked through once.
    lib.equal(mount.stats()["layers_indexed"], 101)


def test_64_readers(t):
    contents = [random.Random(number).randbytes(200000) for number in range(64)]
    tar = tarfiles.Tar()
    for number, content in enumerate(contents):
        tar.file(f"f{number}", content)
    registry = t.registry()
    image = oci.Image([oci.Layer(tar.end())]).push(registry, "many", "1")
    mount = t.mount(registry.host)

    def read(number):
        for other in range(8):
            which = (number + other * 9) % 64
            lib.equal(mount.path(f"many:1/rootfs/f{which}").read_bytes() == contents[which], True, which)

    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        list(pool.map(read, range(64)))
    # One pass served them all: in parts, where a busy machine makes the way look long.
    layer = image.layers[0].descriptor()
    lib.equal(sum(size for *_, size in registry.requests("GET", f"blobs/{layer['digest']}")), layer["size"])
