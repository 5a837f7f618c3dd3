# SPDX-License-Identifier: Apache-2.0
"""Layers with a table of contents: what is fetched of them, and that they are what they are without it.

eStargz and zstd:chunked as stargz-snapshotter's ctr-remote and as skopeo write them, and eStargz as
written here, after stargz-snapshotter's docs/estargz.md.
"""
import gzip
import hashlib
import json
import random

from chunked import ChunkedLayer
from containerd import containerd
import lib
import oci
import tarfiles
import tree

TOC_DIGEST = "containerd.io/snapshot/stargz/toc.digest"
LAYER_DIGEST = "containerd.io/snapshot/stargz/layer.digest"
CHUNK = 1 << 20
TAIL = 64 << 10  # what is asked for first at least, to find the table


def noise(size, seed=1):
    return random.Random(seed).randbytes(size)


# --- written here


class LazyLayer(oci.Layer):
    """FILES, (name, bytes) pairs, as eStargz; CHANGE may make the table's entries untrue. EXTERNAL: the table is
    not in the blob, but .table is a blob of its own."""

    def __init__(self, files, change=lambda entries: None, external=False, mode=0o644):
        members, entries, tar = [], [], b""
        piece = b""
        size = 0

        def cut():
            nonlocal piece, size
            if piece:
                members.append(gzip.compress(piece, 1, mtime=0))
                size += len(members[-1])
            piece = b""

        for name, data in files:
            whole = b"".join(tarfiles.Tar().file(name, data, mode=mode).parts)
            head, rest = whole[:512], whole[512 + len(data):]
            tar += whole
            piece += head
            entry = {"name": name, "type": "reg", "size": len(data), "mode": mode,
                     "modtime": "2023-11-14T22:13:20Z", "digest": oci.sha256(data)}
            for off in range(0, len(data), CHUNK):
                chunk = data[off:off + CHUNK]
                cut()
                if off:
                    entry = {"name": name, "type": "chunk", "chunkOffset": off}
                entry |= {"offset": size, "chunkDigest": oci.sha256(chunk)}
                if off + CHUNK < len(data):
                    entry["chunkSize"] = CHUNK
                piece += chunk
                entries.append(entry)
            if not data:
                entries.append(entry)
            piece += rest
        cut()
        change(entries)
        toc = json.dumps({"version": 1, "entries": entries}).encode()
        end = b"".join(tarfiles.Tar().file("stargz.index.json", toc).parts) + bytes(1024)
        self.table = gzip.compress(end, 1, mtime=0)
        head = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff"
        if external:
            footer = head + b"\x15\0SG\x11\0STARGZEXTERNALTOC\x01\0\0\xff\xff" + bytes(8)
            members.append(gzip.compress(bytes(1024), 1, mtime=0))
            super().__init__(tar + bytes(1024), blob=b"".join(members) + footer)
        else:
            footer = head + b"\x1a\0SG\x16\0%016xSTARGZ\x01\0\0\xff\xff" % size + bytes(8)
            super().__init__(tar + end, blob=b"".join(members) + self.table + footer)
        self.annotations = {TOC_DIGEST: oci.sha256(toc)}

    def descriptor(self):
        return super().descriptor() | {"annotations": self.annotations}


def layer_requests(registry, layer):
    return registry.requests("GET", f"/blobs/{oci.sha256(layer.blob)}")


