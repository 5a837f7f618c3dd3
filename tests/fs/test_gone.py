# SPDX-License-Identifier: Apache-2.0
"""A registry that is gone in each of the ways one can be, and comes back: what is cached is served, the rest fails
in time, with its errno and one line in the log; and all works again without a remount."""
import errno
import os
import socket
import time

import lib
import sample

VERSION = "team/app:1.5/rootfs/app/version"
OTHER = "team/app:1.4/rootfs/app/version"
# Of a lookup: name_timeout, and what a machine under load adds. Two names are looked up here.
SLOW_S = 30


def complaints(mount):
    """What the log says of failures, but for what is shown instead."""
    return [line for line in mount.read_log().splitlines()
            if " warn" in line and "last known image" not in line]


def check_gone(t, number, words, **actions):
    """The registry answers all like this: see above."""
    registry = t.bad_registry()
    sample.push_all(registry)
    mount = t.mount(registry.host, tag_ttl=0, timeout=2, name_timeout=2)
    lib.equal(mount.path(VERSION).read_text(), "1.5")
    tags = sorted(os.listdir(mount.path("team/app/_tags")))
    registry.rule("GET|HEAD", "/v2/", **actions)
    for _ in range(3):
        lib.equal(mount.path(VERSION).read_text(), "1.5")
    lib.equal(sorted(os.listdir(mount.path("team/app/_tags"))), tags)
    start = time.monotonic()
    with lib.fails(number):
        os.stat(mount.path("team/app:1.4"))
    assert time.monotonic() - start < SLOW_S
    found = complaints(mount)
    assert any(words in line for line in found), mount.read_log()
    registry.rules.clear()
    lib.wait_for(lambda: exists(mount.path(OTHER)), "the registry to be used again")
    return found


def exists(path):
    try:
        return os.stat(path)
    except OSError:
        return None


def test_silent(t):
    found = check_gone(t, errno.ETIMEDOUT, "in time", stall=None)
    lib.equal(len(found), 1, found)


def test_silent_about_a_blob(t):
    """Who looks one up beside others waits with them and not behind them: the kernel lets one through at a time."""
    registry = t.bad_registry()
    digest = registry.add_blob("team/app", b"a blob").replace(":", "/")
    mount = t.mount(registry.host, name_timeout=3)  # all have come by then
    blob = mount.path("team/app/_blobs", digest)
    os.listdir(blob.parent)
    registry.rule("GET|HEAD", "/blobs/", stall=None)
    readers = [t.start("stat", blob) for _ in range(5)]
    for reader in readers:
        lib.equal(reader.wait(), 1)
    lib.equal(registry.count("GET|HEAD", "/blobs/"), 1)
    registry.rules.clear()
    lib.wait_for(lambda: exists(blob), "the registry to be used again")


def test_failing_about_one_blob(t):
    """The others are not kept away from, however long that one took."""
    registry = t.bad_registry()
    bad, good = (registry.add_blob("team/app", text) for text in (b"bad", b"good"))
    mount = t.mount(registry.host, name_timeout=2)
    registry.rule("GET|HEAD", f"/blobs/{bad}", status=503)
    with lib.fails(errno.EIO):
        os.stat(mount.path("team/app/_blobs", bad.replace(":", "/")))
    lib.equal(mount.path("team/app/_blobs", good.replace(":", "/")).read_bytes(), b"good")


def test_silent_in_a_body(t):
    check_gone(t, errno.ETIMEDOUT, "in time", stall_after=1)


def test_reset(t):
    check_gone(t, errno.EIO, "reset", reset=True)


def test_closed_without_an_answer(t):
    check_gone(t, errno.EIO, "Empty reply", close=True)


def test_failing(t):
    check_gone(t, errno.EIO, "503", status=503)


def test_refused(t):
    registry = t.registry()
    sample.push_all(registry)
    mount = t.mount(registry.host, tag_ttl=0, timeout=5)
    lib.equal(mount.path(VERSION).read_text(), "1.5")
    registry.stop()
    lib.equal(mount.path(VERSION).read_text(), "1.5")
    with lib.fails(errno.ECONNREFUSED):
        os.stat(mount.path("team/app:1.4"))
    lib.equal(len(complaints(mount)), 1, mount.read_log())
    registry.start()
    lib.wait_for(lambda: exists(mount.path(OTHER)), "the registry to be used again")
    assert "answers again" in mount.read_log(), mount.read_log()


def pushed(t, mount, repo, tag):
    """Makes the repository, pushes an image into it, and reads a file of it."""
    sample.image(tag).write_layout(t.dir / f"layout{tag}", tag)
    archive = t.dir / f"{tag}.tar"
    t.skopeo("copy", "-q", f"oci:{t.dir}/layout{tag}:{tag}", f"oci-archive:{archive}:x:{tag}")
    os.makedirs(mount.path(repo), exist_ok=True)
    t.run("cp", archive, mount.path(repo, "_push", f"{tag}.tar"))
    lib.equal(mount.path(f"{repo}:{tag}/rootfs/app/version").read_text(), tag)


