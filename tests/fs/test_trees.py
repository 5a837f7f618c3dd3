# SPDX-License-Identifier: Apache-2.0
"""Options that change what the trees of images show: whiteouts=overlay, transform_symlinks, prefetch=image."""
import os
import stat

import layers
import lib
import oci
import tree
from tarfiles import Tar


def push(registry, repo, *tars):
    return oci.Image([oci.Layer(tar.end()) for tar in tars]).push(registry, repo, "1")


def layered(registry):
    """Deletions of every kind, in three layers."""
    bottom = Tar().dir("./").dir("etc").file("etc/a", "a1").file("etc/b", "b1").dir("gone").file("gone/x", "x")
    bottom.dir("opaque").file("opaque/old", "old").dir("again").file("again/old", "old").file("file", "1")
    bottom.dir("swap").file("swap/x", "x").file("keep", "k", mode=0o4755).dir("deep").dir("deep/er", mode=0o700)
    bottom.file("deep/er/one", "1").link("link", "etc/a")
    middle = Tar().whiteout("etc/a").file("etc/b", "b2").whiteout("gone").dir("opaque").opaque("opaque")
    middle.file("opaque/new", "new").whiteout("again").dir("again", mode=0o711).file("again/new", "n")
    middle.whiteout("swap").file("swap", "now a file").hard("hard", "keep").file("deep/er/two", "2")
    middle.dir("fresh").whiteout("fresh/never-was").whiteout("never-was")
    top = Tar().whiteout("etc/b").dir("file").file("file/inside", "2").whiteout("opaque/new").file("etc/c", "c3")
    top.file("gone", "back as a file").device("null", "char", 1, 3).fifo("pipe").whiteout("link")
    return push(registry, "app", bottom, middle, top)


def comparable(tree_read):
    """What overlayfs cannot pass on: names of one file in two layers are two files there."""
    for entry in tree_read.values():
        for key in ("nlink", "same"):
            entry.pop(key, None)
    return tree_read


def overlay(t, lower, options=""):
    point = t.dir / t.name("overlay")
    point.mkdir()
    t.run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={lower}{options}", point)
    t.stack.callback(lib.unmount, point)
    return point


def test_overlay_of_layers_is_rootfs(t):
    lib.need_root()
    registry = t.registry()
    layered(registry)
    plus = registry.host.replace(":", "+")
    mount = t.mount(whiteouts="overlay", dev=True, suid=True)
    image = mount.path(plus, "app/_tags/1")
    layers = image / "layers"
    for count in (2, 3):
        lower = ":".join(str(layers / f"{number:02}") for number in range(count, 0, -1))
        point = overlay(t, lower)
        if count == 3:
            # The attributes of a root are not looked for before something below it is.
            os.listdir(point)
            tree.assert_equal(comparable(tree.read(point)), comparable(tree.read(image / "rootfs")))
        else:
            lib.equal(sorted(os.listdir(point / "opaque")), ["new"])
            lib.equal(sorted(os.listdir(point / "etc")), ["b"])
            lib.equal((point / "hard").read_text(), "k")
    writable = t.dir / "writable"
    for name in ("", "up", "work"):
        (writable / name).mkdir()
    point = overlay(t, lower, f",upperdir={writable}/up,workdir={writable}/work")
    (point / "etc/c").write_text("written")
    lib.equal((point / "etc/c").read_text(), "written")
    lib.equal((image / "rootfs/etc/c").read_text(), "c3")


def read_below(root):
    """The tree without its root, whose attributes the kernel takes from the top layer alone."""
    found = comparable(tree.read(root))
    found.pop(b"")
    return found


def test_overlay_of_every_case(t):
    """All hand-made images of layers.py: what overlayfs makes of layers/ is what rootfs/ is."""
    lib.need_root()
    shown, cases = [], {name: make() for name, make in layers.CASES.items()}
    for name, case in cases.items():
        case.image.write_layout(t.dir / "store" / name, "1")
    mount = t.mount("local", whiteouts="overlay", dev=True, suid=True)
    empty = t.dir / "empty"
    empty.mkdir()
    for name, case in cases.items():
        image = mount.path(name, "_tags/1")
        lower = ":".join([str(empty), *(f"{image}/layers/{number:02}" for number in range(len(case.layers), 0, -1))])
        # Longer than mount(2) takes; and overlayfs knows no opaque root of a layer.
        if len(lower) > 4000 or name == "opaque_root":
            continue
        point = overlay(t, lower)
        lines = tree.differences(read_below(point), read_below(image / "rootfs"))
        shown += [f"{name}: {line}" for line in lines]
    assert not shown, "\n".join(shown)


