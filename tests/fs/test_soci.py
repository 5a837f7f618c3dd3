# SPDX-License-Identifier: Apache-2.0
"""SOCI indexes (soci.py): what is fetched of a layer that has one, and what is done about one that lies.

The layers are plain gzip and plain tar; what there is in place of a pass is seen in the registry's log.
"""
import base64
import gzip
import os
import random

import lib
import oci
import soci
import tarfiles
import test_lazy
import test_referrers
import tree

SPAN = 300_000
TAG = "1"


def text(size, seed):
    """Bytes that deflate cuts into blocks."""
    return base64.b64encode(random.Random(seed).randbytes(size))[:size]


FILES = {f"f{i}": text(400_000, i) for i in range(5)} | {"small": b"of no size", "empty": b""}


def simple_tar():
    tar = tarfiles.Tar().dir("d")
    for name, data in FILES.items():
        tar.file(f"d/{name}", data)
    return tar.end()


def push(registry, layers, ztocs, tag=TAG, repo="app"):
    """An image of LAYERS whose manifest names an index of version 2 of ZTOCS, (layer, bytes) pairs."""
    index = soci.push_index(registry, repo, [(layer.blob, ztoc) for layer, ztoc in ztocs])
    return oci.Image(layers, annotations={soci.INDEX_DIGEST: index["digest"]}).push(registry, repo, tag)


def pushed(registry, blob=None, change=lambda about: None, **options):
    layer = oci.Layer(simple_tar(), blob=blob)
    push(registry, [layer], [(layer, soci.build(layer.blob, SPAN, change))], **options)
    return layer


def fetched(registry, layer):
    return sum(entry[3] for entry in test_lazy.layer_requests(registry, layer))


def read_part(path, off, size):
    with open(path, "rb", buffering=0) as file:
        return os.pread(file.fileno(), size, off)


def check_files(mount, tag=TAG):
    for name, data in FILES.items():
        lib.equal(mount.path(f"app:{tag}/rootfs/d", name).read_bytes(), data, name)


def check_lazy(mount, registry, layer):
    """Listing fetches nothing of the layer, a few bytes of a file a span or two, and then no more."""
    registry.forget()
    d = mount.path(f"app:{TAG}/rootfs/d")
    lib.equal(sorted(os.listdir(d)), sorted(FILES))
    lib.equal((d / "f2").stat().st_size, 400_000)
    lib.equal(test_lazy.layer_requests(registry, layer), [])
    lib.equal(read_part(d / "f2", 200_000, 100), FILES["f2"][200_000:][:100])
    assert 0 < fetched(registry, layer) < 3.5 * SPAN, test_lazy.layer_requests(registry, layer)
    lib.equal(mount.stats()["tocs"], 1)
    check_files(mount)
    # no pass: by ranges, none of them twice but for the byte that spans share
    requests = test_lazy.layer_requests(registry, layer)
    lib.equal({entry[2] for entry in requests}, {206})
    assert fetched(registry, layer) < len(layer.blob) + len(requests), requests
    assert "SOCI" not in mount.read_log() and "table of contents" not in mount.read_log(), mount.read_log()


def test_one_file_of_a_gzip_layer(t):
    registry = t.registry()
    layer = pushed(registry)
    mount = t.mount(registry.host)
    check_lazy(mount, registry, layer)
    # the table and what was read of it are kept
    mount.restart()
    registry.stop()
    check_files(mount)


def test_one_file_of_a_plain_tar(t):
    registry = t.registry()
    tar = simple_tar()
    layer = pushed(registry, blob=tar)
    check_lazy(t.mount(registry.host), registry, layer)


def test_members_of_gzip(t):
    """Several in a layer: points stand in all of them, and spans go over their ends."""
    registry = t.registry()
    tar = simple_tar()
    cuts = [0, 100_000, 700_000, 700_100, 1_500_000, len(tar)]
    blob = b"".join(gzip.compress(tar[at:end], 6, mtime=0) for at, end in zip(cuts, cuts[1:]))
    check_lazy(t.mount(registry.host), registry, pushed(registry, blob=blob))


def test_table_of_the_older_form(t):
    """Without the first checkpoint, which older writers left out."""
    registry = t.registry()
    layer = pushed(registry, change=lambda about: about.update(headless=True))
    check_lazy(t.mount(registry.host), registry, layer)


