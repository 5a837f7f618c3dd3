# SPDX-License-Identifier: Apache-2.0
"""Directories under _push: a file system for the usual tools, and what becomes of it by sync."""
import errno
import json
import mmap
import os
import signal
import stat

import lib
import oci
import sample
import tree
from test_push import empty, manifest


def staged(mount, tag, repo="team/app"):
    """A fresh directory _push/TAG."""
    path = mount.path(repo, "_push", tag)
    os.makedirs(path.parent.parent, exist_ok=True)
    path.mkdir()
    return path


def sync(t, path, status=0):
    return t.run("sync", path, status=status)


def image(mount, tag, repo="team/app"):
    return mount.path(f"{repo}:{tag}")


def reason(mount):
    """Why the last push failed."""
    return [line for line in mount.read_log().splitlines() if " error " in line][-1]


def config(mount, tag, repo="team/app"):
    return json.loads(image(mount, tag, repo).joinpath("config.json").read_text())


def source_tree(t):
    """A tree with something of each kind, on this machine's own file system."""
    root = t.dir / "source"
    (root / "app/deep").mkdir(parents=True)
    (root / "app/deep").chmod(0o750)
    (root / "app/run").write_bytes(b"#!/bin/sh\n" * 1000)
    (root / "app/run").chmod(0o4755)
    os.link(root / "app/run", root / "app/deep/again")
    (root / "app/link").symlink_to("run")
    os.mkfifo(root / "app/pipe", 0o600)
    (root / ("n" * 200)).write_bytes(b"long name")
    (root / "n\xe9").write_bytes(b"")
    with open(root / "sparse", "wb") as file:
        file.seek(3 << 20)
        file.write(b"end")
    os.setxattr(root / "app/run", "user.note", b"\0x\xff")
    if os.geteuid() == 0:
        os.chown(root / "app/deep", 123456, 3000000000)
        os.chown(root / "app/link", 1, 2, follow_symlinks=False)
        os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    for path in [*root.rglob("*"), root]:
        os.utime(path, ns=(10**18, 10**18 + 123456789 + len(path.name)), follow_symlinks=False)
    return root


def below(root):
    """What is below ROOT; rootfs/ itself says nothing of the image's root."""
    found = tree.read(root)
    del found[b""]
    return found


# --- a file system ---


def copied(t, copy):
    """COPY(source, target) brings the source tree into a staging tree: it is the same there."""
    registry, mount = empty(t)
    source, target = source_tree(t), staged(mount, "1.6") / "rootfs"
    copy(source, target)
    tree.assert_equal(below(target), below(source))
    return registry, mount, source, target


def test_cp_keeps_everything(t):
    lib.need_root()
    registry, mount, source, target = copied(t, lambda source, target: t.run("cp", "-a", source, target))
    sync(t, target.parent)
    tree.assert_equal(below(image(mount, "1.6") / "rootfs"), below(source))
    t.skopeo("inspect", "--tls-verify=false", f"docker://{registry.host}/team/app:1.6")


def test_tar_extracts_into_it(t):
    lib.need_root()

    def copy(source, target):
        archive = t.dir / "source.tar"
        t.run("tar", "-C", source, "--xattrs", "--format=posix", "-cf", archive, ".")
        target.mkdir()
        t.run("tar", "-C", target, "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", archive)

    copied(t, copy)


def test_rsync_into_it(t):
    lib.need_root()
    lib.need("rsync")
    copied(t, lambda source, target: t.run("rsync", "-aHAXS", "--numeric-ids", f"{source}/", f"{target}/"))