def test_cat_of_one_file_fetches_its_chunk(t):
    registry = t.registry()
    data = noise(4 * CHUNK)
    layer = LazyLayer([("first", b"1"), ("big", data), ("small", b"of no size")])
    oci.Image([layer]).push(registry, "app", "1")
    registry.forget()
    mount = t.mount(registry.host)
    with open(mount.path("app:1/rootfs/big"), "rb", buffering=0) as file:
        file.seek(2 * CHUNK + 100)
        lib.equal(file.read(10), data[2 * CHUNK + 100:][:10])
    lib.equal([entry[2] for entry in layer_requests(registry, layer)], [206, 206])
    table, chunk = (entry[3] for entry in layer_requests(registry, layer))
    lib.equal(table, TAIL)
    # the kernel may ask for the next one too
    assert CHUNK <= chunk <= 2 * CHUNK + CHUNK // 50, chunk
    # besides: the manifest and the config
    gets = [path for method, path, *_ in registry.requests("GET") if path.startswith("/v2/app/")]
    lib.equal(len(gets), 4, gets)
    # a small file near the end costs little more than itself, and what is there costs nothing
    lib.equal(mount.path("app:1/rootfs/small").read_bytes(), b"of no size")
    lib.equal(sorted(path.name for path in mount.path("app:1/rootfs").iterdir()), ["big", "first", "small"])
    assert sum(entry[3] for entry in layer_requests(registry, layer)[2:]) < 10_000
    count = len(layer_requests(registry, layer))
    mount.restart()
    registry.stop()
    with open(mount.path("app:1/rootfs/big"), "rb", buffering=0) as file:
        file.seek(2 * CHUNK)
        lib.equal(file.read(1000), data[2 * CHUNK:][:1000])
    assert count <= 4


def test_small_files_come_with_their_neighbours(t):
    registry = t.registry()
    data = {f"f{number:02}": noise(1500 + number) for number in range(30)}
    layer = LazyLayer([*data.items(), ("big", noise(CHUNK))])
    oci.Image([layer]).push(registry, "app", "1")
    mount = t.mount(registry.host)
    root = mount.path("app:1/rootfs")
    lib.equal((root / "f15").read_bytes(), data["f15"])
    lib.wait_for(lambda: mount.stats()["chunks_decoded"] == 30, "the others")
    # the server writes its log once it has answered
    lib.wait_for(lambda: len(layer_requests(registry, layer)) >= 2, "table and chunks to be logged")
    for name in data:
        lib.equal((root / name).read_bytes(), data[name], name)
    lib.equal(len(layer_requests(registry, layer)), 2)


def test_who_goes_from_file_to_file_gets_more_each_time(t):
    registry = t.bad_registry()
    data = {f"{number:02}/f": noise(8000, number) for number in range(64)}
    layer = LazyLayer(list(data.items()))
    oci.Image([layer]).push(registry, "app", "1")

    def requests(names):
        registry.clear()
        mount = t.mount(registry.host, cache_dir=t.dir / t.name("cache"), prefetch="none")
        for name in names:
            assert mount.path("app:1/rootfs", name).read_bytes() == data[name], name
        return len(registry.seen("GET", f"/blobs/{oci.sha256(layer.blob)}")) - 1  # the table's

    # eight by themselves, then 128 KiB, 256 KiB, and the rest
    lib.equal(requests(data), 11)
    # every fourth one, and backwards: nobody goes on where he was
    lib.equal(requests(list(data)[::4]), 16)
    lib.equal(requests(list(data)[:30][::-1]), 30)


def test_neighbours_are_of_the_same_directory(t):
    registry = t.registry()
    data = {f"{folder}/f{number}": noise(1500, f"{folder}{number}") for folder in "abc" for number in range(9)}
    layer = LazyLayer([*data.items(), ("d/big", noise(CHUNK))])
    oci.Image([layer]).push(registry, "app", "1")
    mount = t.mount(registry.host)
    root = mount.path("app:1/rootfs")
    for count, name in ((9, "b/f4"), (18, "a/f8"), (27, "c/f0")):
        lib.equal((root / name).read_bytes(), data[name])
        lib.wait_for(lambda count=count: mount.stats()["chunks_decoded"] >= count, "the others")
        lib.equal(mount.stats()["chunks_decoded"], count)
    lib.wait_for(lambda: len(layer_requests(registry, layer)) >= 4, "table and chunks to be logged")
    for name, expected in data.items():
        lib.equal((root / name).read_bytes(), expected, name)
    lib.equal(len(layer_requests(registry, layer)), 4)


def test_more_neighbours_come_where_some_are_here(t):
    registry = t.registry()
    data = [(f"f{number:03}", noise(2000, number)) for number in range(400)]
    layer = LazyLayer([*data, ("g", noise(CHUNK))])
    oci.Image([layer]).push(registry, "app", "1")
    mount = t.mount(registry.host)
    for count, number in enumerate((10, 60, 390)):
        lib.equal(mount.path(f"app:1/rootfs/f{number:03}").read_bytes(), data[number][1])
        lib.wait_for(lambda count=count: len(layer_requests(registry, layer)) == 2 + count, "the log")
    _, first, near, far = (entry[3] for entry in layer_requests(registry, layer))
    assert first < 48 * 1024 + 11 * 2500 and far < 48 * 1024 + 11 * 2500, (first, far)
    assert 192 * 1024 < near < 300 * 1024, near