def test_all_kinds_of_files(t):
    """As without the index: attributes, links, whiteouts, extended attributes; one layer has no ztoc."""
    registry = t.registry()
    lower, upper = (layer.tar for layer in test_lazy.odd_image().layers)
    layers = [oci.Layer(lower), oci.Layer(upper)]
    push(registry, layers, [(layers[0], soci.build(layers[0].blob, SPAN))], tag="lazy")
    oci.Image(layers).push(registry, "app", "plain")
    lazy, plain = t.mount(registry.host, cache_dir=t.dir / "c1"), t.mount(registry.host, cache_dir=t.dir / "c2")
    for part in ("layers/01", "layers/02", "rootfs"):
        got, expected = lazy.path("app:lazy", part), plain.path("app:plain", part)
        assert list(got.iterdir()) and list(expected.iterdir())
        tree.assert_equal(tree.read(got), tree.read(expected))
    lib.equal(lazy.stats()["tocs"], 1)
    assert "table of contents" not in lazy.read_log(), lazy.read_log()


def test_sparse_file(t):
    """Where its data are is not in a ztoc: the whole layer decides that file, and the others too from then on."""
    registry = t.registry()
    tar = tarfiles.Tar().file("a", FILES["f1"])
    tar.sparse_10("sparse", 1 << 20, [(4096, b"x" * 5000), (900_000, b"y" * 512)]).file("b", FILES["f2"])
    layer = oci.Layer(tar.end())

    def as_go_has_it(about):
        for file in about["files"]:
            if file["pax"]:
                file.update(name="sparse", size=1 << 20)

    push(registry, [layer], [(layer, soci.build(layer.blob, SPAN, as_go_has_it))])
    mount = t.mount(registry.host)
    lib.equal(mount.path("app:1/rootfs/b").read_bytes(), FILES["f2"])
    lib.equal(mount.stats()["layers_indexed"], 0)
    data = mount.path("app:1/rootfs/sparse").read_bytes()
    lib.equal((len(data), data[4096:9096], data[900_000:900_512]), (1 << 20, b"x" * 5000, b"y" * 512))
    lib.equal(data.count(b"\0"), (1 << 20) - 5512)
    assert "vouches for no chunks" in mount.read_log(), mount.read_log()


LIES = {
    "version": (lambda a: a.update(version="1.0"), "not of version 0.9"),
    "size": (lambda a: a.update(size=a["size"] + 1), "another size"),
    "digest": (lambda a: a["digests"].__setitem__(2, oci.sha256(b"")), "not what it says"),
    "digests": (lambda a: a["digests"].pop(), "not as many"),
    "unordered": (lambda a: a["points"].reverse(), "do not follow each other"),
    "overlap": (lambda a: a["points"][3].__setitem__(1, a["points"][2][1]), "do not follow each other"),
    "begins late": (lambda a: a["points"][0].__setitem__(1, 512), "do not begin where"),
    "bits": (lambda a: a["points"][1].__setitem__(2, 9), "begins at no bit"),
    "other bits": (lambda a: a["points"][1].__setitem__(2, (a["points"][1][2] + 3) % 8), "not what it says"),
    "outside": (lambda a: a["points"][-1].__setitem__(0, a["size"]), "do not follow each other"),
    "large": (lambda a: a.update(tar_size=1 << 40), "too large"),
    "file outside": (lambda a: a["files"][1].update(off=1 << 40), "outside of the archive"),
    "files overlap": (lambda a: a["files"][2].update(off=600), "over each other"),
    "type": (lambda a: a["files"][1].update(type="socket"), "unknown type"),
    "time": (lambda a: a["files"][1].update(time="noon"), "makes no sense"),
    "name": (lambda a: a["files"][1].update(name="x" * 5000), "impossible name"),
    "NUL": (lambda a: a["files"][1].update(name="a\0b"), "cut off"),
    "circle": (lambda a: a["files"].extend(
        a["files"][6] | {"name": name, "type": "hardlink", "link": link} for name, link in (("x", "y"), ("y", "x"))),
        "not there yet"),
}


