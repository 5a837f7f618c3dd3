# SPDX-License-Identifier: Apache-2.0
"""Tags as links: made, moved, promoted, rolled back and deleted with ln, mv, rm and rmdir."""
import errno
import json
import os
import re
import subprocess
import time

import lib
import oci
import sample

ACCEPT = {"Accept": f"{oci.MANIFEST}, {oci.INDEX}"}


def tag_at(registry, repo, tag):
    """The digest that the registry itself has for a tag, or None. docker-registry empties a tag's
    file before it fills it, and answers 500 to who asks in between."""
    def answer():
        got = registry.request("HEAD", f"/v2/{repo}/manifests/{tag}", None, ACCEPT)
        return got if got[0] != 500 else None
    status, headers, body = lib.wait_for(answer, f"an answer about {repo}:{tag}")
    if status == 404:
        return None
    lib.equal(status, 200, body)
    return headers["Docker-Content-Digest"]


def tags_at(registry, repo):
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


def test_tags_are_copied_as_links(t):
    """cp -a and rsync -a give owners and times, too."""
    registry, images, mount = served(t)
    tags = mount.path("team/app/_tags")
    t.run("cp", "-a", tags / "1.4", tags / "copied")
    lib.equal(tag_at(registry, "team/app", "copied"), images["1.4"].digest)
    # Its text leads to the same image from a repository beside; from elsewhere it would not.
    os.mkdir(mount.path("team/prod"))
    t.run("cp", "-a", tags / "1.5", mount.path("team/prod/_tags/"))
    lib.equal(tag_at(registry, "team/prod", "1.5"), images["1.5"].digest)
    t.run("cp", "-a", tags / "1.5", mount.path("solo/_tags/"), status=1)
    lib.equal(tags_at(registry, "solo"), ["1"])


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


def test_moving_costs_no_list(t):
    """A repository may have thousands of tags: one that only moves has them not listed anew."""
    registry, images, mount = served(t, tag_ttl=600)
    tags = mount.path("team/app/_tags")
    t.run("ln", "-sfn", "1.4", tags / "latest")
    registry.forget()
    for version in ("1.5", "1.4", "1.5"):
        t.run("ln", "-sfn", version, tags / "latest")
        lib.equal(digest(mount, "team/app/_tags/latest"), images[version].digest)
    lib.equal(registry.count("GET", "tags/list"), 0)
    lib.equal(registry.count("PUT", "manifests/latest"), 3)
    # A new one is listed at once.
    os.symlink("1.5", tags / "new")
    assert "new" in os.listdir(tags)


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


def test_platforms_are_promoted_together(t):
    registry = t.registry()
    platforms = [(oci.Image([oci.Layer(sample.top_tar(name))], {"architecture": name}),
                  {"architecture": name, "os": "linux"}) for name in ("amd64", "arm64")]
    index = oci.make_index(platforms, registry, "team/multi", "1")
    mount = t.mount(registry.host, platform="linux/arm64")
    os.mkdir(mount.path("prod"))
    os.symlink("../../team/multi:1", mount.path("prod/_tags/1"))
    lib.equal(tag_at(registry, "prod", "1"), oci.sha256(index))
    for image, _ in platforms:
        lib.equal(tag_at(registry, "prod", image.digest), image.digest)
    lib.equal(mount.path("prod:1/rootfs/app/version").read_text(), "arm64")


def test_registry_that_does_not_mount(t):
    """distribution-spec, "Mounting a blob from another repository": 202 and an upload session instead
    of 201. What was opened for it is called off, the bytes travel, and the log says so."""
    with_mounts = t.bad_registry()
    digest_of = with_mounts.add_image("team/app", "1.5", [oci.Layer(sample.base_tar()).blob])
    for _ in range(2):
        with_mounts.rule("POST", r"mount=", status=202, headers={"Location": "/v2/prod/blobs/uploads/none"},
                         times=1)
    mount = t.mount(with_mounts.host)
    os.mkdir(mount.path("prod"))
    os.symlink("../../team/app:1.5", mount.path("prod/_tags/1.5"))
    lib.equal(with_mounts.repos["prod"]["tags"], {"1.5": digest_of})
    lib.equal(with_mounts.count("DELETE", r"uploads/none"), 2)
    assert "could not be mounted" in mount.read_log()