def test_large_file_takes_none_along(t):
    registry = t.registry()
    data = {"f1": noise(2000, 1), "large": noise(100_000, 2), "f2": noise(2000, 3)}
    layer = LazyLayer([*data.items(), ("big", noise(CHUNK))])
    oci.Image([layer]).push(registry, "app", "1")
    mount = t.mount(registry.host)
    for name in ("large", "f2"):
        lib.equal(mount.path("app:1/rootfs", name).read_bytes(), data[name])
    lib.wait_for(lambda: len(layer_requests(registry, layer)) == 3, "the log")
    assert 100_000 < layer_requests(registry, layer)[1][3] < 101_000, layer_requests(registry, layer)


def test_neighbours_that_are_large_once_decoded(t):
    """Chunks of zeros are a few kilobytes of the blob, and megabytes of memory."""
    registry = t.registry()
    zeros = [(f"zeros{number}", bytes(CHUNK)) for number in range(7)]
    layer = LazyLayer([("wanted", b"data"), *zeros, ("big", noise(CHUNK))])
    oci.Image([layer]).push(registry, "app", "1")
    mount = t.mount(registry.host)
    lib.equal(mount.path("app:1/rootfs/wanted").read_bytes(), b"data")
    lib.wait_for(lambda: len(layer_requests(registry, layer)) >= 2, "table and chunk to be logged")
    chunk = layer_requests(registry, layer)[-1]
    assert chunk[3] < len(gzip.compress(bytes(5 * CHUNK), 1)), chunk


def test_wrong_neighbour(t):
    """It comes along, and is nobody's trouble until somebody asks for it."""

    def lie(entries):
        entries[14]["chunkDigest"] = oci.sha256(b"something else")

    registry = t.registry()
    data = {f"f{number:02}": noise(1500 + number) for number in range(30)}
    layer = LazyLayer([*data.items(), ("big", noise(CHUNK))], lie)
    oci.Image([layer]).push(registry, "app", "1")
    mount = t.mount(registry.host)
    root = mount.path("app:1/rootfs")
    for name in ("f15", "f16", "f13"):
        lib.equal((root / name).read_bytes(), data[name], name)
    assert "chunk" not in mount.read_log(), mount.read_log()
    assert all(entry[2] == 206 for entry in layer_requests(registry, layer))
    lib.equal((root / "f14").read_bytes(), data["f14"])
    assert "the chunk at" in mount.read_log(), mount.read_log()


def test_whole_file_comes_in_few_requests(t):
    registry = t.registry()
    data = noise(8 * CHUNK)
    layer = LazyLayer([("big", data)])
    oci.Image([layer]).push(registry, "app", "1")
    mount = t.mount(registry.host)
    lib.equal(hashlib.sha256(mount.path("app:1/rootfs/big").read_bytes()).digest(), hashlib.sha256(data).digest())
    requests = layer_requests(registry, layer)
    assert len(requests) <= 7, requests
    assert sum(entry[3] for entry in requests) < len(layer.blob) + TAIL, requests
    lib.equal(mount.stats()["chunks_decoded"], 8)


def lazy_image(t, registry, count):
    """app:1 of COUNT layers with tables at a server of the tests'; layer N has fN."""
    layers = [LazyLayer([(f"f{number}", b"%d" % number), (f"big{number}", noise(CHUNK, number))])
              for number in range(count)]
    oci.Image(layers).write_layout(t.dir / "layout", "1")
    registry.add_layout(t.dir / "layout", "app")
    return layers


def test_layers_below_the_deciding_one_are_not_touched(t):
    registry = t.bad_registry()
    layers = lazy_image(t, registry, 3)
    mount = t.mount(registry.host)
    for number, untouched in ((2, layers[:2]), (1, layers[:1])):
        lib.equal(mount.path(f"app:1/rootfs/f{number}").read_text(), str(number))
        for layer in untouched:
            lib.equal(registry.count("GET", oci.sha256(layer.blob)), 0)


