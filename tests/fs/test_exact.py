# SPDX-License-Identifier: Apache-2.0
"""rootfs is exact: what is seen through the mount is what the layers say.

Hand-made layers against the tree that the specification asks for, and against umoci and podman where
they can tell (layers.py says where not, and why); real images against both.
"""
import json

import images
import layers
import lib
import tree


prepare = images.debian


def umoci_tree(t, layout):
    t.run("umoci", "unpack", "--image", f"{layout}:latest", t.dir / "bundle")
    found = tree.read(t.dir / "bundle/rootfs")
    t.run("rm", "-rf", t.dir / "bundle")
    return found


def podman_tree(t, layout):
    """What podman's storage makes of it, by overlay; None where this machine cannot mount one."""
    if not lib.shutil.which("podman") or lib.os.geteuid() != 0:
        return None
    place = t.dir / "podman"
    podman = ["podman", "--root", place / "root", "--runroot", place / "run", "--tmpdir", place / "tmp",
              "--storage-driver", "overlay", "--events-backend", "none"]
    policy = t.dir / "policy.json"
    policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
    try:
        if t.run(*podman, "images", "-q", status=None).returncode != 0:
            return None
        # It makes a name out of the path, which has to be in lower case.
        (t.dir / "for-podman").symlink_to(layout)
        image = t.output(*podman, "pull", "-q", "--signature-policy", policy, "oci:for-podman:latest", cwd=t.dir).strip()
        found = tree.read(t.output(*podman, "image", "mount", image).strip())
        t.run(*podman, "image", "umount", image)
        return found
    finally:
        # The storage keeps its own directory mounted on itself.
        while points := lib.mounts_under(place):
            t.run("umount", points[0])
        t.run("rm", "-rf", place)


def read_rootfs(path):
    """The tree of a mounted rootfs/. Its root's own attributes are known for sure once its layers are
    at hand: a look at an image directory fetches none."""
    found = tree.read(path)
    found[b""] = tree.read_entry(path)[0]
    return found


def compare(got, other, differs):
    """With another program's tree. The root has no attributes to compare unless DIFFERS has them."""
    if other is None or isinstance(differs, str):
        return
    expected = tree.expect(other, differs)
    expected[b""] = differs.get(b"", {})
    tree.assert_equal(got, expected)


def check_case(t, name):
    case = layers.CASES[name]()
    layout = t.dir / "layout"
    case.image.write_layout(layout)
    registry = t.registry()
    case.image.push(registry, "hand/made", "1")
    mount = t.mount(registry.host)
    got = read_rootfs(mount.path("hand/made:1/rootfs"))
    tree.assert_equal(got, {b"": {}} | case.tree)
    if not isinstance(case.umoci, str):
        lib.need("umoci")
        lib.need_root()
        compare(got, umoci_tree(t, layout), case.umoci)
    if not isinstance(case.podman, str):
        compare(got, podman_tree(t, layout), case.podman)


def cases():
    for name in layers.CASES:
        yield f"hand_{name}", lambda t, name=name: check_case(t, name)


def check_debian(t, kind):
    debian = images.debian()
    registry = t.registry(debian.storage)
    mount = t.mount(registry.host)
    got = read_rootfs(mount.path(f"debian:{kind}/rootfs"))
    compare(got, debian.tree(), {})
    return debian, mount, got


@lib.slow
def test_debian_gzip(t):
    debian, mount, got = check_debian(t, "gzip")
    podman = podman_tree(t, debian.layout("gzip"))
    for entry in (podman or {}).values():
        if entry["type"] == "dir":
            del entry["mtime"]  # that of the pull, where an upper layer only passes through
    compare(got, podman, {})
    assert len(got) > 10000, len(got)
    # The same from the saved indexes, and in another order.
    mount.restart()
    again = read_rootfs(mount.path("debian:gzip/rootfs"))
    tree.assert_equal(again, got)


@lib.slow
def test_debian_zstd(t):
    check_debian(t, "zstd")


@lib.slow
def test_debian_plain(t):
    check_debian(t, "plain")
