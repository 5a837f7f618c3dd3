# SPDX-License-Identifier: Apache-2.0
"""regfs index push: what it says, what is then in the registry (sociread.py), and what the next machine makes of it."""
import base64
import functools
import gzip
import io
import json
import os
import random
import re
import subprocess

import lib
import oci
import sample
import soci
import sociread
import tarfiles
import test_lazy
import test_referrers

ALL = ("--min-layer-size", "0")


def text(size, seed):
    """Bytes that deflate makes smaller, in blocks."""
    return base64.b64encode(random.Random(seed).randbytes(size))[:size]


FILES = {f"f{n}": text(900_000, n) for n in range(6)} | {"words": b"all the same " * 90_000, "empty": b""}


@functools.cache
def some_tar():
    """6.6 MB decoded: two spans."""
    tar = tarfiles.Tar().dir("d", mode=0o1777)
    for n, (name, data) in enumerate(FILES.items()):
        tar.file(f"d/{name}", data, mode=0o4755 if n == 1 else 0o644, uid=n, gid=70000 + n)
    tar.link("d/symlink", "f1").hard("d/hardlink", "d/f1").device("d/null", "char", 1, 3).fifo("d/fifo")
    tar.pax([("SCHILY.xattr.user.of", b"value"), ("SCHILY.xattr.security.capability", b"\1\0\0\2\0\x20" + bytes(14))])
    tar.file("d/capable", b"x").pax([("path", "d/" + "long" * 40), ("mtime", "1700000000.25")]).file("d/long", b"y")
    return tar.file("d/old", b"z", mtime=-5).end()


@functools.cache
def compress(data, level=1):
    return gzip.compress(data, level, mtime=0)


def in_pieces(data, size):
    return b"".join(compress(data[at:at + size]) for at in range(0, len(data), size))


def with_header(data):
    """A gzip header of more than ten bytes."""
    out = io.BytesIO()
    with gzip.GzipFile("layer.tar", "wb", 1, out, 0) as file:
        file.write(data)
    return out.getvalue()


def by(data, *command):
    lib.need(command[0])
    return subprocess.run(command, input=data, check=True, capture_output=True).stdout


def push_index(t, ref, *args, status=0, cache="cache"):
    """(lines, stderr) of the command."""
    ended = t.run(lib.REGFS, "index", "push", "-o", f"cache_dir={t.dir}/{cache}", *args, ref, status=status)
    return ended.stdout.decode().splitlines(), ended.stderr.decode()


def pushed_digest(lines):
    found = re.fullmatch(r"index \S+@(sha256:[0-9a-f]{64})", lines[-1])
    assert found, lines
    return found[1]


def line_of(lines, layer):
    return next(line for line in lines if line.startswith(f"layer {oci.sha256(layer.blob)} "))


def check_ztoc(ztoc, blob, tar):
    """Spans and members are those of the layer."""
    lib.equal(ztoc.read(blob) == tar, True, "bytes of the spans")
    lib.equal((ztoc.version, ztoc.size, ztoc.tar_size, ztoc.span_size), ("0.9", len(blob), len(tar), 4 << 20))
    expected = soci.members(tar)
    lib.equal(len(ztoc.files), len(expected))
    for got, wanted in zip(ztoc.files, expected):
        pax = {key: value for key, value in wanted["pax"].items() if key.startswith("SCHILY.xattr.")}
        lib.equal(got, wanted | {"name": got["name"], "pax": pax})
        lib.equal(got["name"].rstrip("/"), wanted["name"].rstrip("/"))


def test_every_kind_of_stream(t):
    """As one image with a layer of each; a reader that stops at a gzip member's end gets all bytes."""
    tar = some_tar()
    small, cut = compress(b""), 5_000_000
    blobs = {
        "plain": tar, "one member": compress(tar), "stored blocks": compress(tar, 0), "header": with_header(tar),
        "members of 1 MiB": in_pieces(tar, 1 << 20), "members of 6 MB": in_pieces(tar, 6_000_000),
        "empty members": small + small + compress(tar[:cut]) + small + compress(tar[cut:]) + small,
        "zeros behind": compress(tar) + bytes(3000),
        "pigz": by(tar, "pigz", "-1c"), "pigz -i": by(tar, "pigz", "-1ci"), "rsyncable": by(tar, "gzip", "-1c", "--rsyncable"),
    }
    registry = t.registry()
    layers = [oci.Layer(tar, "none" if name == "plain" else "gzip", blob) for name, blob in blobs.items()]
    image = oci.Image(layers).push(registry, "app", "1")
    lines, _ = push_index(t, f"{registry.host}/app:1", *ALL)
    (digest, manifest), = sociread.indexes(registry, "app", image.digest).items()
    lib.equal(pushed_digest(lines), digest)
    lib.equal(manifest["subject"], image.descriptor())
    lib.equal(manifest["config"], {"mediaType": soci.TYPE % 1, "digest": oci.sha256(b"{}"), "size": 2})
    ztocs = sociread.ztocs(registry, "app", manifest)
    lib.equal(list(ztocs), [oci.sha256(layer.blob) for layer in layers], "in the order of the layers")
    for name, layer in zip(blobs, layers):
        lib.note(name)
        ztoc, entry = ztocs[oci.sha256(layer.blob)]
        check_ztoc(ztoc, layer.blob, tar)
        assert len(ztoc.spans) in ((7,) if "1 MiB" in name else (2, 3)), len(ztoc.spans)
        lib.equal(entry["mediaType"], "application/octet-stream")
        lib.equal(entry["annotations"]["com.amazon.soci.image-layer-mediaType"], layer.media_type)
        assert f"{len(ztoc.files)} files, {len(ztoc.spans)} spans, {entry['digest']}" in line_of(lines, layer), lines