# --- temporary names, as ln -sf uses them ---


def test_temporary_link_is_no_tag(t):
    registry, images, mount = served(t)
    tags = mount.path("team/app/_tags")
    for name in (".stable.tmp", "CuAbCd09"):
        os.symlink("1.5", tags / name)
        lib.equal(os.readlink(tags / name), "1.5")
        lib.equal(digest(mount, "team/app/_tags", name), images["1.5"].digest)
        os.rename(tags / name, tags / "stable")
        lib.equal(tag_at(registry, "team/app", "stable"), images["1.5"].digest)
        with lib.fails(errno.ENOENT):
            os.readlink(tags / name)
        # A name that is used again has its new text; unlinking it needs no allow_delete.
        os.symlink("1.4", tags / name)
        lib.equal(os.readlink(tags / name), "1.4")
        os.unlink(tags / name)
        with lib.fails(errno.ENOENT):
            os.lstat(tags / name)
    os.symlink("nope", tags / ".x")
    with lib.fails(errno.ENOENT):
        os.rename(tags / ".x", tags / "stable")
    with lib.fails(errno.EINVAL):
        os.rename(tags / ".x", tags / "-x")
    lib.equal(tag_at(registry, "team/app", "stable"), images["1.5"].digest)
    lib.equal(tags_at(registry, "team/app"), ["1.4", "1.5", "latest", "stable"])


def test_link_lands_in_another_repository(t):
    """A link's text is resolved where it lands, not where it was made."""
    registry, images, mount = served(t)
    os.symlink("2.0", mount.path("team/app/_tags/.x"))
    os.rename(mount.path("team/app/_tags/.x"), mount.path("team/app/web/_tags/stable"))
    lib.equal(tag_at(registry, "team/app/web", "stable"), images["web"].digest)


def stopped_ln(t, mount, *args):
    """An ln that stops before its rename: under strace, which makes the call fail as a kill would."""
    lib.need("strace")
    return t.run("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=renameat,renameat2,rename",
                 "-e", "inject=renameat,renameat2,rename:signal=SIGKILL:error=EINTR", "ln", *args,
                 status=None, cwd=mount.path("team/app/_tags"))


def test_what_is_left_after_five_seconds(t):
    """A temporary that nobody renamed was meant, if it can be a tag, and ln(1) did not make it up."""
    registry, images, mount = served(t)
    tags = mount.path("team/app/_tags")
    stopped_ln(t, mount, "-sfn", "1.4", "stable")  # makes the tag: there was none
    lib.equal(tag_at(registry, "team/app", "stable"), images["1.4"].digest)
    start = time.monotonic()
    killed = stopped_ln(t, mount, "-sfn", "1.5", "stable")
    assert killed.returncode != 0
    ln(t, mount, "-s", "1.5", "Customer")  # a tag of the user's, which looks like a temporary
    os.symlink("1.5", tags / ".hidden")
    os.symlink("1.5", tags / "CuAbCdEf")
    found = tags_at(registry, "team/app")
    # On a machine that takes so long for this some are tags by now.
    if time.monotonic() - start < 5:
        lib.equal(found, ["1.4", "1.5", "latest", "stable"])
    lib.wait_for(lambda: tag_at(registry, "team/app", "Customer"), "the tag Customer")
    lib.wait_for(lambda: tag_at(registry, "team/app", "CuAbCdEf"), "the tag CuAbCdEf")
    lib.wait_for(lambda: not os.path.lexists(tags / ".hidden"), "the end of .hidden")
    lib.equal(tags_at(registry, "team/app"), ["1.4", "1.5", "CuAbCdEf", "Customer", "latest", "stable"])
    lib.equal(tag_at(registry, "team/app", "stable"), images["1.4"].digest)
    lib.equal(digest(mount, "team/app:Customer"), images["1.5"].digest)
    assert "nobody renamed it" in mount.read_log()


def test_meant_link_is_published_at_the_unmount(t):
    registry, images, mount = served(t)
    ln(t, mount, "-s", "1.5", "Customer")
    mount.stop()
    lib.equal(tag_at(registry, "team/app", "Customer"), images["1.5"].digest)