def test_large_table_comes_with_the_footer(t):
    registry = t.registry()
    files = [(f"f{number:04}", b"%d" % number) for number in range(1200)]
    layer = LazyLayer([*files, ("big", noise(14 * CHUNK))])
    assert TAIL < len(layer.table) < len(layer.blob) // 128, (len(layer.table), len(layer.blob))
    oci.Image([layer]).push(registry, "app", "1")
    registry.forget()
    lib.equal(t.mount(registry.host).path("app:1/rootfs/f0000").read_bytes(), b"0")
    lib.wait_for(lambda: len(layer_requests(registry, layer)) >= 2, "table and chunks to be logged")
    lib.equal(len(layer_requests(registry, layer)), 2, layer_requests(registry, layer))


def test_lying_table(t):
    """The blob itself decides, and the log says so."""

    def outside(entries):
        entries[0]["offset"] = 1 << 40

    def wrong_digest(entries):
        entries[1]["chunkDigest"] = oci.sha256(b"something else")

    registry = t.registry()
    data = noise(2 * CHUNK)
    mount = t.mount(registry.host)
    for tag, lie, words in (("outside", outside, "would lie outside"), ("digest", wrong_digest, "is not what it says")):
        layer = LazyLayer([("file", b"data"), ("big", data)], lie)
        oci.Image([layer]).push(registry, "app", tag)
        lib.equal(mount.path(f"app:{tag}/rootfs/big").read_bytes(), data)
        lib.equal(mount.path(f"app:{tag}/rootfs/file").read_bytes(), b"data")
        assert words in mount.read_log(), mount.read_log()
        assert not mount.path(f"app:{tag}/rootfs/stargz.index.json").exists()


def push_tables(registry, layers, tag):
    """The image that eStargz's converter puts beside one whose layers have their tables elsewhere."""
    config = b"{}"
    tables = [{"mediaType": oci.LAYER + "+gzip", "digest": oci.sha256(layer.table), "size": len(layer.table),
               "annotations": {LAYER_DIGEST: oci.sha256(layer.blob)}} for layer in layers]
    for data in [config, *(layer.table for layer in layers)]:
        oci.push_blob(registry, "app", oci.sha256(data), data)
    manifest = oci.to_json({
        "schemaVersion": 2, "mediaType": oci.MANIFEST, "layers": tables,
        "config": {"mediaType": oci.CONFIG, "digest": oci.sha256(config), "size": len(config)}})
    oci.push_manifest(registry, "app", tag, manifest, oci.MANIFEST)


def test_table_in_another_image(t):
    registry = t.registry()
    data = noise(4 * CHUNK)
    layers = [LazyLayer([("big", data), ("small", b"of no size")], external=True),
              LazyLayer([("top", data[:CHUNK])], external=True)]
    image = oci.Image(layers)
    platform = {"os": "linux", "architecture": "amd64"}
    oci.make_index([(image, platform)], registry, "app", "1")
    push_tables(registry, layers, "1-esgztoc")
    registry.forget()
    mount = t.mount(registry.host, platform="linux/amd64")
    lib.equal(sorted(path.name for path in mount.path("app:1/rootfs").iterdir()), ["big", "small", "top"])
    lib.equal([entry[2:] for entry in layer_requests(registry, layers[0])], [(206, TAIL)])
    lib.equal(mount.path("app:1/rootfs/small").read_bytes(), b"of no size")
    lib.equal(mount.path("app:1/rootfs/top").read_bytes(), data[:CHUNK])
    assert sum(entry[3] for entry in layer_requests(registry, layers[0])) < 2 * TAIL
    # one look for the tables of all layers
    lib.equal(registry.count("GET", "manifests/1-esgztoc"), 1)
    lib.equal(mount.path("app:1/rootfs/big").read_bytes(), data)
    assert "table of contents" not in mount.read_log(), mount.read_log()
    # it is kept, and serves the image by any name
    mount.restart()
    registry.stop()
    lib.equal(mount.path(f"app@{image.digest}/rootfs/small").read_bytes(), b"of no size")


