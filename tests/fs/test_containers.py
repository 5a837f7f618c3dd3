# SPDX-License-Identifier: Apache-2.0
"""Containers off the mount: _regfs/store, by which podman takes layers in place of a pull.

The protocol is that of containers/storage (containers-storage.conf(5), "additionallayerstores"; its
drivers/overlay/overlay.go, the functions with AdditionalLayer in their names).
"""
import base64
import errno
import json
import os
import pathlib
import random
import shutil
import stat

import lib
import oci
import sample
import test_lazy
from podman import Podman
from tarfiles import Tar

# What is in the files of a container, and all about them that its image decides.
LIST = "find /bin /data /keep /unread /etc/motd | sort | xargs stat -c '%n %f %u %g %s %Y %t %T'; md5sum /bin/busybox /etc/motd /keep/me; ls / /etc; " \
       "stat -c %d / /bin /bin/busybox /data/new | uniq | wc -l"


def store(mount, reference, *parts):
    return mount.path("_regfs/store", base64.b64encode(reference.encode()).decode(), *parts)


def info(path):
    return json.loads((path / "info").read_text())


def busybox_tar():
    lib.need("busybox")
    tar = Tar().dir("bin").file("bin/busybox", pathlib.Path(shutil.which("busybox")).read_bytes(), mode=0o755)
    for applet in ("sh", "find", "sort", "xargs", "stat", "cat", "ls", "md5sum", "head", "uniq", "wc"):
        tar.link(f"bin/{applet}", "busybox")
    return tar


def busybox_image():
    """What runtimes want of a root, and a shell."""
    tar = busybox_tar().dir("etc").file("etc/os-release", sample.OS_RELEASE).file("etc/passwd", "root:x:0:0::/:/bin/sh\n")
    for name in ("dev", "proc", "root", "run", "sys", "tmp", "usr", "var"):
        tar.dir(name)
    return oci.Image([oci.Layer(tar.end())])


def container_image(form):
    """Something to run on the bottom; deletions and what nobody reads above. FORM makes it one of its own."""
    bottom = busybox_tar().dir("etc").file("etc/motd", "1").file("etc/gone", form).dir("data", mode=0o1777)
    bottom.file("data/old", "x").dir("keep").file("keep/me", "kept", uid=1, gid=2, mode=0o4755)
    top = Tar().dir("etc").file("etc/motd", "2").whiteout("etc/gone").dir("data", mode=0o1777).opaque("data")
    top.file("data/new", "n").file("unread", random.Random(7).randbytes(3 << 20))
    return oci.Image([oci.Layer(bottom.end()), oci.Layer(top.end())], {"config": {"Cmd": ["/bin/sh"]}})


def layer_bytes(registry, digests):
    """Bytes served of blobs DIGESTS."""
    return sum(entry[3] for entry in registry.requests("GET") if entry[1].rsplit("/", 1)[1] in digests)


# --- the protocol


def test_layer_store(t):
    registry = t.registry()
    pushed = sample.push_all(registry)["1.5"]
    mount = t.mount(registry=registry.host)
    name = f"{registry.host}/team/app:1.5"
    digests = [layer.descriptor()["digest"] for layer in pushed.layers]
    lib.equal(os.listdir(mount.path("_regfs/store")), [])
    assert "store" in os.listdir(mount.path("_regfs"))
    lib.equal(sorted(os.listdir(store(mount, name))), sorted(digests))
    for layer, digest in zip(pushed.layers, digests):
        where = store(mount, name, digest)
        lib.equal(sorted(os.listdir(where)), ["blob", "diff", "info"])
        lib.equal(info(where), {"compressed-diff-digest": digest, "compressed-size": len(layer.blob),
                                "diff-digest": oci.sha256(layer.tar), "compression": 2})
        lib.equal((where / "blob").stat().st_size, len(layer.blob))
        assert (where / "diff").is_dir()
    lib.equal(layer_bytes(registry, digests), 0, "manifest and config alone")
    lib.equal(registry.count("GET", "/manifests/"), 1)
    top = store(mount, name, digests[1])
    lib.equal((top / "blob").read_bytes(), pushed.layers[1].blob)
    lib.equal((top / "diff/app/version").read_text(), "1.5")
    gone = os.lstat(top / "diff/etc/old")
    assert stat.S_ISCHR(gone.st_mode) and gone.st_rdev == 0, "as overlayfs has it, whatever whiteouts= says"
    assert mount.path(registry.host, "team/app:1.5/layers/02/etc/.wh.old").exists()
    # Who says that he uses it, or does so no more, is told that he was heard.
    with lib.fails(errno.ENOENT):
        os.close(os.open(top / "use", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666))
    with lib.fails(errno.ENOENT):
        os.rmdir(top)
    with lib.fails(errno.EROFS):
        (top / "other").write_text("")
    lib.equal((top / "diff/app/version").read_text(), "1.5")
    # By a digest, and what is known of the size once the layer is.
    lib.equal(info(store(mount, f"{registry.host}/team/app@{pushed.digest}", digests[1]))["diff-size"],
              len(pushed.layers[1].tar))