def test_the_usual_calls(t):
    _, mount = empty(t)
    root = staged(mount, "1.6") / "rootfs"
    t.run("mkdir", "-p", root / "usr/bin")
    t.run("install", "-m", "0755", "/bin/sh", root / "usr/bin/sh")
    lib.equal((root / "usr/bin/sh").stat().st_mode & 0o7777, 0o755)
    lib.equal((root / "usr/bin/sh").read_bytes(), open("/bin/sh", "rb").read())
    (root / "a").write_text("one")
    with open(root / "a", "a", encoding="utf-8") as file:
        file.write(" two")
    lib.equal((root / "a").read_text(), "one two")
    os.truncate(root / "a", 3)
    os.truncate(root / "a", 5)
    lib.equal((root / "a").read_bytes(), b"one\0\0")
    t.run("mv", root / "a", root / "b")
    (root / "c").write_text("c")
    os.replace(root / "b", root / "c")
    lib.equal((root / "c").read_bytes(), b"one\0\0")
    os.rename(root / "usr", root / "opt")
    lib.equal(sorted(os.listdir(root / "opt/bin")), ["sh"])
    os.symlink("c", root / "l")
    os.link(root / "c", root / "d")
    lib.equal([(root / name).stat().st_nlink for name in ("c", "d", "opt")], [2, 2, 3])
    with lib.fails(errno.ENOTEMPTY):
        (root / "opt").rmdir()
    with lib.fails(errno.EEXIST):
        (root / "opt").mkdir()
    with lib.fails(errno.EISDIR):
        os.unlink(root / "opt")
    with lib.fails(errno.ENOTDIR):
        os.listdir(root / "c/x")
    with lib.fails(errno.EXDEV):
        os.link("/bin/sh", root / "hard")
    with lib.fails(errno.EXDEV):
        os.rename(root / "c", mount.path("team/app/_push/c"))
    file = os.open(root / "d", os.O_RDWR)
    os.unlink(root / "d")
    os.pwrite(file, b"X", 0)
    lib.equal(os.pread(file, 9, 0), b"Xne\0\0")
    os.close(file)
    t.run("rm", "-r", root.parent)
    lib.equal(os.listdir(mount.path("team/app/_push")), [])


def test_files_can_be_mapped(t):
    """As linkers and package managers write them; all ways to the bytes agree."""
    _, mount = empty(t)
    path = staged(mount, "1.6") / "f"
    one = os.open(path, os.O_RDWR | os.O_CREAT)
    two = os.open(path, os.O_RDWR)
    os.ftruncate(one, 5000)
    with mmap.mmap(one, 5000) as mapped:
        mapped[0:3] = b"abc"
        mapped.flush()
        lib.equal(os.pread(two, 4, 0), b"abc\0")
        os.pwrite(two, b"X", 1)
        lib.equal(mapped[0:3], b"aXc")
    os.close(one)
    os.close(two)
    lib.equal((path.stat().st_size, path.read_bytes()[:4]), (5000, b"aXc\0"))


def test_the_spool_disk_is_full(t):
    lib.need_root()
    small = t.dir / "small"
    small.mkdir()
    t.run("mount", "-t", "tmpfs", "-o", "size=2M", "none", small)
    t.stack.callback(lambda: t.run("umount", small))
    registry = t.registry()
    mount = t.mount(registry.host, cache_dir=small / "cache")
    root = staged(mount, "1.6") / "rootfs"
    root.mkdir()
    with lib.fails(errno.ENOSPC):
        (root / "large").write_bytes(bytes(4 << 20))
    (root / "large").unlink()
    # What it took is given back.
    (root / "small").write_bytes(b"x" * 500_000)
    sync(t, root.parent)
    lib.equal((image(mount, "1.6") / "rootfs/small").stat().st_size, 500_000)


def test_owners_are_metadata(t):
    """What a user may not do on a disk is only written down here."""
    _, mount = empty(t)
    root = staged(mount, "1.6") / "rootfs"
    root.mkdir()
    (root / "f").write_text("x")
    t.run("chown", "12:34", root / "f")
    t.run("chmod", "6711", root / "f")
    sync(t, root.parent)
    st = (image(mount, "1.6") / "rootfs/f").stat()
    lib.equal((st.st_uid, st.st_gid, st.st_mode & 0o7777), (12, 34, 0o6711))
    # chown takes set-user-ID away, as anywhere, and nothing else.
    t.run("chmod", "7755", root / "f")
    t.run("chown", "1:2", root / "f")
    lib.equal((root / "f").stat().st_mode & 0o7777, 0o1755)


def test_thousands_of_files(t):
    """They cost no descriptors, and a listing gives each once."""
    _, mount = empty(t)
    root = staged(mount, "1.6") / "rootfs"
    root.mkdir()
    names = {f"{number:05}" for number in range(1000)}
    descriptors = f"/proc/{mount.process.pid}/fd"
    before = len(os.listdir(descriptors))
    for name in names:
        (root / name).write_text(name)
    assert len(os.listdir(descriptors)) < before + 50
    listed = os.listdir(root)
    lib.equal((len(listed), set(listed)), (1000, names))
    lib.equal((root / "00123").read_text(), "00123")
    sync(t, root.parent)
    lib.equal(set(os.listdir(image(mount, "1.6") / "rootfs")), names)


# --- images ---