def test_lies(t):
    """The layer itself decides, and the log says why, once."""
    registry = t.bad_registry()
    mount = t.mount(registry.host)
    for n, (name, (lie, words)) in enumerate(LIES.items()):
        # a layer of its own: an index of the whole one would be used
        files = {"f0": text(150_000, n), "f1": text(150_000, n + 50), "f2": FILES["f2"][:150_000], "f3": b"3", "f4": b"4", "f5": b""}
        tar = tarfiles.Tar().dir("d")
        for path, data in files.items():
            tar.file(f"d/{path}", data)
        layer = oci.Layer(tar.end())
        push(registry, [layer], [(layer, soci.build(layer.blob, 60_000, lie))], tag=f"t{n}")
        d = mount.path(f"app:t{n}/rootfs/d")
        for path, data in files.items():
            lib.equal(d.joinpath(path).read_bytes(), data, name)
        lines = [line for line in mount.read_log().splitlines() if oci.sha256(layer.blob) in line and "table of" in line]
        lib.equal((name, len(lines)), (name, 1))
        assert words in lines[0], (name, lines)


def test_wrong_window(t):
    """What a span decodes to depends on the window before it: one that leads nowhere is found out."""

    def short(about):
        # right bytes, but for a stream that goes on from nothing
        about["points"][1][3] = bytes(soci.WINDOW)
        about["points"][1][1] = 5

    registry = t.registry()
    pushed(registry, change=short)
    mount = t.mount(registry.host)
    check_files(mount)
    assert "cannot be decoded" in mount.read_log(), mount.read_log()


def test_lies_about_attributes_end_with_the_whole_layer(t):
    """What is said of names and attributes is believed, until all of the layer is here."""
    registry = t.registry()
    lower = test_lazy.odd_image().layers[0].tar
    for tag, mode, told in (("true", 0o644, False), ("lie", 0o4777, True)):
        layer = oci.Layer(lower + bytes(512) * told)

        def change(about, mode=mode):
            next(file for file in about["files"] if file["name"] == "big")["mode"] = mode

        push(registry, [layer], [(layer, soci.build(layer.blob, SPAN, change))], tag=tag)
        mount = t.mount(registry.host, cache_dir=t.dir / tag, prefetch="image")
        big = mount.path(f"app:{tag}/rootfs/big")
        lib.equal(big.stat().st_mode & 0o7777, mode)
        words = "its SOCI index tells of other files"
        lib.wait_for(lambda: mount.stats()["layers_indexed"] == 1, "the whole layer")
        lib.wait_for(lambda: not told or words in mount.read_log(), words)
        lib.equal(len(big.read_bytes()), big.stat().st_size)
        mount.restart()
        lib.equal(big.stat().st_mode & 0o7777, 0o644)
        lib.equal(words in mount.output(), told)


def test_index_that_is_not_there(t):
    registry = t.registry()
    layer = oci.Layer(simple_tar())
    for tag, annotation, words in (("gone", oci.sha256(b"gone"), "does not have it"), ("odd", "v2", "is no digest")):
        oci.Image([layer], annotations={soci.INDEX_DIGEST: annotation}).push(registry, "app", tag)
        mount = t.mount(registry.host, cache_dir=t.dir / tag)
        check_files(mount, tag)
        assert words in mount.read_log(), mount.read_log()


def test_tables_of_lower_layers_come_together(t):
    """Over a long way, once the top layer has not decided. The layers themselves are not touched."""
    registry = t.bad_registry()
    layers = [oci.Layer(tarfiles.Tar().file(f"f{n}", b"%d" % n).file(f"big{n}", text(400_000, n)).end())
              for n in range(6)]
    tables = [soci.build(layer.blob, SPAN) for layer in layers]
    push(registry, layers, list(zip(layers, tables)))
    asked = [f"/blobs/{oci.sha256(table)}" for table in tables]
    # the second layer's table does not come before the last one's that comes along is asked for
    registry.rule("GET", asked[4], until=asked[1])
    registry.rule("GET", "", gather=0.05)
    mount = t.mount(registry.host, timeout=8)
    lib.equal(mount.path("app:1/rootfs/f5").read_bytes(), b"5")
    lib.equal([registry.count("GET", table) for table in asked], [0, 0, 0, 0, 0, 1])
    lib.equal(mount.path("app:1/rootfs/f4").read_bytes(), b"4")
    lib.wait_for(lambda: all(registry.count("GET", table) for table in asked[1:]), "all tables to be asked for")
    lib.equal([registry.count("GET", table) for table in asked], [0, 1, 1, 1, 1, 1])
    lib.equal(sum(registry.count("GET", oci.sha256(layer.blob)) for layer in layers[:4]), 0)