def test_what_is_no_layer(t):
    registry = t.registry()
    pushed = sample.push_all(registry)
    mount = t.mount(registry=registry.host)
    good = pushed["1.5"].layers[1].descriptor()["digest"]
    foreign = pushed["solo"].layers[1].descriptor()["digest"]
    name = f"{registry.host}/team/app:1.5"
    assert store(mount, name, good).is_dir()
    for reference, digest in ((name, foreign), (name, "sha256:" + "0" * 64), (name, "diff"), (name, pushed["1.5"].digest),
                              (f"{registry.host}/team/app:none", good), (f"{registry.host}/none:1.5", good),
                              ("../../etc", good), ("", good), ("UPPER/case:1", good), ("a\0b", good)):
        lib.note(f"{reference} {digest}")
        with lib.fails(errno.ENOENT):
            os.stat(store(mount, reference, digest))
    for path in ("not base64", "====", "x" * 200):
        with lib.fails(errno.ENOENT):
            os.stat(mount.path("_regfs/store", path, good))
    # A mount of one registry, or of one image, has no others.
    other = t.registry()
    pushed["1.5"].push(other, "team/app", "1.5")
    alone = t.mount(registry.host, cache_dir=t.dir / "alone")
    image = t.mount(f"{registry.host}/team/app:1.5", cache_dir=t.dir / "image")
    for where in (alone, image):
        assert store(where, name, good).is_dir()
        with lib.fails(errno.ENOENT):
            os.stat(store(where, f"{other.host}/team/app:1.5", good))
    assert store(alone, f"{registry.host}/solo:1", foreign).is_dir()
    with lib.fails(errno.ENOENT):
        os.stat(store(image, f"{registry.host}/solo:1", foreign))


def test_layer_outlives_its_tag(t):
    """A container goes on using the layers of an image whose tag has moved, after restarts and without the registry."""
    registry = t.registry()
    pushed = sample.push_all(registry)
    name = f"{registry.host}/team/app:stable"
    old = pushed["1.4"].layers[1].descriptor()["digest"]
    new = pushed["1.5"].layers[1].descriptor()["digest"]
    pushed["1.4"].push(registry, "team/app", "stable")
    mount = t.mount(tag_ttl=0)
    lib.equal((store(mount, name, old) / "diff/app/version").read_text(), "1.4")
    pushed["1.5"].push(registry, "team/app", "stable")
    mount.restart()
    lib.equal((store(mount, name, old) / "diff/app/version").read_text(), "1.4")
    lib.equal((store(mount, name, new) / "diff/app/version").read_text(), "1.5")
    registry.stop()
    mount.restart()
    for digest, version in ((old, "1.4"), (new, "1.5")):
        lib.equal((store(mount, name, digest) / "diff/app/version").read_text(), version)


def test_platforms_and_tables(t):
    """A layer of another platform than the mount's; one named by its table of contents, as newer runtimes do."""
    registry = t.registry()
    images = {name: sample.image(name) for name in ("arm64", "amd64")}
    oci.make_index([(image, {"os": "linux", "architecture": name}) for name, image in images.items()],
                   registry, "app", "multi")
    lazy = test_lazy.LazyLayer([("big", test_lazy.noise(2 * test_lazy.CHUNK))])
    oci.Image([lazy]).push(registry, "app", "lazy")
    mount = t.mount(registry.host, platform="linux/amd64")
    for name, image in images.items():
        where = store(mount, f"{registry.host}/app:multi", image.layers[1].descriptor()["digest"])
        lib.equal((where / "diff/app/version").read_text(), name)
    toc = lazy.annotations[test_lazy.TOC_DIGEST]
    where = store(mount, f"{registry.host}/app:lazy", toc)
    lib.equal(info(where), {"toc-digest": toc, "compression": 2, "compressed-size": len(lazy.blob), "diff-size": -1,
                            "flags": {"expected-layer-diffid": oci.sha256(lazy.tar)}})
    lib.equal(os.listdir(where / "diff"), ["big"])


def test_symlinks_stay_as_they_are(t):
    """What a container sees is the image's, whatever the mount's options make of it elsewhere."""
    registry = t.registry()
    image = oci.Image([oci.Layer(Tar().dir("etc").link("etc/link", "/etc/real").end())]).push(registry, "app", "1")
    mount = t.mount(registry.host, transform_symlinks=True, whiteouts="overlay")
    diff = store(mount, f"{registry.host}/app:1", image.layers[0].descriptor()["digest"], "diff")
    lib.equal(os.readlink(mount.path("app:1/layers/01/etc/link")), "../etc/real")
    lib.equal(os.readlink(diff / "etc/link"), "/etc/real")