def test_an_image_without_a_base(t):
    registry, mount = empty(t)
    path = staged(mount, "1.6")
    (path / "rootfs/app").mkdir(parents=True)
    (path / "rootfs/app/run").write_text("hello")
    (path / "config.json").write_text('{"Cmd": ["/app/run"], "Env": ["A=1"]}')
    sync(t, path)
    got = config(mount, "1.6")
    lib.equal(got["config"], {"Cmd": ["/app/run"], "Env": ["A=1"]})
    lib.equal([step["created_by"] for step in got["history"]], ["regfs: _push/1.6"])
    assert got["os"] == "linux" and got["architecture"], got
    lib.equal((image(mount, "1.6") / "rootfs/app/run").read_text(), "hello")
    t.skopeo("copy", "--src-tls-verify=false", f"docker://{registry.host}/team/app:1.6", f"oci:{t.dir}/back:1.6")
    lib.need("umoci")
    t.run("umoci", "stat", "--image", f"{t.dir}/back:1.6")


def layer_digests(registry, tag):
    return [layer["digest"] for layer in manifest(registry, "team/app", tag)[1]["layers"]]


def test_the_layer_is_reproducible(t):
    """Whatever the order in which the same tree came to be."""
    registry, mount = empty(t)
    digests = []
    for tag, order in (("1", 1), ("2", -1)):
        root = staged(mount, tag) / "rootfs"
        root.mkdir()
        for name in ["b", "a", "B", "\u00e9"][::order]:
            (root / name).mkdir()
            (root / name / "f").write_text(name)
            os.setxattr(root / name / "f", *[("user.x", b"1"), ("user.a", b"2")][::order][0])
            os.setxattr(root / name / "f", *[("user.x", b"1"), ("user.a", b"2")][::order][1])
        t.run("find", root, "-exec", "touch", "-hd", "@1234567890.5", "{}", "+")
        sync(t, root.parent)
        digests.append(layer_digests(registry, tag))
    lib.equal(digests[0], digests[1])


def test_source_date_epoch_clamps(t):
    registry = t.registry()
    os.environ["SOURCE_DATE_EPOCH"] = "1000000000"
    mount = t.mount(registry.host)
    root = staged(mount, "1.6") / "rootfs"
    root.mkdir()
    for name, time in (("old", 5), ("new", 1500000000)):
        (root / name).write_text(name)
        os.utime(root / name, (time, time))
    sync(t, root.parent)
    got = image(mount, "1.6") / "rootfs"
    lib.equal([(got / name).stat().st_mtime for name in ("old", "new")], [5, 1000000000])
    lib.equal(config(mount, "1.6")["created"], "2001-09-09T01:46:40Z")


def test_on_a_base_with_a_whiteout(t):
    registry = t.registry()
    base = sample.image("1.5")
    base.push(registry, "library/base", "1")
    mount = t.mount(registry.host)
    path = staged(mount, "1.6")
    (path / "rootfs/app").mkdir(parents=True)
    (path / "rootfs/app/new").write_text("new")
    (path / "rootfs/etc").mkdir()
    (path / "rootfs/etc/.wh.os-release").touch()
    (path / "config.json").write_text('{"Entrypoint": ["/app/new"], "Env": ["B=2", "PATH=/app"]}')
    (path / "base").symlink_to("../../../../library/base:1")
    registry.forget()
    sync(t, path)
    rootfs = image(mount, "1.6") / "rootfs"
    lib.equal(sorted(os.listdir(rootfs / "app")), ["new", "version"])
    lib.equal(os.listdir(rootfs / "etc"), [])
    lib.equal((rootfs / "noise").read_bytes(), sample.NOISE)
    # Below are the base's own blobs, which did not travel.
    lib.equal(layer_digests(registry, "1.6")[:2], [layer["digest"] for layer in json.loads(base.manifest)["layers"]])
    lib.equal(registry.count("GET", "/library/base/blobs/sha256:" + layer_digests(registry, "1.6")[0][7:]), 0)
    got = config(mount, "1.6")
    lib.equal(got["config"], {"Env": ["PATH=/app", "B=2"], "Entrypoint": ["/app/new"]})
    lib.equal([step["created_by"] for step in got["history"]][2:], ["COPY app 1.5", "regfs: _push/1.6"])
    t.skopeo("copy", "--src-tls-verify=false", f"docker://{registry.host}/team/app:1.6", f"oci:{t.dir}/back:1.6")


