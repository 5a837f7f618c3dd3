# SPDX-License-Identifier: Apache-2.0
"""OCI layouts as directories under _push: published when the last file is there."""
import errno
import json
import os
import shutil
import threading

import lib
import oci
import sample
from test_push import empty, manifest
from test_stage import image, reason, staged, sync


def layout(t, tag="latest", version="1.6"):
    """(directory, image) of a layout on this machine's own file system."""
    path = t.dir / t.name("layout")
    one = sample.image(version)
    one.write_layout(path, tag)
    return path, one


def test_cp_r(t):
    registry, mount = empty(t)
    path, one = layout(t)
    t.run("cp", "-r", path, mount.path("team/app/_push/1.6"))
    lib.equal(manifest(registry, "team/app", "1.6")[0], one.digest)
    lib.equal((image(mount, "1.6") / "rootfs/app/version").read_text(), "1.6")
    lib.equal(registry.count("PUT", "/manifests/"), 1)
    # What cp -a sets afterwards changes nothing, nor does a second verdict.
    t.run("touch", mount.path("team/app/_push/1.6"))
    sync(t, mount.path("team/app/_push/1.6"))
    lib.equal(registry.count("PUT", "/manifests/"), 1)


def test_cp_r_again(t):
    """cp -r into what is there copies the layout into it: that is no push, and cp must not succeed."""
    registry, mount = empty(t)
    target = mount.path("team/app/_push/1.6")
    t.run("cp", "-r", layout(t)[0], target)
    path, two = layout(t, version="2")
    t.run("cp", "-r", path, target, status=1)
    assert "cp -rT" in reason(mount), reason(mount)
    t.run("rm", "-r", target / path.name)
    t.run("cp", "-rT", path, target)
    lib.equal(manifest(registry, "team/app", "1.6")[0], two.digest)


def test_archive_copied_into_what_was_pushed(t):
    """cp x.tar _push/1.6 means that directory where there is one: that is no push, and cp must not succeed."""
    registry, mount = empty(t)
    path, one = layout(t)
    target = mount.path("team/app/_push/1.6")
    t.run("cp", "-r", path, target)
    (t.dir / "x.tar").write_bytes(b"an archive")
    with lib.fails(errno.EBUSY):
        shutil.copy(t.dir / "x.tar", target)
    assert "copy to TAG.tar" in mount.read_log(), mount.read_log()
    t.run("rsync", "-a", f"{path}/", target)
    t.run("cp", "-a", f"{path}/.", target)
    lib.equal(manifest(registry, "team/app", "1.6")[0], one.digest)
    # What is being built may hold what it likes, below its parts at any time.
    (staged(mount, "1.7") / "rootfs").mkdir()
    shutil.copy(t.dir / "x.tar", target.parent / "1.7/rootfs")
    sync(t, target.parent / "1.7")
    shutil.copy(t.dir / "x.tar", target.parent / "1.7/rootfs/y.tar")
    with lib.fails(errno.EBUSY):
        sync(t, target.parent / "1.7")
        shutil.copy(t.dir / "x.tar", target.parent / "1.7")


def test_skopeo_writes_into_it(t):
    registry, mount = empty(t)
    path, one = layout(t)
    t.skopeo("copy", f"oci:{path}:latest", f"oci:{mount.path('team/app/_push/1.6')}:any")
    lib.equal(manifest(registry, "team/app", "1.6")[0], one.digest)
    # No manifest went as a blob.
    lib.equal({path.rpartition("sha256%3A")[2] for _, path, _, _ in registry.requests("PUT", "/blobs/")},
              {digest[7:] for digest in one.blobs()})


def test_skopeo_is_told_that_it_failed(t):
    registry, mount = empty(t)
    path, one = layout(t)
    registry.stop()
    lib.need("skopeo")
    ended = t.run("skopeo", "--insecure-policy", "copy", f"oci:{path}:latest",
                  f"oci:{mount.path('team/app/_push/1.6')}:any", status=None)
    assert ended.returncode != 0 and b"connection refused" in ended.stderr, ended.stderr
    registry.start()
    sync(t, mount.path("team/app/_push/1.6"))
    lib.equal(manifest(registry, "team/app", "1.6")[0], one.digest)