def test_prefetch(t):
    """Who goes into a layer here uses the image, as who goes into rootfs/ does."""
    registry = t.registry()
    pushed = sample.push_all(registry)["1.5"]
    digests = [layer.descriptor()["digest"] for layer in pushed.layers]
    mount = t.mount(registry.host, prefetch="image")
    top = store(mount, f"{registry.host}/team/app:1.5", digests[1])
    assert info(top) and (top / "diff").is_dir()
    lib.equal(layer_bytes(registry, digests), 0, "nothing was entered yet")
    lib.equal((top / "diff/app/version").read_text(), "1.5")
    lib.wait_for(lambda: layer_bytes(registry, digests[:1]) > 0, "the layer below")


# --- podman


def push_forms(t, registry):
    """The image as plain gzip, as eStargz and as zstd:chunked: tags and digests of the layers."""
    container_image("gzip").push(registry, "app", "gzip")
    container_image("zstd").write_layout(t.dir / "layout")
    t.skopeo("copy", "--dest-compress-format", "zstd:chunked", f"oci:{t.dir}/layout:latest", f"oci:{t.dir}/zstd:latest")
    t.skopeo("copy", "--preserve-digests", "--dest-tls-verify=false", f"oci:{t.dir}/zstd:latest",
             f"docker://{registry.host}/app:zstd")
    lazy = test_lazy.LazyLayer([("bin/busybox", pathlib.Path(shutil.which("busybox")).read_bytes()),
                                ("unread", random.Random(8).randbytes(3 << 20))], mode=0o755)
    oci.Image([lazy], {"config": {"Cmd": ["/bin/busybox"]}}).push(registry, "app", "estargz")
    found = {}
    for tag in ("gzip", "zstd", "estargz"):
        manifest = json.loads(registry.request("GET", f"/v2/app/manifests/{tag}", None, {"Accept": oci.MANIFEST})[2])
        found[tag] = manifest["layers"]
    return found


def test_podman_pulls_no_layers(t):
    registry = t.registry()
    forms = push_forms(t, registry)
    mount = t.mount(registry=registry.host)
    lazy = Podman(t, [f"{mount.path('_regfs/store')}:ref"])
    # Whether containers run here at all, and what they see of the image then.
    normal = Podman(t)
    normal.pull(f"{registry.host}/app:gzip")
    ran = normal.run(*normal.in_container(f"{registry.host}/app:gzip", "/bin/sh", "-c", LIST), status=None)
    if ran.returncode != 0:
        raise lib.Skip(f"podman runs nothing here: {ran.stderr.decode()[-300:]}")
    for tag, layers in forms.items():
        registry.forget()
        sizes = {layer["digest"]: layer["size"] for layer in layers}
        name = f"{registry.host}/app:{tag}"
        said = lazy.pull(name)
        assert "Unexpected" not in said and "GC" not in said, said
        lib.equal(layer_bytes(registry, sizes), 0, f"{tag}: a pull fetches none of the layers")
        if tag == "estargz":
            lib.equal(lazy.output(*lazy.in_container(name, "/bin/busybox", "echo", "runs")), "runs\n")
        else:
            lib.equal(lazy.output(*lazy.in_container(name, "/bin/sh", "-c", LIST)), ran.stdout.decode(), tag)
        served = layer_bytes(registry, sizes)
        if tag == "gzip":  # streamed once into the cache of the mount
            lib.equal(served, sum(sizes.values()))
        else:
            assert 0 < served < sum(sizes.values()) - (2 << 20), (tag, served, sizes)
    # Podman's own operations: what is written, taken out, made anew, deleted.
    name = f"{registry.host}/app:gzip"
    lazy.run("run", "--name", "one", *lazy.in_container()[2:], name, "/bin/sh", "-c",
             "echo mine >/etc/motd; rm /bin/head; cat /etc/motd")
    lib.equal(lazy.output("diff", "one").split("\n")[:-1], ["C /bin", "D /bin/head", "C /etc", "C /etc/motd"])
    made = lazy.output("commit", "-q", "one", "made").strip()
    lib.equal(lazy.output(*lazy.in_container(made, "/bin/cat", "/etc/motd")), "mine\n")
    lazy.run("push", "-q", "--tls-verify=false", made, f"docker://{registry.host}/made:1")
    lib.equal(mount.path(registry.host, "made:1/rootfs/etc/motd").read_text(), "mine\n")
    lib.equal(mount.path(registry.host, "made:1/rootfs/keep/me").read_text(), "kept")
    said = lazy.run("rmi", "-af").stderr.decode()
    assert "Unexpected" not in said, said
    # Nothing holds the mount, and what is in its cache is not fetched again.
    mount.restart()
    registry.forget()
    lazy.pull(name)
    lib.equal(lazy.output(*lazy.in_container(name, "/bin/cat", "/etc/motd")), "2")
    lib.equal(layer_bytes(registry, sizes | {layer["digest"]: 0 for layer in forms["gzip"]}), 0)