def test_base_by_a_tag_link_and_from_another_registry(t):
    other, registry = t.registry(), t.registry()
    sample.image("1.5").push(other, "team/app", "1.5")
    mount = t.mount(None, registry=other.host)
    for tag, target in (("1", f"{mount.point}/{other.host}/team/app/_tags/1.5"),
                        ("2", f"../../../../../{other.host.replace(':', '+')}/team/app:1.5")):
        path = staged(mount, tag, f"{registry.host}/team/app")
        (path / "base").symlink_to(target)
        (path / "config.json").write_text('{"User": "me"}')
        sync(t, path)
        lib.equal((image(mount, tag, f"{registry.host}/team/app") / "rootfs/noise").read_bytes(), sample.NOISE)


def test_what_makes_no_image_is_refused(t):
    registry, mount = empty(t)
    path = staged(mount, "1.6")

    def refused(words):
        ended = sync(t, path, status=1)
        assert b"Invalid argument" in ended.stderr, ended.stderr
        assert words in reason(mount), reason(mount)

    refused("is empty")
    (path / "config.json").write_text("{}")
    refused("neither rootfs/ nor base")
    (path / "rootfs").mkdir()
    (path / "config.json").write_text("{not json")
    refused("config.json")
    (path / "config.json").write_text('{"Cmd": "/app"}')
    refused('"Cmd" is not a list of strings')
    (path / "config.json").unlink()
    (path / "app").mkdir()
    refused("app: it has no meaning")
    (path / "app").rmdir()
    (path / "base").symlink_to("../../../nowhere:1")
    refused("no such image")
    (path / "base").unlink()
    (path / "base").symlink_to("../../../../team")
    refused("no image's directory")
    (path / "base").unlink()
    (path / "files").mkdir()
    refused("does not go with")
    lib.equal(manifest(registry, "team/app", "1.6"), None)
    # Mended, it is pushed.
    (path / "files").rmdir()
    sync(t, path)
    assert manifest(registry, "team/app", "1.6")


def test_a_verdict_is_repeated_until_something_changes(t):
    registry, mount = empty(t)
    path = staged(mount, "1.6")
    (path / "rootfs").mkdir()
    (path / "rootfs/f").write_text("1")
    registry.forget()
    sync(t, path)
    sync(t, path)
    lib.equal(registry.count("PUT", "/manifests/"), 1)
    (path / "rootfs/f").chmod(0o600)
    sync(t, path)
    lib.equal(registry.count("PUT", "/manifests/"), 2)


def test_names_that_are_no_tags(t):
    _, mount = empty(t)
    with lib.fails(errno.EINVAL):
        mount.path("team/app/_push/a b").mkdir()
    with lib.fails(errno.EINVAL):
        mount.path("_push/1.6").mkdir()


def test_a_temporary_is_pushed_by_its_rename(t):
    registry, mount = empty(t)
    path = staged(mount, ".build")
    (path / "rootfs").mkdir()
    (path / "rootfs/f").write_text("1")
    sync(t, path)
    lib.equal(registry.count("PUT"), 0)
    wrong = path / "wrong"
    wrong.mkdir()
    t.run("mv", path, path.parent / "1.6", status=1)
    lib.equal(os.listdir(path.parent), [".build"])
    wrong.rmdir()
    t.run("mv", path, path.parent / "1.6")
    lib.equal(os.listdir(path.parent), ["1.6"])
    lib.equal((image(mount, "1.6") / "rootfs/f").read_text(), "1")


def test_an_unreachable_registry(t):
    registry, mount = empty(t)
    path = staged(mount, "1.6")
    (path / "rootfs").mkdir()
    registry.stop()
    ended = sync(t, path, status=1)
    assert b"Connection refused" in ended.stderr, ended.stderr
    registry.start()
    sync(t, path)


def test_a_base_that_comes_later(t):
    """What was wrong lay outside: the same tree is tried anew."""
    _, mount = empty(t)
    path = staged(mount, "1.6")
    (path / "base").symlink_to("../../../../library/base:1")
    sync(t, path, status=1)
    sample.image("1.5").write_layout(t.dir / "layout")
    os.makedirs(mount.path("library/base"))
    t.run("cp", "-r", t.dir / "layout", mount.path("library/base/_push/1"))
    sync(t, path)
    lib.equal((image(mount, "1.6") / "rootfs/noise").read_bytes(), sample.NOISE)