def test_table_in_another_image_that_is_no_use(t):
    """Without that image, or where it has another table than the manifest vouches for, the blob decides."""
    registry = t.registry()
    data = noise(CHUNK)

    def other(entries):
        entries[0]["size"] -= 1

    for tag, words in (("none", "was not found by that"), ("other", "its digest is wrong"), ("digest", "was not found by that")):
        layer = LazyLayer([("big", data), ("name", tag.encode())], external=True)
        image = oci.Image([layer]).push(registry, "app", tag)
        if tag != "none":
            lying = LazyLayer([("big", data), ("name", tag.encode())], other, external=True)
            lying.blob = layer.blob
            push_tables(registry, [lying], f"{tag}-esgztoc")
        name = f"app@{image.digest}" if tag == "digest" else f"app:{tag}"
        mount = t.mount(registry.host, cache_dir=t.dir / f"cache-{tag}")
        lib.equal(mount.path(name, "rootfs/big").read_bytes(), data)
        assert words in mount.read_log(), mount.read_log()


def test_blob_is_what_it_is(t):
    """Raw, and under a manifest that vouches for no table, a lazy layer is any layer."""
    registry = t.registry()
    layer = LazyLayer([("big", noise(CHUNK))])
    image = oci.Image([layer]).push(registry, "app", "1")
    plain = oci.Image([oci.Layer(layer.tar, blob=layer.blob)]).push(registry, "app", "plain")
    mount = t.mount(registry.host)
    lib.equal([path.name for path in mount.path("app:1/rootfs").iterdir()], ["big"])
    lib.equal(mount.path("app:1/layers/01.tar.gz").read_bytes(), layer.blob)
    lib.equal(sorted(path.name for path in mount.path("app:plain/rootfs").iterdir()), ["big", "stargz.index.json"])
    assert image.digest != plain.digest
    mount.stop()
    found = t.output(lib.REGFS, "cache", "verify", "--cache-dir", t.dir / "cache")
    assert "0 wrong" in found, found


# --- written by others


def odd_layer():
    """What a table must say of each kind of file; times are whole seconds, as builders write them."""
    big = noise(300_000) + bytes(1 << 20) + noise(700_000, 2)
    tar = tarfiles.Tar()
    tar.dir("./", mode=0o755).dir("etc/").file("etc/os-release", b"NAME=x\n" * 20).file("big", big)
    tar.file("empty").link("sym", "etc/os-release").hard("hard", "etc/os-release")
    tar.device("null", "char", 1, 3).device("block", "block", 8, 1).fifo("fifo")
    tar.pax([("SCHILY.xattr.user.a", "v1"), ("SCHILY.xattr.user.b", "v2")])
    tar.file("x", b"with xattrs", mode=0o4755, uid=1000, gid=100)
    tar.pax([("path", "long/" * 40 + "name")]).file("pax", b"long")
    tar.file("a<b>&é", b"escaped").dir("tmp", mode=0o1777)
    return tar.raw(bytes(1024))


def odd_image():
    upper = tarfiles.Tar().whiteout("etc/os-release").file("etc/new", noise(300_000, 3)).opaque("tmp").hard("hard2", "big")
    return oci.Image([oci.Layer(b"".join(layer.parts)) for layer in (odd_layer(), upper.raw(bytes(1024)))])


def check_converted(t, registry, lazy):
    """The tree of the image LAZY is that of the one it was made of, and comes without its blobs."""
    mount = t.mount(registry.host)
    names = [path.name for path in mount.path(f"app:{lazy}/rootfs").iterdir()]
    assert "big" in names, names
    stats = mount.stats()
    lib.equal(stats["tocs"], 2)
    # the config alone
    assert stats["pass_bytes"] < 5000, stats
    for part in ("layers/01", "layers/02", "rootfs"):
        got, expected = mount.path(f"app:{lazy}", part), mount.path("app:plain", part)
        # what the root says of itself is known when its layers are open
        assert list(got.iterdir()) and list(expected.iterdir())
        tree.assert_equal(tree.read(got), tree.read(expected))
    lib.wait_for(lambda: mount.stats()["chunks_decoded"] > 0, "chunks")
    assert "table of contents" not in mount.read_log(), mount.read_log()