def test_failed_rename_leaves_nothing(t):
    registry = t.bad_registry()
    old = registry.add_image("app", "1.4", [b"old"])
    registry.add_image("app", "1.5", [b"new"])
    registry.add_manifest("app", "stable", registry.repos["app"]["manifests"][old][1], oci.MANIFEST)
    mount = t.mount(registry.host)
    tags = mount.path("app/_tags")
    # ECR (Amazon ECR user guide, "Preventing image tags from being overwritten") and Harbor.
    for status, code, words, number in [
            (400, "TAG_INVALID", "The image tag 'stable' already exists in the 'app' repository and cannot be "
             "overwritten because the repository is immutable.", errno.EEXIST),
            (412, "PRECONDITION", "Failed to process request due to 'app:stable' configured as immutable.",
             errno.EEXIST),
            (403, "DENIED", "requested access to the resource is denied", errno.EACCES),
            (500, "UNKNOWN", "on fire", errno.EIO)]:
        registry.rule("PUT", r"/manifests/stable", status=status, times=1,
                      body='{"errors":[{"code":"%s","message":"%s"}]}' % (code, words))
        temporary = tags / f"CuAbC{status}"
        os.symlink("1.5", temporary)
        with lib.fails(number):
            os.rename(temporary, tags / "stable")
        assert words in mount.read_log(), words
        registry.rule("PUT", r"/manifests/stable", status=status, times=1,
                      body='{"errors":[{"code":"%s","message":"%s"}]}' % (code, words))
        assert t.run("ln", "-sfn", "1.5", tags / "stable", status=None).returncode != 0
        lib.equal(registry.repos["app"]["tags"]["stable"], old)
    lib.equal(digest(mount, "app:stable"), old)
    # One that could not be renamed was no tag, and never becomes one: the end would publish it now.
    assert os.path.lexists(temporary)
    mount.stop()
    lib.equal(sorted(registry.repos["app"]["tags"]), ["1.4", "1.5", "stable"])


def test_ln_killed_while_the_registry_stalls(t):
    registry = t.bad_registry()
    old = registry.add_image("app", "1.4", [b"old"])
    registry.add_image("app", "1.5", [b"new"])
    mount = t.mount(registry.host)
    t.run("ln", "-sfn", "1.4", mount.path("app/_tags/stable"))
    registry.rule("GET", r"/manifests/1.5", stall=0)
    seen = registry.count("GET", r"/manifests/1.5")
    ln_process = subprocess.Popen(["ln", "-sfn", "1.5", mount.path("app/_tags/stable")])
    lib.wait_for(lambda: registry.count("GET", r"/manifests/1.5") > seen, "the request")
    ln_process.kill()
    ln_process.wait()
    registry.rules.clear()
    lib.equal(digest(mount, "app/_tags/stable"), old)
    mount.stop()  # what was meant would be published now
    lib.equal(registry.repos["app"]["tags"], {tag: found for tag, found in registry.repos["app"]["tags"].items()
                                              if tag in ("1.4", "1.5", "stable")})
    lib.equal(registry.repos["app"]["tags"]["stable"], old)


def test_busybox_ln(t):
    """busybox's ln -sf removes the old link first: it needs allow_delete, and else changes nothing."""
    lib.need("busybox")
    registry = t.bad_registry()
    digests = {tag: registry.add_image("app", tag, [tag.encode()]) for tag in ("1.4", "1.5")}
    mount = t.mount(registry.host)
    t.run("busybox", "ln", "-s", "1.4", mount.path("app/_tags/stable"))
    t.run("busybox", "ln", "-sfn", "1.5", mount.path("app/_tags/stable"), status=1)
    lib.equal(registry.repos["app"]["tags"]["stable"], digests["1.4"])
    mount.stop()
    mount = t.mount(registry.host, allow_delete=True)
    t.run("busybox", "ln", "-sfn", "1.5", mount.path("app/_tags/stable"))
    lib.equal(registry.repos["app"]["tags"]["stable"], digests["1.5"])


# --- mv ---