def test_layers_that_are_left_out(t):
    tar = some_tar()
    lazy = test_lazy.LazyLayer([("first", b"1"), ("big", bytes(300_000))])
    sparse = tarfiles.Tar().sparse_10("s", 1 << 20, [(4096, b"x" * 5000)]).end()
    reasons = {
        "it is zstd": oci.Layer(tar, "zstd"), "it has a table of contents of its own": lazy,
        "its gzip members are too small": oci.Layer(tar, blob=in_pieces(tar, 65280)),
        "it has a sparse file": oci.Layer(sparse), "not a whole tar": oci.Layer(b"", blob=compress(b"text" * 1000)),
        "gzip: the stream is cut off": oci.Layer(tar, blob=compress(tar)[:-1000]),
    }
    registry = t.registry()
    oci.Image([*reasons.values(), reasons["it has a sparse file"]]).push(registry, "app", "1")
    lines, _ = push_index(t, f"{registry.host}/app:1", *ALL)
    for reason, layer in reasons.items():
        assert f" left out: {reason}" in line_of(lines, layer), lines
    assert lines[-2].endswith(" left out: it is the same as one below"), lines
    lib.equal(lines[-1], "no layer needs an index; nothing was pushed")
    # without the option those under 10 MiB are not looked at
    lines, _ = push_index(t, f"{registry.host}/app:1")
    lib.equal(len([line for line in lines if line.endswith(" left out: it is small")]), len(reasons) - 1, lines)


def test_the_next_machine_is_lazy(t):
    tar = some_tar()
    layer, top = oci.Layer(tar, blob=compress(tar)), oci.Layer(tarfiles.Tar().file("top", b"t").end())
    registry = t.registry()
    oci.Image([layer, top]).push(registry, "team/app", "1")
    push_index(t, f"{registry.host}/team/app:1", *ALL)
    for n, (trusted, bound) in enumerate({registry.host: 0.6, None: None}.items()):
        registry.forget()
        mount = t.mount(registry.host, cache_dir=t.dir / f"next{n}", trust_index=trusted)
        lib.equal(mount.path("team/app:1/rootfs/d/f5").read_bytes(), FILES["f5"])
        requests = test_lazy.layer_requests(registry, layer)
        if trusted:
            assert {entry[2] for entry in requests} == {206}, requests
            assert sum(entry[3] for entry in requests) < bound * len(layer.blob), requests
        else:
            assert any(entry[3] == len(layer.blob) for entry in requests), requests
            lib.equal(registry.count(path="referrers|manifests/sha256-"), 0)
        for name, data in FILES.items():
            lib.equal(mount.path("team/app:1/rootfs/d", name).read_bytes(), data, name)
        lib.equal(mount.stats()["tocs"], 1 if trusted else 0)
        mount.stop()


def test_damaged_ztoc_is_no_wrong_byte(t):
    """As somebody with access to the registry's disk would have it: the digest is not right any more."""
    tar = some_tar()
    layer = oci.Layer(tar, blob=compress(tar))
    registry = t.registry()
    image = oci.Image([layer]).push(registry, "app", "1")
    push_index(t, f"{registry.host}/app:1", *ALL)
    (_, manifest), = sociread.indexes(registry, "app", image.digest).items()
    digest = manifest["layers"][0]["digest"].removeprefix("sha256:")
    file = registry.storage / f"docker/registry/v2/blobs/sha256/{digest[:2]}/{digest}/data"
    data = bytearray(file.read_bytes())
    data[data.index(b"d/f1\0")] ^= 1
    file.write_bytes(data)
    mount = t.mount(registry.host, cache_dir=t.dir / "next", trust_index=registry.host)
    lib.equal(sorted(os.listdir(mount.path("app:1/rootfs"))), ["d"])
    lib.equal(mount.path("app:1/rootfs/d/f1").read_bytes(), FILES["f1"])
    lib.equal(mount.stats()["layers_indexed"], 1)