def convert_by_ctr_remote(t, registry, *options):
    odd_image().write_layout(t.dir / "layout")
    t.skopeo("copy", f"oci:{t.dir}/layout:latest", f"oci-archive:{t.dir}/in.tar:example.com/app:plain")
    with containerd(t) as ctr:
        ctr("image", "import", "--no-unpack", t.dir / "in.tar")
        [name] = ctr("image", "ls", "-q").split()
        ctr("image", "convert", "--oci", *options, name, "example.com/app:lazy")
        ctr("image", "export", t.dir / "out.tar", "example.com/app:lazy")
    for source, tag in ((f"oci:{t.dir}/layout:latest", "plain"), (f"oci-archive:{t.dir}/out.tar", "lazy")):
        t.skopeo("copy", "--preserve-digests", "--dest-tls-verify=false", source, f"docker://{registry.host}/app:{tag}")


def test_estargz_of_ctr_remote(t):
    registry = t.registry()
    convert_by_ctr_remote(t, registry, "--estargz", "--estargz-chunk-size", "262144")
    check_converted(t, registry, "lazy")


def test_zstdchunked_of_ctr_remote(t):
    registry = t.registry()
    convert_by_ctr_remote(t, registry, "--zstdchunked")
    check_converted(t, registry, "lazy")


def test_zstd_chunked_of_skopeo(t):
    registry = t.registry()
    odd_image().write_layout(t.dir / "layout")
    t.skopeo("copy", "--dest-compress-format", "zstd:chunked", f"oci:{t.dir}/layout:latest", f"oci:{t.dir}/lazy:latest")
    for layout, tag in (("layout", "plain"), ("lazy", "lazy")):
        t.skopeo("copy", "--preserve-digests", "--dest-tls-verify=false", f"oci:{t.dir}/{layout}:latest",
                 f"docker://{registry.host}/app:{tag}")
    check_converted(t, registry, "lazy")


def test_zstd_chunked_of_containers(t):
    """The dialect of Debian 13's skopeo, podman and buildah."""
    registry = t.registry()
    files = {"dir/small": b"of no size", "dir/empty": b"", "big": noise(400_000),
             "holes": bytes(2 << 20) + noise(70_000, 2) + bytes(3 << 20) + noise(50_000, 3) + bytes(5000)}
    layer = ChunkedLayer(["dir"], files, {"dir/hard": "big"})
    oci.Image([layer]).push(registry, "app", "lazy")
    oci.Image([oci.Layer(layer.tar)]).push(registry, "app", "plain")
    mount = t.mount(registry.host)
    lib.equal(mount.path("app:lazy/rootfs/dir/small").read_bytes(), files["dir/small"])
    assert sum(entry[3] for entry in layer_requests(registry, layer)) < 20_000
    lib.equal(mount.stats()["tocs"], 1)
    got, expected = mount.path("app:lazy/rootfs"), mount.path("app:plain/rootfs")
    # what the root says of itself is known when its layers are open
    assert list(got.iterdir()) and list(expected.iterdir())
    tree.assert_equal(tree.read(got), tree.read(expected))
    for name, data in files.items():
        assert mount.path("app:lazy/rootfs", name).read_bytes() == data, name
    assert {entry[2] for entry in layer_requests(registry, layer)} == {206}, "never as a whole"


def test_layer_of_two_images(t):
    """One blob, read by its table in one image and as it is in the other: files have other numbers in each."""
    registry = t.registry()
    files = [(".no.prefetch.landmark", b"\x0f"), ("a", b"a" * 70_000), ("b", b"b" * 70_000), ("big", noise(CHUNK))]
    layer = LazyLayer(files)
    oci.Image([layer]).push(registry, "app", "lazy")
    oci.Image([oci.Layer(layer.tar, blob=layer.blob)]).push(registry, "app", "plain")
    mount = t.mount(registry.host)
    for tag in ("lazy", "plain"):
        for name, data in files[1:]:
            lib.equal(mount.path(f"app:{tag}/layers/01", name).read_bytes() == data, True, f"{tag} {name}")