def test_mv_moves_a_tag(t):
    registry = t.bad_registry()
    want = registry.add_image("app", "rc", [b"layer"])
    mount = t.mount(registry.host, allow_delete=True)
    tags = mount.path("app/_tags")
    lib.equal(os.readlink(tags / "rc"), "../../app:rc")
    t.run("mv", "-T", tags / "rc", tags / "1.6")
    lib.equal(registry.repos["app"]["tags"], {"1.6": want})
    lib.equal(os.readlink(tags / "1.6"), "../../app:1.6")
    lib.equal(os.listdir(tags), ["1.6"])
    lib.equal(digest(mount, "app/_tags/1.6"), want)
    with lib.fails(errno.ENOENT):
        os.stat(mount.path("app:rc"))
    os.mkdir(mount.path("prod"))
    t.run("mv", tags / "1.6", mount.path("prod/_tags/"))
    lib.equal(registry.repos["app"]["tags"], {})
    lib.equal(registry.repos["prod"]["tags"], {"1.6": want})


def test_mv_is_refused_before_anything_is_written(t):
    registry, images, mount = served(t)
    tags = mount.path("team/app/_tags")
    t.run("mv", "-T", tags / "1.5", tags / "1.6", status=1)
    with lib.fails(errno.EROFS):
        os.rename(tags / "1.5", tags / "1.4")
    assert "allow_delete" in mount.read_log()
    mount.stop()
    # With it, too, where the registry cannot delete a tag alone (docker-registry 2.8).
    mount = t.mount(registry.host, allow_delete=True)
    tags = mount.path("team/app/_tags")
    with lib.fails(errno.EOPNOTSUPP):
        os.rename(tags / "1.5", tags / "1.6")
    lib.equal(registry.count("PUT"), 0)
    lib.equal(tags_at(registry, "team/app"), ["1.4", "1.5", "latest"])
    lib.equal(tag_at(registry, "team/app", "1.4"), images["1.4"].digest)


# --- rm and rmdir ---


def test_rm_deletes_the_tag_alone(t):
    registry = t.bad_registry()
    want = registry.add_image("app", "1.5", [b"layer"])
    mount = t.mount(registry.host, allow_delete=True)
    tags = mount.path("app/_tags")
    os.symlink("1.5", tags / "old")
    lib.equal(digest(mount, "app:old"), want)
    t.run("rm", tags / "old")
    lib.equal(registry.repos["app"]["tags"], {"1.5": want})
    lib.equal(os.listdir(tags), ["1.5"])
    for path in (tags / "old", mount.path("app:old")):
        with lib.fails(errno.ENOENT):
            os.stat(path)
    lib.equal(digest(mount, "app/_tags/1.5"), want)
    with lib.fails(errno.ENOENT):
        os.unlink(tags / "old")


def test_rm_is_refused(t):
    registry, images, mount = served(t)
    tags = mount.path("team/app/_tags")
    digest_name = f"team/app@{images['1.5'].digest}"
    os.stat(mount.path(digest_name))
    for remove, path in ((os.unlink, tags / "latest"), (os.rmdir, mount.path(digest_name)),
                         (os.unlink, mount.path("team/app/_digests", images["1.5"].digest.replace(":", "-")))):
        with lib.fails(errno.EROFS):
            remove(path)
    lib.equal(registry.count("DELETE"), 0)
    mount.stop()
    # docker-registry 2.8 deletes no tag alone; latest and 1.5 are one image.
    mount = t.mount(registry.host, allow_delete=True)
    with lib.fails(errno.EOPNOTSUPP):
        os.unlink(mount.path("team/app/_tags/latest"))
    said = [line for line in mount.read_log().splitlines() if "delete" in line.lower()]
    assert len(said) == 1 and "cannot delete a tag alone" in said[0], said
    lib.equal(tag_at(registry, "team/app", "latest"), images["1.5"].digest)
    with lib.fails(errno.EROFS):
        os.rmdir(mount.path("team/app:1.5"))


def test_rmdir_deletes_by_digest(t):
    registry, images, _ = served(t)
    mount = t.mount(registry.host, allow_delete=True)
    gone, stays = images["1.5"].digest, images["1.4"].digest
    # Known under every name, and out of the cache, too.
    for name in ("app:1.5", "app:latest", f"app@{gone}", f"app/_digests/{gone.replace(':', '-')}"):
        lib.equal(digest(mount, "team", name), gone)
    with lib.fails(errno.EROFS):
        os.rmdir(mount.path("team/app:1.5"))
    assert "team/app:1.5: rmdir deletes an image by its digest" in mount.read_log()
    os.rmdir(mount.path(f"team/app@{gone}"))
    lib.equal(tag_at(registry, "team/app", gone), None)
    for name in ("app:1.5", "app:latest", f"app@{gone}", f"app/_digests/{gone.replace(':', '-')}"):
        lib.wait_for(lambda name=name: not os.path.exists(mount.path("team", name)), f"the end of {name}")
    assert gone.replace(":", "-") not in os.listdir(mount.path("team/app/_digests"))
    lib.equal(digest(mount, "team/app:1.4"), stays)
    # The same by the name without a colon.
    os.unlink(mount.path("team/app/_digests", stays.replace(":", "-")))
    lib.equal(tag_at(registry, "team/app", stays), None)
    with lib.fails(errno.ENOENT):
        os.rmdir(mount.path(f"team/app@{stays}"))