def test_whiteouts_are_devices(t):
    registry = t.registry()
    layered(registry)
    mount = t.mount(registry.host, whiteouts="overlay")
    layer = mount.path("app:1/layers/02")
    lib.equal(sorted(os.listdir(layer)),
              ["again", "deep", "etc", "fresh", "gone", "hard", "never-was", "opaque", "swap"])
    gone = os.lstat(layer / "gone")
    assert stat.S_ISCHR(gone.st_mode) and gone.st_rdev == 0, gone
    lib.equal(os.getxattr(layer / "opaque", "user.overlay.opaque"), b"y")
    lib.equal(os.listdir(layer / "fresh"), [])
    lib.equal(os.lstat(layer / "deep/er").st_mode & 0o777, 0o700)
    # Nobody asked for it: rootfs/ is what it always is.
    lib.equal(sorted(os.listdir(mount.path("app:1/rootfs/etc"))), ["c"])


def test_symlinks_that_stay(t):
    registry = t.registry()
    links = Tar().dir("etc").file("etc/real", "inside").dir("usr").dir("usr/lib")
    links.link("top", "/etc/real").link("usr/lib/deep", "/etc/real").link("usr/out", "../../../etc/real")
    links.link("usr/near", "../etc/real").link("root", "/").hard("usr/lib/hard", "usr/lib/deep")
    push(registry, "app", links)
    plain = t.mount(registry.host).path("app:1/rootfs")
    lib.equal(os.readlink(plain / "top"), "/etc/real")
    mount = t.mount(registry.host, transform_symlinks=True)
    for name in ("rootfs", "layers/01"):
        here = mount.path("app:1", name)
        for link, target in {"top": "etc/real", "usr/lib/deep": "../../etc/real", "usr/out": "../etc/real",
                             "usr/near": "../etc/real", "usr/lib/hard": "../../etc/real"}.items():
            lib.equal(os.readlink(here / link), target)
            lib.equal(os.lstat(here / link).st_size, len(target), link)
            lib.equal((here / link).read_text(), "inside", link)
        lib.equal(os.readlink(here / "root"), ".")


def test_tar_of_what_nobody_has_looked_into(t):
    """rootfs/ gets its own attributes while tar is in it, which must not look like a change to it."""
    registry = t.registry()
    push(registry, "app", Tar().dir("./", mode=0o711, mtime=1_500_000_000).file("a", "bytes"))
    mount = t.mount(registry.host)
    t.run("tar", "-cf", t.dir / "out.tar", "-C", mount.path("app:1"), "rootfs")
    lib.equal(stat.S_IMODE(os.stat(mount.path("app:1/rootfs")).st_mode), 0o711)


def test_prefetch(t):
    registry = t.registry()
    image = layered(registry)
    cache = t.dir / "cache2"
    mount = t.mount(registry.host, prefetch="image", prefetch_rate="64M", cache_dir=cache)
    t.run("ls", "-lR", mount.path("app:1/layers/01.tar.gz").parent.parent / "digest")
    t.run("ls", "-l", mount.path("app:1"))

    def fetched():
        return {layer.descriptor()["digest"] for layer in image.layers
                if registry.count("GET", f"/blobs/{layer.descriptor()['digest']}")}

    lib.equal(fetched(), set(), "nothing was entered yet")
    lib.equal(mount.path("app:1/rootfs/gone").read_text(), "back as a file")
    lib.wait_for(lambda: len(fetched()) == 3, "the other layers")
    mount.stop()
    # And without it a file costs what it needs.
    registry.forget()
    mount = t.mount(registry.host, prefetch="none", cache_dir=t.dir / "cache3")
    lib.equal(mount.path("app:1/rootfs/gone").read_text(), "back as a file")
    mount.stop()
    lib.equal(len(fetched()), 1)