def test_what_was_pushed_is_known_to_later_mounts(t):
    """Also where the catalogue and the tags were last read before; what was only made is not."""
    registry = t.registry()
    image = sample.image("1.4").push(registry, "team/app", "1.4")
    mount = t.mount(registry.host)
    lib.equal(os.listdir(mount.path("team")), ["app"])
    lib.equal(os.listdir(mount.path("team/app/_tags")), ["1.4"])
    lib.equal(mount.path("team/app:1.4/rootfs/app/version").read_text(), "1.4")
    pushed(t, mount, "team/app", "1.6")
    pushed(t, mount, "team/new/web", "2.0")
    os.symlink("1.4", mount.path("team/app/_tags/stable"))
    os.mkdir(mount.path("team/empty"))
    registry.stop()
    for _ in range(2):
        lib.equal(sorted(os.listdir(mount.path("team/app/_tags"))), ["1.4", "1.6", "stable"])
        lib.equal(os.listdir(mount.path("team/new/web/_tags")), ["2.0"])
        # Nobody has looked at it since it was made.
        lib.equal(mount.path("team/app/_tags/stable/rootfs/app/version").read_text(), "1.4")
        mount.kill()
        mount.options["offline"] = True
        mount.start()
        for path, want in (("team/new/web:2.0", "2.0"), ("team/app:1.6", "1.6"), ("team/app/_tags/1.6", "1.6")):
            lib.equal(mount.path(path, "rootfs/app/version").read_text(), want)
        lib.equal(sorted(os.listdir(mount.path("team"))), ["app", "new"])
        lib.equal(sorted(os.listdir(mount.path("team/app/_tags"))), ["1.4", "1.6", "stable"])
    # What the registry says itself counts for more.
    del mount.options["offline"]
    registry.start()
    registry.request("DELETE", f"/v2/team/app/manifests/{image.digest}")
    mount.restart()
    lib.equal(sorted(os.listdir(mount.path("team"))), ["app", "new"])
    tags = os.listdir(mount.path("team/app/_tags"))
    lib.equal(tags, ["1.6"])
    registry.stop()
    mount.restart()
    lib.equal(os.listdir(mount.path("team/app/_tags")), tags)


def test_what_was_deleted_is_not_known_to_later_mounts(t):
    registry = t.registry()
    mount = t.mount(registry.host, allow_delete=True)
    for tag in ("1.5", "1.6"):
        pushed(t, mount, "team/app", tag)
    os.rmdir(mount.path(f"team/app@{mount.path('team/app:1.6/digest').read_text().strip()}"))
    registry.stop()
    mount.kill()
    mount.start()
    lib.equal(os.listdir(mount.path("team/app/_tags")), ["1.5"])


def test_what_answered_is_known_to_later_mounts(t):
    """Also where the registry has no catalogue; but not once it knows the repository no more."""
    registry = t.bad_registry()
    sample.push_all(registry)
    registry.rule("GET", "/v2/_catalog", status=401)
    mount = t.mount(registry.host)
    for repo in ("team/app", "solo"):
        assert os.listdir(mount.path(repo, "_tags"))
    registry.rule("GET", "/v2/solo/tags", status=404)
    mount.restart()
    with lib.fails(errno.ENOENT):
        os.listdir(mount.path("solo/_tags"))
    mount.options["offline"] = True
    mount.restart()
    lib.equal(sorted(os.listdir(mount.point)), ["_push", "_regfs", "team"])
    lib.equal(sorted(os.listdir(mount.path("team/app/_tags"))), ["1.4", "1.5", "latest"])


def test_no_such_host(t):
    mount = t.mount("registry.invalid", name_timeout=5)
    with lib.fails(errno.EHOSTUNREACH, errno.ETIMEDOUT):
        os.stat(mount.path("team/app:1.5"))
    lib.equal(len(complaints(mount)), 1, mount.read_log())


def test_silent_in_the_tls_handshake(t):
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        mount = t.mount(f"https://127.0.0.1:{listener.getsockname()[1]}", timeout=2, name_timeout=2)
        start = time.monotonic()
        with lib.fails(errno.ETIMEDOUT):
            os.stat(mount.path("team/app:1.5"))
        assert time.monotonic() - start < SLOW_S
        lib.equal(len(complaints(mount)), 1, mount.read_log())
        # A reader that is called off does not wait for that.
        process = t.start("stat", mount.path("team/other:1.5"))
        lib.wait_for(lambda: mount.stats()["fuse_waiting_now"] >= 1, "the lookup to wait")
        process.signal(2)
        lib.equal(process.wait(), -2)