def test_rmdir_undoes_mkdir(t):
    registry, _, mount = served(t)
    os.makedirs(mount.path("new/one"))
    assert "new" in os.listdir(mount.point)
    with lib.fails(errno.ENOTEMPTY):
        os.rmdir(mount.path("new"))
    os.rmdir(mount.path("new/one"))
    os.rmdir(mount.path("new"))
    assert "new" not in os.listdir(mount.point)
    with lib.fails(errno.ENOENT):
        os.stat(mount.path("new"))
    for name in ("team", "team/app", "solo"):
        with lib.fails(errno.ENOTEMPTY):
            os.rmdir(mount.path(name))
    with lib.fails(errno.EINVAL):
        os.mkdir(mount.path("Upper"))
    lib.equal(sorted(os.listdir(mount.path("team"))), ["app"])


# --- the embedded store ---


def files_of(t, repo):
    return {path.name for path in (t.dir / "store" / repo / "blobs").rglob("*") if path.is_file()}


def local(t, **options):
    """The embedded store with team/app:1.4 and :1.5 in it, as skopeo or others would have put it."""
    images = {version: sample.image(version) for version in ("1.4", "1.5")}
    mount = t.mount("local", **options)
    (t.dir / "store/team").mkdir(parents=True)
    for version, image in images.items():
        image.write_layout(t.dir / f"layout{version}", version)
        t.skopeo("copy", f"oci:{t.dir}/layout{version}:{version}", f"oci:{t.dir}/store/team/app:{version}")
    return images, mount


def test_store_tags_and_deletes(t):
    images, mount = local(t, allow_delete=True)
    tags = mount.path("team/app/_tags")
    t.run("ln", "-sfn", "1.4", tags / "stable")
    t.run("ln", "-sfn", "1.5", tags / "stable")
    lib.equal(digest(mount, "team/app:stable"), images["1.5"].digest)
    layout = f"oci:{t.dir}/store/team/app"
    lib.equal(json.loads(t.skopeo("inspect", f"{layout}:stable"))["Digest"], images["1.5"].digest)
    os.mkdir(mount.path("prod"))
    os.symlink("../../team/app:1.5", mount.path("prod/_tags/1.5"))
    lib.equal(json.loads(t.skopeo("inspect", f"oci:{t.dir}/store/prod:1.5"))["Digest"], images["1.5"].digest)
    t.run("mv", "-T", tags / "stable", tags / "best")
    lib.equal(sorted(os.listdir(tags)), ["1.4", "1.5", "best"])
    # A tag alone goes; its image goes with its last tag, and with it what nothing else names.
    os.unlink(tags / "1.5")
    lib.equal(digest(mount, "team/app:best"), images["1.5"].digest)
    os.stat(mount.path(f"team/app@{images['1.5'].digest}"))
    os.unlink(tags / "best")
    with lib.fails(errno.ENOENT):
        os.stat(mount.path(f"team/app@{images['1.5'].digest}"))
    lib.equal(files_of(t, "team/app"), {digest_of[7:] for digest_of in
                                        [*images["1.4"].blobs(), images["1.4"].digest]})
    lib.equal(mount.path("team/app:1.4/rootfs/app/version").read_text(), "1.4")
    lib.equal(mount.path("prod:1.5/rootfs/app/version").read_text(), "1.5")
    os.rmdir(mount.path(f"team/app@{images['1.4'].digest}"))
    lib.equal(files_of(t, "team/app"), set())
    lib.equal(os.listdir(tags), [])
    os.rmdir(mount.path("team/app"))
    lib.equal(os.listdir(t.dir / "store/team"), [])