def test_rsync_renames_into_it(t):
    lib.need("rsync")
    registry, mount = empty(t)
    path, one = layout(t)
    t.run("rsync", "-a", f"{path}/", mount.path("team/app/_push/1.6/"))
    lib.equal(manifest(registry, "team/app", "1.6")[0], one.digest)


def test_an_index_of_platforms(t):
    registry, mount = empty(t)
    images = [(sample.image(name), {"os": "linux", "architecture": name}) for name in ("amd64", "arm64")]
    index = oci.make_index(images)
    target = staged(mount, "1.6")
    (target / "blobs/sha256").mkdir(parents=True)
    digest = oci.sha256(index)
    (target / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (target / "index.json").write_bytes(oci.to_json({"schemaVersion": 2, "manifests": [
        {"mediaType": oci.INDEX, "digest": digest, "size": len(index)}]}))
    blobs = {digest: index}
    for one, _ in images:
        blobs |= one.blobs() | {one.digest: one.manifest}
    for name, data in blobs.items():
        lib.equal(manifest(registry, "team/app", "1.6"), None)
        (target / "blobs/sha256" / name[7:]).write_bytes(data)
    lib.equal(manifest(registry, "team/app", "1.6")[0], digest)


def test_blobs_travel_before_the_layout_is_whole(t):
    registry, mount = empty(t)
    path, one = layout(t)
    target = staged(mount, "1.6")
    shutil.copytree(path / "blobs", target / "blobs")
    lib.wait_for(lambda: registry.count("PUT", "/blobs/") == len(one.blobs()), "the blobs")
    lib.equal(manifest(registry, "team/app", "1.6"), None)
    shutil.copy(path / "oci-layout", target)
    lib.equal(manifest(registry, "team/app", "1.6"), None)
    shutil.copy(path / "index.json", target)
    lib.equal(manifest(registry, "team/app", "1.6")[0], one.digest)


def test_a_wrong_or_missing_blob(t):
    registry, mount = empty(t)
    path, one = layout(t)
    target = staged(mount, "1.6")
    shutil.copy(path / "oci-layout", target)
    shutil.copy(path / "index.json", target)
    layer = json.loads(one.manifest)["layers"][0]["digest"][7:]
    (target / "blobs/sha256").mkdir(parents=True)
    for name in os.listdir(path / "blobs/sha256"):
        if name != layer:
            shutil.copy(path / "blobs/sha256" / name, target / "blobs/sha256")
    # cp is told nothing of it.
    pushes = mount.path("_regfs/pushes").read_text()
    assert f"/team/app:1.6 0 0 writing not whole: blobs/sha256/{layer} is missing\n" in pushes, pushes
    sync(t, target, status=1)
    assert f"{layer} is missing" in reason(mount)
    data = (path / "blobs/sha256" / layer).read_bytes()
    with lib.fails(errno.EINVAL):
        (target / "blobs/sha256" / layer).write_bytes(bytes(len(data)))
    assert "has the digest" in reason(mount)
    with lib.fails(errno.EINVAL):
        (target / "blobs/sha256" / layer).write_bytes(data + b"more")
    lib.equal(manifest(registry, "team/app", "1.6"), None)
    (target / "blobs/sha256" / layer).write_bytes(data)
    lib.equal(manifest(registry, "team/app", "1.6")[0], one.digest)


def test_a_wrong_diff_id(t):
    """By cp, whose blobs travel before the manifest is known, and by skopeo."""
    registry, mount = empty(t)
    _, one = layout(t)
    config = json.loads(one.config)
    found = config["rootfs"]["diff_ids"][-1]
    config["rootfs"]["diff_ids"][-1] = wrong = oci.sha256(b"other")
    words = f"unpacks to {found}, the image's config says {wrong}"
    bad = oci.Image(one.layers, {"rootfs": config["rootfs"]})
    bad.write_layout(t.dir / "bad")
    t.run("cp", "-r", t.dir / "bad", mount.path("team/app/_push/1"), status=1)
    assert words in reason(mount), reason(mount)
    lib.need("skopeo")
    t.run("skopeo", "--insecure-policy", "copy", f"oci:{t.dir}/bad:latest",
          f"oci:{mount.path('team/app/_push/2')}:any", status=1)
    assert words in reason(mount), reason(mount)
    lib.equal([manifest(registry, "team/app", tag) for tag in "12"], [None, None])


def test_several_images_and_one_called_as_the_tag(t):
    registry, mount = empty(t)
    path, one = layout(t, "1.6")
    other = sample.image("1.7")
    other.write_layout(path / "other", "1.7")
    both = [json.loads((at / "index.json").read_bytes())["manifests"][0] for at in (path, path / "other")]
    shutil.copytree(path / "other/blobs", path / "blobs", dirs_exist_ok=True)
    shutil.rmtree(path / "other")
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": both}))
    ended = t.run("cp", "-r", path, mount.path("team/app/_push/2.0"), status=1)
    assert b"Invalid argument" in ended.stderr, ended.stderr
    assert "1.6, 1.7" in reason(mount), reason(mount)
    lib.equal(manifest(registry, "team/app", "2.0"), None)
    t.run("cp", "-r", path, mount.path("team/app/_push/1.6"))
    lib.equal(manifest(registry, "team/app", "1.6")[0], one.digest)


def test_a_temporary_layout_is_pushed_by_its_rename(t):
    registry, mount = empty(t)
    path, one = layout(t)
    t.run("cp", "-r", path, mount.path("team/app/_push/.new"))
    # Its blobs travel all the same.
    lib.wait_for(lambda: registry.count("PUT", "/blobs/") == len(one.blobs()), "the blobs")
    sync(t, mount.path("team/app/_push/.new"))
    lib.equal(registry.count("PUT", "/manifests/"), 0)
    t.run("mv", mount.path("team/app/_push/.new"), mount.path("team/app/_push/1.6"))
    lib.equal(manifest(registry, "team/app", "1.6")[0], one.digest)


def test_it_does_not_mix_with_what_is_built(t):
    _, mount = empty(t)
    path, _ = layout(t)
    target = staged(mount, "1.6")
    (target / "rootfs").mkdir()
    with lib.fails(errno.EINVAL):
        shutil.copy(path / "index.json", target)
    assert "rootfs does not go with an OCI layout" in reason(mount)


def test_two_writers_of_one_tag(t):
    """The last that is confirmed wins, and both are told the truth."""
    registry, mount = empty(t)
    layouts = [layout(t, version=version) for version in ("1", "2")]
    targets = [mount.path("team/app/_push/1.6"), mount.path("team/app/_push/.other")]
    threads = [threading.Thread(target=shutil.copytree, args=(path, target))
               for (path, _), target in zip(layouts, targets)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lib.equal(manifest(registry, "team/app", "1.6")[0], layouts[0][1].digest)
    # The confirmed one gives way to what is renamed over it.
    os.rename(targets[1], targets[0])
    lib.equal(manifest(registry, "team/app", "1.6")[0], layouts[1][1].digest)


def test_umoci_works_in_it(t):
    """It locks, makes temporary directories, and removes what is not needed any more."""
    lib.need("umoci")
    registry, mount = empty(t)
    target = mount.path("team/app/_push/1.6")
    for argv in (["init", "--layout", target], ["new", "--image", f"{target}:1.6"],
                 ["unpack", "--rootless", "--image", f"{target}:1.6", t.dir / "bundle"]):
        t.run("umoci", *argv)
    (t.dir / "bundle/rootfs/hello").write_text("hello")
    t.run("umoci", "repack", "--image", f"{target}:1.6", t.dir / "bundle")
    t.run("umoci", "gc", "--layout", target)
    lib.equal((image(mount, "1.6") / "rootfs/hello").read_text(), "hello")
    lib.equal(len(manifest(registry, "team/app", "1.6")[1]["layers"]), 1)