def test_again_gives_the_same_and_keeps_what_others_wrote(t):
    registry = t.registry()
    tar = some_tar()
    image = oci.Image([oci.Layer(tar, blob=compress(tar))]).push(registry, "app", "1")
    signature = oci.push_artifact(registry, "app", None, [(None, b"signature")], subject=image.descriptor())
    test_referrers.push_fallback_index(registry, "app", image.digest, [signature])
    first, _ = push_index(t, f"{registry.host}/app:1", *ALL)
    registry.forget()
    lib.equal(push_index(t, f"{registry.host}/app@{image.digest}", *ALL)[0], first, "by its digest")
    lib.equal(registry.count("GET", "/blobs/"), 0, "all is in the cache")
    lib.equal(registry.count("POST"), 0, "all is in the registry")
    lib.equal(push_index(t, f"{registry.host}/app:1", *ALL, cache="other")[0], first, "on another machine")
    listed = oci.request(registry, "GET", f"/v2/app/manifests/{image.digest.replace(':', '-')}", None,
                              {"Accept": oci.INDEX})[2]
    lib.equal(sorted(entry["digest"] for entry in json.loads(listed)["manifests"]),
              sorted([signature["digest"], pushed_digest(first)]))


def test_with_the_referrers_api_there_is_no_tag(t):
    registry = t.bad_registry()
    registry.referrers_api = True
    tar = some_tar()
    image = oci.Image([oci.Layer(tar, blob=compress(tar))]).push(registry, "app", "1")
    lines, _ = push_index(t, f"{registry.host}/app:1", *ALL)
    lib.equal(registry.count("PUT", ".*/manifests/sha256-.*"), 0)
    listed = json.loads(oci.request(registry, "GET", f"/v2/app/referrers/{image.digest}")[2])["manifests"]
    lib.equal([(entry["digest"], entry["artifactType"]) for entry in listed], [(pushed_digest(lines), soci.TYPE % 1)])


def test_one_platform_of_an_index(t):
    registry = t.registry()
    tar = some_tar()
    images = [oci.Image([oci.Layer(tar, blob=compress(tar, level))]) for level in (1, 2)]
    platforms = [{"os": "linux", "architecture": name} for name in ("s390x", "riscv64")]
    oci.make_index(list(zip(images, platforms)), registry, "app", "1")
    lines, _ = push_index(t, f"{registry.host}/app:1", *ALL, "-o", "platform=linux/riscv64")
    lib.equal(lines[0], f"image {registry.host}/app@{images[1].digest}")
    lib.equal(list(sociread.indexes(registry, "app", images[1].digest)), [pushed_digest(lines)])
    _, words = push_index(t, f"{registry.host}/app:1", "-o", "platform=linux/arm", status=1)
    assert "platform" in words, words


def test_in_the_embedded_store(t):
    tar = some_tar()
    image = oci.Image([oci.Layer(tar, blob=compress(tar))])
    image.write_layout(t.dir / "store/app", "1")
    lines, _ = push_index(t, "local/app:1", *ALL, "-o", f"store={t.dir}/store")
    mount = t.mount("local")
    lib.equal(os.listdir(mount.path("app:1/referrers")), [test_referrers.dashed(pushed_digest(lines))])


def test_what_cannot_be_pushed(t):
    registry = t.registry()
    sample.image("1").push(registry, "app", "1")
    oci.push_artifact(registry, "app", "sbom", [("a", b"a")])
    for ref, words in {f"{registry.host}/app:2": "No such file", f"{registry.host}/none:1": "No such file",
                       f"{registry.host}/app:sbom": "no image", "localhost:1/app:1": "refused"}.items():
        lines, said = push_index(t, ref, status=1)
        assert words in said and ref in said, said
        assert not any(line.startswith("index") for line in lines), lines
    lines, _ = push_index(t, f"{registry.host}/app:1")
    lib.equal(lines[-1], "no layer needs an index; nothing was pushed")
    lib.equal(registry.count("PUT", "sha256-"), 0)


def test_who_may_push(t):
    tar = some_tar()
    registry = t.bad_registry()
    oci.Image([oci.Layer(tar, blob=compress(tar))]).push(registry, "app", "1")
    ref = f"{registry.host}/app:1"
    registry.auth, registry.users, registry.anonymous = "basic", {"ann": "secret"}, False
    _, said = push_index(t, ref, *ALL, status=1)
    assert "Permission denied" in said, said
    authfile = t.dir / "auth.json"
    authfile.write_text(json.dumps({"auths": {registry.host: {"auth": base64.b64encode(b"ann:secret").decode()}}}))
    registry.rule("POST", r".*", status=403, times=1)
    lines, said = push_index(t, ref, *ALL, "-o", f"authfile={authfile}", status=1)
    assert "Permission denied" in said and "secret" not in said, said
    lib.equal([line.split()[0] for line in lines], ["image"])
    pushed_digest(push_index(t, ref, *ALL, "-o", f"authfile={authfile}")[0])


def test_index_usage_errors(t):
    for args, words in {(): "push what", ("pull", "a"): "pull", ("push",): "which image", ("push", "UPPER"): "UPPER",
                        ("push", "a", "b"): "b", ("push", "--all", "a"): "--all",
                        ("push", "--min-layer-size", "big", "a"): "big", ("push", "--min-layer-size"): "--min",
                        ("push", "-o", "nonsense", "a"): "nonsense", ("push", "-o", "offline", "a"): "offline"}.items():
        ended = t.run(lib.REGFS, "index", *args, status=2)
        assert words in ended.stderr.decode() and b"usage: regfs index" in ended.stderr, ended.stderr
        lib.equal(ended.stdout, b"")