def test_child_of_an_index_is_no_platform(t):
    """As `soci convert` leaves it: the SOCI index beside the image, with its platform."""
    registry = t.registry()
    layer = oci.Layer(simple_tar())
    platform = {"os": "linux", "architecture": "amd64"}
    index = soci.push_index(registry, "app", [(layer.blob, soci.build(layer.blob, SPAN))])
    image = oci.Image([layer], annotations={soci.INDEX_DIGEST: index["digest"]}).push(registry, "app")
    children = [index | {"platform": platform, "annotations": {soci.MANIFEST_DIGEST: image.digest}},
                image.descriptor() | {"platform": platform}]
    data = oci.to_json({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": children})
    oci.push_manifest(registry, "app", TAG, data, oci.INDEX)
    mount = t.mount(registry.host, platform="linux/amd64")
    lib.equal(os.listdir(mount.path("app:1/platforms")), ["linux-amd64"])
    lib.equal(os.listdir(mount.path("app:1/referrers")), [test_referrers.dashed(index["digest"])])
    check_lazy(mount, registry, layer)


# --- version 1: nothing vouches for it


def push_v1(registry, image, layer, repo="team/app"):
    return soci.push_index(registry, repo, [(layer.blob, soci.build(layer.blob, SPAN))], version=1,
                           subject=image.descriptor())


def test_version_1_is_used_where_it_is_trusted(t):
    registry = t.registry()
    layer = oci.Layer(simple_tar())
    image = oci.Image([layer]).push(registry, "team/app", TAG)
    index = push_v1(registry, image, layer)
    test_referrers.push_fallback_index(registry, "team/app", image.digest, [index])
    host = registry.host
    for n, (place, trusted) in enumerate({None: False, "other.example": False, f"{host}/tea": False,
                                          f"{host}/team/app/x": False, f"{host}/team/app": True,
                                          f"{host}/team": True, host: True}.items()):
        registry.forget()
        mount = t.mount(host, cache_dir=t.dir / f"cache{n}", trust_index=place, soci="v1")
        lib.equal(mount.path("team/app:1/rootfs/d/f3").read_bytes(), FILES["f3"], place)
        lib.equal(mount.stats()["tocs"], int(trusted), place)
        lib.equal(f"is read by the SOCI index {index['digest']}" in mount.read_log(), trusted, place)
        lib.equal(mount.stats()["layers_indexed"], int(not trusted), place)
        # who does not want it does not pay for it
        lib.equal(registry.count(path="referrers|manifests/sha256-") > 0, trusted, place)
        lib.equal("soci=v1: published indexes are not used" in mount.output(), place is None)
        mount.stop()


def test_version_1_by_the_api(t):
    registry = t.bad_registry()
    registry.referrers_api = True
    layer = oci.Layer(simple_tar())
    image = oci.Image([layer]).push(registry, "team/app", TAG)
    # of another image, so of no use: it says so itself
    other = oci.Image([layer], config={"created": None}).push(registry, "team/app")
    push_v1(registry, other, layer)
    push_v1(registry, image, layer)
    mount = t.mount(registry.host, trust_index=registry.host)
    lib.equal(mount.path("team/app:1/rootfs/d/f3").read_bytes(), FILES["f3"])
    lib.equal(mount.stats()["tocs"], 1)


def test_trust_index_wants_a_place(t):
    for value in ("/team", "reg.example/Team", "reg.example/", "a b"):
        ended = t.run(lib.REGFS, "-o", f"trust_index={value}", t.dir, status=2)
        assert b"option trust_index" in ended.stderr, ended.stderr


def test_index_push_and_read(t):
    """What `regfs index push` leaves in a registry, another machine reads by."""
    registry = t.registry()
    lower, upper = (layer.tar for layer in test_lazy.odd_image().layers)
    layers = [oci.Layer(lower), oci.Layer(upper)]
    oci.Image(layers).push(registry, "app", TAG)
    t.run(lib.REGFS, "index", "push", "-o", f"cache_dir={t.dir}/c0", "--min-layer-size", "1", f"{registry.host}/app:{TAG}")
    lazy = t.mount(registry.host, cache_dir=t.dir / "c1", trust_index=registry.host)
    plain = t.mount(registry.host, cache_dir=t.dir / "c2")
    for part in ("layers/01", "layers/02", "rootfs"):
        got, expected = lazy.path("app:1", part), plain.path("app:1", part)
        assert list(got.iterdir()) and list(expected.iterdir())
        tree.assert_equal(tree.read(got), tree.read(expected))
    lib.equal(lazy.stats()["tocs"], 2)
    assert "table of contents" not in lazy.read_log(), lazy.read_log()