def test_store_is_seen_as_others_write_it(t):
    images, mount = local(t)
    lib.equal(digest(mount, "team/app:1.5"), images["1.5"].digest)
    layout = f"oci:{t.dir}/store/team/app"
    for version in ("1.4", "1.5", "1.4"):
        t.skopeo("copy", f"{layout}:{version}", f"{layout}:stable")
        lib.equal(digest(mount, "team/app:stable"), images[version].digest)
        lib.equal(digest(mount, "team/app/_tags/stable"), images[version].digest)
        lib.equal(mount.path("team/app:stable/rootfs/app/version").read_text(), version)
    assert "stable" in os.listdir(mount.path("team/app/_tags"))
    os.mkdir(mount.path("other"))
    t.skopeo("copy", f"{layout}:1.5", f"oci:{t.dir}/store/other/app:1")
    lib.equal(digest(mount, "other/app:1"), images["1.5"].digest)
    lib.equal(sorted(name for name in os.listdir(mount.point) if name[0] != "_"), ["other", "team"])


def test_store_has_reserved_names(t):
    mount = t.mount("local")
    os.mkdir(mount.path("app"))
    for name in ("blobs", "index.json", "oci-layout", "app/blobs", "app/index.json"):
        with lib.fails(errno.EINVAL):
            os.mkdir(mount.path(name))
    os.rmdir(mount.path("app"))
    lib.equal(os.listdir(t.dir / "store"), [])


def test_two_mounts_lose_no_tags(t):
    """Of one store, by several processes at once."""
    _, first = local(t)
    second = t.mount("local", cache_dir=t.dir / "cache2")
    script = 'cd "$1"; for i in 1 2 3 4 5 6 7 8; do ln -s 1.5 "$2$i" || exit 1; ln -sfn 1.4 both || exit 1; done'
    writers = [subprocess.Popen(["sh", "-c", script, "sh", mount.path("team/app/_tags"), prefix])
               for prefix, mount in (("a", first), ("b", first), ("c", second), ("d", second))]
    lib.equal([writer.wait() for writer in writers], [0, 0, 0, 0])
    
    want = {f"{prefix}{i}" for prefix in "abcd" for i in range(1, 9)} | {"1.4", "1.5", "both"}
    for mount in (first, second):
        lib.equal(set(os.listdir(mount.path("team/app/_tags"))), want)


def test_skopeo_and_links_at_once(t):
    """skopeo writes index.json and manifests in place and knows no lock: nothing that it made is lost, and
    no link fails. (Of ours it may lose some: it writes the whole index as it was when it began.)"""
    images, mount = local(t)
    script = f"for i in 1 2 3 4 5 6; do skopeo --insecure-policy copy -q oci:{t.dir}/layout1.5:1.5 " \
        f"oci:{t.dir}/store/team/app:copy$i || exit 1; done"
    skopeo = subprocess.Popen(["sh", "-c", script])
    links = 0
    while skopeo.poll() is None or not links:
        t.run("ln", "-sfn", "1.4", mount.path("team/app/_tags/mine"))
        links += 1
    lib.equal(skopeo.returncode, 0)
    t.run("ln", "-sfn", "1.4", mount.path("team/app/_tags/mine"))
    copies = [f"copy{i}" for i in range(1, 7)]
    lib.equal(set(os.listdir(mount.path("team/app/_tags"))), {"1.4", "1.5", "mine", *copies})
    for tag in copies:
        lib.equal(digest(mount, f"team/app:{tag}"), images["1.5"].digest)
    # Nothing that was written on the way is left.
    lib.equal({path.name for path in (t.dir / "store/team/app").iterdir()},
              {"blobs", "index.json", "oci-layout", ".regfs.lock"})


def test_tag_vanishes_between_the_steps_of_ln(t):
    """ln -sfn calls symlink, lstat, symlink and rename; skopeo may write an index without the tag between any of
    them. To the caller the tag stays for that moment, and to nobody else."""
    images, mount = local(t)
    tags = mount.path("team/app/_tags")
    index = t.dir / "store/team/app/index.json"
    before = index.read_bytes()
    t.run("ln", "-sfn", "1.5", tags / "mine")
    with lib.fails(errno.EEXIST):
        os.symlink("1.4", tags / "mine")
    index.write_bytes(before)
    lib.equal(os.readlink(tags / "mine"), "../../app:mine")
    t.run("test", "-L", tags / "mine", status=1)
    os.symlink("1.4", tags / "CuAAAAAA")
    os.rename(tags / "CuAAAAAA", tags / "mine")
    lib.equal(digest(mount, "team/app:mine"), images["1.4"].digest)


