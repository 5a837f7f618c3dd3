# SPDX-License-Identifier: Apache-2.0
"""Tags as links: made, moved, promoted, rolled back and deleted with ln, mv, rm and rmdir."""
import errno
import os
import subprocess

import lib
import oci
import sample

ACCEPT = {"Accept": f"{oci.MANIFEST}, {oci.INDEX}"}


def tag_at(registry, repo, tag):
    """The digest that the registry itself has for a tag, or None."""
    status, headers, body = registry.request("HEAD", f"/v2/{repo}/manifests/{tag}", None, ACCEPT)
    if status == 404:
        return None
    lib.equal(status, 200, body)
    return headers["Docker-Content-Digest"]


def tags_at(registry, repo):
    import json
    return sorted(json.loads(registry.request("GET", f"/v2/{repo}/tags/list")[2])["tags"] or [])


def digest(mount, *parts):
    return mount.path(*parts, "digest").read_text().strip()


def served(t, **options):
    """A registry with sample images, mounted."""
    registry = t.registry()
    images = sample.push_all(registry)
    return registry, images, t.mount(registry.host, **options)


def ln(t, mount, *args, status=0):
    return t.run("ln", *args, status=status, cwd=mount.path("team/app/_tags"))


# --- ln -s ---


def test_every_way_to_name_an_image(t):
    registry, images, mount = served(t)
    want = images["1.5"].digest
    texts = ["1.5", "app:1.5", "../../app:1.5", "./../_tags/1.5", f"../../app@{want}", f"app@{want}",
             f"../_digests/{want.replace(':', '-')}", mount.path("team/app:1.5"),
             mount.path("team/app/_tags/1.5")]
    for number, text in enumerate(texts):
        ln(t, mount, "-s", text, f"made{number}")
        lib.equal(tag_at(registry, "team/app", f"made{number}"), want, str(text))
    lib.equal(os.readlink(mount.path("team/app/_tags/made1")), "../../app:made1")
    assert {f"made{number}" for number in range(len(texts))} <= set(os.listdir(mount.path("team/app/_tags")))


def test_root_of_registries(t):
    registry = t.registry()
    images = sample.push_all(registry)
    mount = t.mount(None, registry=registry.host)
    tags = mount.path(registry.host, "team/app/_tags")
    for number, text in enumerate([f"../../../../{registry.host}/team/app:1.4",
                                   mount.path(registry.host.replace(":", "+"), "team/app:1.4"),
                                   mount.path(registry.host, "team/app/_tags/1.4")]):
        os.symlink(text, tags / f"made{number}")
        lib.equal(tag_at(registry, "team/app", f"made{number}"), images["1.4"].digest, str(text))


def test_what_names_no_image(t):
    registry, _, mount = served(t)
    before = tags_at(registry, "team/app")
    for text, number in {"nope": errno.ENOENT, "../../app:nope": errno.ENOENT, "../../nope:1": errno.ENOENT,
                         "../../app": errno.EINVAL, "/etc/passwd": errno.EINVAL, "..": errno.EINVAL,
                         "../../../../../../x:1": errno.EINVAL, "-x": errno.EINVAL,
                         "1.5/rootfs": errno.EINVAL}.items():
        with lib.fails(number):
            os.symlink(text, mount.path("team/app/_tags/new"))
    for name in ("-x", "a:b", "x" * 129, "a b"):
        with lib.fails(errno.EINVAL):
            os.symlink("1.5", mount.path("team/app/_tags", name))
    with lib.fails(errno.EEXIST):
        os.symlink("1.4", mount.path("team/app/_tags/1.5"))
    with lib.fails(errno.EROFS):
        os.symlink("x", mount.path("team/app/x"))
    lib.equal(tags_at(registry, "team/app"), before)
    assert "/etc/passwd" in mount.read_log()


# --- ln -sf ---


def test_roll_forward_and_back(t):
    registry, images, mount = served(t)
    for version in ("1.5", "1.4", "1.5"):
        ln(t, mount, "-sfn", version, "stable")
        # Every path shows it at once, and so does the registry; nothing else is left.
        want = images[version].digest
        lib.equal(digest(mount, "team/app/_tags/stable"), want)
        lib.equal(digest(mount, "team/app:stable"), want)
        lib.equal(mount.path("team/app:stable/rootfs/app/version").read_text(), version)
        lib.equal(tag_at(registry, "team/app", "stable"), want)
        lib.equal(os.readlink(mount.path("team/app/_tags/stable")), "../../app:stable")
        lib.equal(tags_at(registry, "team/app"), ["1.4", "1.5", "latest", "stable"])
        lib.equal(sorted(os.listdir(mount.path("team/app/_tags"))), ["1.4", "1.5", "latest", "stable"])


# --- between repositories ---


def test_promotion_moves_no_bytes(t):
    registry, images, mount = served(t)
    os.mkdir(mount.path("prod"))
    registry.forget()
    os.symlink("../../team/app:1.5", mount.path("prod/_tags/1.5"))
    lib.equal(tag_at(registry, "prod", "1.5"), images["1.5"].digest)
    lib.equal(registry.count("GET", r"/blobs/sha256:"), 0)
    lib.equal([entry for entry in registry.requests("PUT") if "/manifests/" not in entry[1]], [])
    lib.equal(registry.count("PATCH"), 0)
    lib.equal(mount.path("prod:1.5/rootfs/app/version").read_text(), "1.5")


def test_other_registry_is_refused(t):
    first, second = t.registry(), t.registry()
    sample.push_all(first)
    mount = t.mount(None, registry=first.host)
    os.makedirs(mount.path(second.host, "app"))
    with lib.fails(errno.EXDEV):
        os.symlink(mount.path(first.host, "team/app:1.5"), mount.path(second.host, "app/_tags/1.5"))
    assert "image.tar" in mount.read_log()
    lib.equal(tag_at(second, "app", "1.5"), None)