def test_what_the_registry_answers_is_the_verdict(t):
    registry = t.bad_registry()
    mount = t.mount(registry.host, timeout=2)
    path = staged(mount, "1.6")
    (path / "rootfs").mkdir()
    (path / "rootfs/f").write_text("1")
    # Harbor's quota (goharbor/harbor#17390), RFC 4918 section 11.5, and a gateway's limit.
    quota = json.dumps({"errors": [{"code": "DENIED", "message": "adding 4.1 MiB exceeds the quota"}]})
    for method, where, answer, said, words in (
            ("PUT", "/manifests/", {"status": 412, "body": quota}, b"Disk quota exceeded", "exceeds the quota"),
            ("POST", "/uploads/", {"status": 507}, b"Disk quota exceeded", "507"),
            ("PUT", "/uploads/", {"status": 413}, b"Disk quota exceeded", "413"),
            ("PUT", "/manifests/", {"stall": 1000}, b"Input/output error", "has not taken it"),
            ("PUT", "/manifests/", {"status": 401}, b"Permission denied", "401")):
        (path / "rootfs/f").write_text(words)  # blobs that are new
        registry.rule(method, where, **answer)
        ended = sync(t, path, status=1)
        assert said in ended.stderr, (answer, ended.stderr)
        assert words in mount.read_log(), words
        assert "1.6" not in registry.repos.get("team/app", {"tags": {}})["tags"]
        registry.rules.clear()
    sync(t, path)
    lib.equal((image(mount, "1.6") / "rootfs/f").read_text(), "401")


def test_the_registry_is_killed_meanwhile(t):
    """While it has a request: it is there afterwards, or the tag is as it was, and sync says which."""
    registry, mount = empty(t, timeout=20)
    path = staged(mount, "1.6")
    (path / "rootfs").mkdir()
    (path / "rootfs/f").write_text("1")
    registry.process.signal(signal.SIGSTOP)
    ended = t.start("sync", path)
    lib.wait_for(lambda: mount.stats()["fuse_waiting_now"], "the push")
    registry.process.signal(signal.SIGKILL)
    registry.process.wait()
    registry.start()
    status = ended.wait()
    lib.equal(manifest(registry, "team/app", "1.6") is not None, status == 0)
    sync(t, path)
    assert manifest(registry, "team/app", "1.6")


def test_regfs_is_killed(t):
    """Nothing of what was built is left in the spool, and nothing is at the registry."""
    registry, mount = empty(t)
    before = sorted((t.dir / "cache").rglob("*"))
    path = staged(mount, "1.6")
    (path / "rootfs").mkdir()
    (path / "rootfs/f").write_bytes(bytes(range(256)) * 20000)
    os.symlink("../../team/app:1.5", mount.path("team/app/_tags/.x"))
    mount.kill()
    mount.start()
    lib.equal(sorted((t.dir / "cache").rglob("*")), before)
    lib.equal(registry.count("PUT|POST|PATCH"), 0)


# --- artifacts ---


def test_an_artifact(t):
    registry, mount = empty(t)
    files = staged(mount, "1.0") / "files"
    (files / "deep").mkdir(parents=True)
    (files / "sbom.json").write_text("{}")
    (files / "deep/notes").write_text("notes")
    os.setxattr(files / "sbom.json", "user.regfs.media_type", b"application/spdx+json")
    os.setxattr(files, "user.regfs.artifact_type", b"application/vnd.example.release")
    sync(t, files.parent)
    got = manifest(registry, "team/app", "1.0")[1]
    lib.equal(got["artifactType"], "application/vnd.example.release")
    lib.equal((got["config"]["mediaType"], got["config"]["digest"]),
              ("application/vnd.oci.empty.v1+json", oci.sha256(b"{}")))
    lib.equal([(layer["mediaType"], layer["annotations"]["org.opencontainers.image.title"], layer["digest"])
               for layer in got["layers"]],
              [("application/octet-stream", "deep/notes", oci.sha256(b"notes")),
               ("application/spdx+json", "sbom.json", oci.sha256(b"{}"))])


def test_no_image_is_built_on_an_artifact(t):
    _, mount = empty(t)
    path = staged(mount, "1.0")
    (path / "files").mkdir()
    (path / "files/f").touch()
    sync(t, path)
    path = staged(mount, "2.0")
    (path / "base").symlink_to("../../../app:1.0")
    sync(t, path, status=1)
    assert "it is an artifact, not an image" in reason(mount)


def test_an_artifact_has_files_with_types(t):
    _, mount = empty(t)
    files = staged(mount, "1.0") / "files"
    files.mkdir()
    sync(t, files.parent, status=1)
    assert "files/ is empty" in reason(mount)
    (files / "link").symlink_to("x")
    sync(t, files.parent, status=1)
    assert "regular files only" in reason(mount)
    (files / "link").unlink()
    (files / "f").touch()
    os.setxattr(files / "f", "user.regfs.media_type", b"no type")
    sync(t, files.parent, status=1)
    assert "is not a media type" in reason(mount)