def test_tag_deleted_is_gone_for_who_has_seen_it(t):
    _, mount = local(t, allow_delete=True)
    tags = mount.path("team/app/_tags")
    for name, delete in (("1.4", lambda: os.unlink(tags / "1.4")),
                         ("1.5", lambda: os.rmdir(mount.path(f"team/app@{digest(mount, 'team/app:1.5')}")))):
        os.lstat(tags / name)
        delete()
        with lib.fails(errno.ENOENT):
            os.lstat(tags / name)


# --- several at once, and what breaks in between ---


def test_two_writers_of_one_tag(t):
    """The last one confirmed wins, both are told the truth, and nobody reads anything else."""
    registry, images, mount = served(t)
    want = {images["1.4"].digest, images["1.5"].digest}
    t.run("ln", "-sfn", "1.4", mount.path("team/app/_tags/stable"))
    script = 'cd "$1"; for i in 1 2 3 4 5 6; do ln -sfn "$2" stable || exit 1; done'
    writers = [subprocess.Popen(["sh", "-c", script, "sh", mount.path("team/app/_tags"), version])
               for version in ("1.4", "1.5")]
    while any(writer.poll() is None for writer in writers):
        for path in ("team/app/_tags/stable", "team/app:stable"):
            assert digest(mount, path) in want
    lib.equal([writer.wait() for writer in writers], [0, 0])
    now = tag_at(registry, "team/app", "stable")
    lib.equal(digest(mount, "team/app:stable"), now)
    lib.equal(tags_at(registry, "team/app"), ["1.4", "1.5", "latest", "stable"])


def test_tag_moved_behind_our_back(t):
    """What a link's text names is asked for anew, whatever was believed of it."""
    registry, images, mount = served(t)
    lib.equal(digest(mount, "team/app:latest"), images["1.5"].digest)
    oci.push_manifest(registry, "team/app", "latest", images["1.4"].manifest, oci.MANIFEST)
    os.symlink("latest", mount.path("team/app/_tags/stable"))
    lib.equal(tag_at(registry, "team/app", "stable"), images["1.4"].digest)


def test_registry_goes_and_comes_back(t):
    registry, images, mount = served(t)
    tags = mount.path("team/app/_tags")
    os.listdir(tags)
    registry.stop()
    assert "onnection refused" in t.run("ln", "-s", "1.5", tags / "stable", status=1).stderr.decode()
    registry.start()
    lib.equal(tags_at(registry, "team/app"), ["1.4", "1.5", "latest"])
    t.run("ln", "-s", "1.5", tags / "stable")
    lib.equal(tag_at(registry, "team/app", "stable"), images["1.5"].digest)


def test_lost_answer(t):
    """The manifest was taken, and the answer lost: the tag is asked for. Where that cannot be, the outcome
    is unknown, and said to be."""
    registry = t.bad_registry()
    want = registry.add_image("app", "1.5", [b"layer"])
    mount = t.mount(registry.host)
    registry.rule("PUT", r"/manifests/a$", lose=True, times=1)
    os.symlink("1.5", mount.path("app/_tags/a"))
    lib.equal(registry.repos["app"]["tags"]["a"], want)
    # Never carried out: the tag is as it was.
    older = registry.add_image("app", "1.4", [b"older"])
    registry.rule("PUT", r"/manifests/a$", close=True)
    with lib.fails(errno.EIO):
        os.symlink("1.4", mount.path("app/_tags/.x"))
        os.rename(mount.path("app/_tags/.x"), mount.path("app/_tags/a"))
    lib.equal(registry.repos["app"]["tags"], {"1.4": older, "1.5": want, "a": want})
    lib.equal(digest(mount, "app/_tags/a"), want)
    registry.rule("PUT", r"/manifests/b$", lose=True)
    registry.rule("HEAD|GET", r"/manifests/b$", status=500, skip=1)  # the first looks whether it is there
    with lib.fails(errno.EIO):
        os.symlink("1.5", mount.path("app/_tags/b"))
    assert re.search(r"app.*outcome unknown", mount.read_log())
