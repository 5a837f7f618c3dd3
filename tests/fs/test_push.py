# SPDX-License-Identifier: Apache-2.0
"""Pushing by cp: archives of every kind, what travels, and what failure leaves behind."""
import errno
import gzip
import io
import json
import os
import signal
import subprocess
import tarfile

import lib
import oci
import sample
from tarfiles import Tar


def archive(t, image, kind="oci-archive", name="reg.test/team/app:1.6", file="image.tar"):
    """IMAGE as skopeo writes it: oci-archive or docker-archive."""
    layout = t.dir / t.name("layout")
    image.write_layout(layout)
    target = t.dir / file
    target.unlink(missing_ok=True)
    t.skopeo("copy", f"oci:{layout}:latest", f"{kind}:{target}:{name}")
    return target


def manifest(registry, repo, tag):
    """(digest, document) of what a tag names at the registry; None where there is no such tag."""
    status, headers, body = registry.request("GET", f"/v2/{repo}/manifests/{tag}", None,
                                             {"Accept": f"{oci.MANIFEST}, {oci.INDEX}, "
                                              "application/vnd.docker.distribution.manifest.v2+json"})
    if status == 404:
        return None
    lib.equal(status, 200, body)
    return headers["Docker-Content-Digest"], json.loads(body)


def empty(t, **options):
    """A registry without repositories, mounted, and team/app made in it."""
    registry = t.registry()
    mount = t.mount(registry.host, **options)
    os.makedirs(mount.path("team/app"))
    return registry, mount


def push(t, mount, file, where):
    repo = mount.path(where).parent.parent
    if repo != mount.point:
        os.makedirs(repo, exist_ok=True)
    t.run("cp", file, mount.path(where))


# --- archives ---


def test_oci_archive_byte_for_byte(t):
    registry, mount = empty(t)
    image = sample.image("1.6")
    push(t, mount, archive(t, image), "team/app/_push/1.6.tar")
    lib.equal(manifest(registry, "team/app", "1.6")[0], image.digest)
    lines = [line for line in mount.read_log().splitlines() if "push " in line]
    assert len(lines) == 1 and lines[0].endswith(f"push {registry.host}/team/app:1.6: confirmed"), lines
    t.skopeo("inspect", "--tls-verify=false", f"docker://{registry.host}/team/app:1.6")
    # Through the same mount, at once.
    lib.equal(mount.path("team/app:1.6/rootfs/app/version").read_text(), "1.6")
    assert "1.6" in os.listdir(mount.path("team/app/_tags"))
    assert "app" in os.listdir(mount.path("team"))


def test_docker_archive_keeps_the_image_id(t):
    registry, mount = empty(t)
    image = sample.image("1.6")
    file = archive(t, image, "docker-archive")
    with tarfile.open(file) as tar:
        config = json.load(tar.extractfile("manifest.json"))[0]["Config"]
        image_id = oci.sha256(tar.extractfile(config).read())
    push(t, mount, file, "team/app/_push/1.6.tar")
    lib.equal(manifest(registry, "team/app", "1.6")[1]["config"]["digest"], image_id)
    lib.equal(mount.path("team/app:1.6/rootfs/noise").read_bytes(), sample.NOISE)
    got = json.loads(t.skopeo("inspect", "--config", "--tls-verify=false", f"docker://{registry.host}/team/app:1.6"))
    lib.equal(got["rootfs"]["diff_ids"], [oci.sha256(layer.tar) for layer in image.layers])
    t.skopeo("copy", "--src-tls-verify=false", f"docker://{registry.host}/team/app:1.6", f"dir:{t.dir}/back")


def old_docker_save(image, tags):
    """An archive of docker save before 25: a directory for each layer, repositories, manifest.json."""
    tar = Tar()
    config = oci.sha256(image.config)[7:] + ".json"
    names, previous = [], None
    for layer in image.layers:
        ident = oci.sha256(layer.tar + (previous or "").encode())[7:]
        tar.dir(ident + "/").file(f"{ident}/VERSION", "1.0")
        tar.file(f"{ident}/json", json.dumps({"id": ident} | ({"parent": previous} if previous else {})))
        tar.file(f"{ident}/layer.tar", layer.tar)
        names.append(f"{ident}/layer.tar")
        previous = ident
    tar.file(config, image.config)
    tar.file("manifest.json", json.dumps([{"Config": config, "RepoTags": tags, "Layers": names}]))
    repositories = {}
    for tag in tags:
        name, _, version = tag.rpartition(":")
        repositories.setdefault(name, {})[version] = previous
    return tar.file("repositories", json.dumps(repositories)).end()


def new_docker_save(image, tags):
    """An archive of docker save since 25: an OCI layout with a manifest.json beside."""
    plain = oci.Image([oci.Layer(layer.tar, "none") for layer in image.layers],
                      json.loads(image.config))
    tar = Tar().dir("blobs/").dir("blobs/sha256/")
    for digest, data in {**plain.blobs(), plain.digest: plain.manifest}.items():
        tar.file(f"blobs/sha256/{digest[7:]}", data)
    tar.file("index.json", json.dumps({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [
        plain.descriptor() | {"annotations": {"io.containerd.image.name": tag,
                                              "org.opencontainers.image.ref.name": tag.rpartition(":")[2]}}
        for tag in tags]}))
    tar.file("manifest.json", json.dumps([{
        "Config": f"blobs/sha256/{oci.sha256(plain.config)[7:]}", "RepoTags": tags,
        "Layers": [f"blobs/sha256/{oci.sha256(layer.tar)[7:]}" for layer in image.layers]}]))
    return tar.file("oci-layout", '{"imageLayoutVersion":"1.0.0"}').end()


def check_docker_save(t, make):
    registry, mount = empty(t)
    image = sample.image("1.6")
    file = t.dir / "save.tar"
    file.write_bytes(make(image, ["reg.test/team/app:1.6"]))
    push(t, mount, file, "team/app/_push/1.6.tar")
    got = manifest(registry, "team/app", "1.6")[1]
    lib.equal(got["config"]["digest"], oci.sha256(image.config))
    lib.equal(len(got["layers"]), 2)
    lib.equal(mount.path("team/app:1.6/rootfs/app/version").read_text(), "1.6")
    t.skopeo("copy", "--src-tls-verify=false", f"docker://{registry.host}/team/app:1.6", f"dir:{t.dir}/back")
    return got


def test_docker_save_old_layout(t):
    got = check_docker_save(t, old_docker_save)
    assert all("gzip" in layer["mediaType"] for layer in got["layers"]), "layers travel compressed"


def test_docker_save_new_layout(t):
    check_docker_save(t, new_docker_save)


def test_podman_save(t):
    """Both formats of podman save, from its own storage; and podman pulls what was pushed."""
    lib.need("podman")
    lib.need_root()
    registry, mount = empty(t)
    image = sample.image("1.6")
    image.write_layout(t.dir / "layout")
    place = t.dir / "podman"
    policy = t.dir / "policy.json"
    policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
    podman = ["podman", "--root", place / "root", "--runroot", place / "run", "--tmpdir", place / "tmp",
              "--storage-driver", "vfs", "--events-backend", "none"]
    ident = t.output(*podman, "pull", "-q", "--signature-policy", policy, f"oci:{t.dir}/layout:latest").strip()
    try:
        for kind in ("docker-archive", "oci-archive"):
            file = t.dir / f"{kind}.tar"
            t.run(*podman, "save", "--format", kind, "-o", file, ident)
            push(t, mount, file, f"team/{kind}/_push/1.tar")
            t.run(*podman, "rmi", "-f", ident)
            got = t.output(*podman, "pull", "-q", "--tls-verify=false", "--signature-policy", policy,
                           f"{registry.host}/team/{kind}:1").strip()
            lib.equal("sha256:" + got, manifest(registry, f"team/{kind}", "1")[1]["config"]["digest"])
    finally:
        for point in lib.mounts_under(place):
            t.run("umount", point)


def test_compressed_archives(t):
    registry, mount = empty(t)
    image = sample.image("1.6")
    plain = archive(t, image)
    t.run("gzip", "-k", plain)
    t.run("zstd", "-q", "-k", plain)
    for suffix, name in (("gz", "1.tar.gz"), ("zst", "2.tar.zst"), ("gz", "3.tar"), ("zst", "4")):
        push(t, mount, f"{plain}.{suffix}", f"team/app/_push/{name}")
        lib.equal(manifest(registry, "team/app", name[0])[0], image.digest)


def test_multi_platform_archive(t):
    registry, mount = empty(t)
    images = {arch: oci.Image([oci.Layer(sample.top_tar(arch))], {"architecture": arch})
              for arch in ("amd64", "arm64")}
    index = oci.make_index([(image, {"os": "linux", "architecture": arch}) for arch, image in images.items()])
    tar = Tar().file("oci-layout", '{"imageLayoutVersion":"1.0.0"}')
    tar.file("index.json", json.dumps({"schemaVersion": 2, "manifests": [
        {"mediaType": oci.INDEX, "digest": oci.sha256(index), "size": len(index)}]}))
    tar.file(f"blobs/sha256/{oci.sha256(index)[7:]}", index)
    for image in images.values():
        for digest, data in {**image.blobs(), image.digest: image.manifest}.items():
            tar.gnu_long(f"blobs/sha256/{digest[7:]}").file("long", data)
    (t.dir / "multi.tar").write_bytes(tar.end())
    push(t, mount, t.dir / "multi.tar", "multi/_push/1.tar")
    lib.equal(manifest(registry, "multi", "1")[0], oci.sha256(index))
    lib.equal(mount.path("multi:1/platforms/linux-arm64/rootfs/app/version").read_text(), "arm64")


def test_any_order_of_writes(t):
    registry, mount = empty(t)
    image = sample.image("1.6")
    data = archive(t, image).read_bytes()
    pieces = [(start, data[start:start + 70001]) for start in range(0, len(data), 70001)]
    fd = os.open(mount.path("team/app/_push/1.6.tar"), os.O_WRONLY | os.O_CREAT, 0o644)
    for start, piece in pieces[1::2] + pieces[::-2] + pieces[::2]:
        lib.equal(os.pwrite(fd, piece, start), len(piece))
    os.close(fd)
    lib.equal(manifest(registry, "team/app", "1.6")[0], image.digest)


def test_tools_that_copy(t):
    """cp -a, mv, install, dd, and a pipe into cp /dev/stdin."""
    registry, mount = empty(t)
    image = sample.image("1.6")
    file = archive(t, image)
    target = mount.path("team/app/_push")
    t.run("cp", "-a", file, target / "a.tar")
    t.run("install", "-m", "600", file, target / "b.tar")
    t.run("dd", "bs=64K", f"if={file}", f"of={target}/c.tar", "conv=fsync")
    t.run("sh", "-c", f"cat {file} | cp /dev/stdin {target}/d.tar")
    t.run("cp", file, t.dir / "again.tar")
    t.run("mv", t.dir / "again.tar", target / "e.tar")
    for tag in "abcde":
        lib.equal(manifest(registry, "team/app", tag)[0], image.digest, tag)


def test_temporary_names(t):
    """A file with a leading dot is kept; renamed to a tag it is pushed, and only its manifest travels then."""
    registry, mount = empty(t)
    image = sample.image("1.6")
    folder = mount.path("team/app/_push")
    t.run("cp", archive(t, image), folder / ".hidden")
    lib.equal(manifest(registry, "team/app", ".hidden"), None)
    lib.equal(os.listdir(folder), [".hidden"])
    assert registry.count("PUT", "/blobs/uploads/"), "its blobs travel at its close"
    registry.forget()
    os.rename(folder / ".hidden", folder / ".other")
    for bad in ("-x", "a b"):
        with lib.fails(errno.EINVAL):
            os.rename(folder / ".other", folder / bad)
    t.run("mv", folder / ".other", folder / "1.6.tar")
    lib.equal([(method, path) for method, path, _, _ in registry.requests() if method != "GET"],
              [("PUT", "/v2/team/app/manifests/1.6")])
    lib.equal(manifest(registry, "team/app", "1.6")[0], image.digest)
    lib.equal(os.listdir(folder), ["1.6.tar"])
    lib.equal(mount.path("team/app:1.6/rootfs/app/version").read_text(), "1.6")
    # In the registry's _push the archive names its image.
    t.run("cp", archive(t, image, name="x:y"), mount.path("_push/.hidden"))
    t.run("mv", mount.path("_push/.hidden"), mount.path("_push/any"))
    lib.equal(manifest(registry, "x", "y")[0], image.digest)


def test_rename_says_what_is_wrong(t):
    registry, mount = empty(t)
    image = sample.image("1.6")
    file = archive(t, image)
    folder = mount.path("team/app/_push")
    (folder / ".bad").write_bytes(b"no archive")
    (folder / ".none").touch()
    for name in (".bad", ".none"):
        with lib.fails(errno.EINVAL):
            os.rename(folder / name, folder / "1.6")
        assert (folder / name).exists(), "it stays what it was"
    t.run("cp", file, folder / ".cut")
    os.truncate(folder / ".cut", file.stat().st_size // 2)
    with lib.fails(errno.EINVAL):
        os.rename(folder / ".cut", folder / "1.6")
    lib.equal(manifest(registry, "team/app", "1.6"), None)
    t.run("cp", file, folder / ".cut")
    registry.stop()
    with lib.fails(errno.ECONNREFUSED):
        os.rename(folder / ".cut", folder / "1.6")
    registry.start()
    os.rename(folder / ".cut", folder / "1.6")
    lib.equal(manifest(registry, "team/app", "1.6")[0], image.digest)


def test_rsync(t):
    lib.need("rsync")
    registry, mount = empty(t)
    for number, options in enumerate((["-a"], ["-a", "--inplace"], ["-a", "--fsync"])):
        image = sample.image(f"r{number}")
        file = archive(t, image, file=f"r{number}.tar")
        t.run("rsync", *options, file, f"{mount.path('team/app/_push')}/")
        lib.equal(manifest(registry, "team/app", f"r{number}")[0], image.digest)


def test_push_of_a_registry(t):
    """Archives that name their own images: all of them."""
    registry, mount = empty(t)
    first, second = sample.image("1"), sample.image("2")
    (t.dir / "one.tar").write_bytes(old_docker_save(first, [f"{registry.host}/team/app:1", f"{registry.host}/x:y"]))
    push(t, mount, t.dir / "one.tar", "_push/one.tar")
    for repo, tag in (("team/app", "1"), ("x", "y")):
        lib.equal(manifest(registry, repo, tag)[1]["config"]["digest"], oci.sha256(first.config))
    push(t, mount, archive(t, second, name="team/app:2"), "_push/two.tar")
    lib.equal(manifest(registry, "team/app", "2")[0], second.digest)


def test_mkdir_makes_a_repository(t):
    registry, mount = empty(t)
    os.makedirs(mount.path("new/deep/repo"))
    image = sample.image("1")
    push(t, mount, archive(t, image), "new/deep/repo/_push/1")
    lib.equal(manifest(registry, "new/deep/repo", "1")[0], image.digest)


def test_into_the_local_store(t):
    mount = t.mount("local")
    image = sample.image("1.6")
    push(t, mount, archive(t, image), "team/app/_push/1.6.tar")
    lib.equal(mount.path("team/app:1.6/rootfs/app/version").read_text(), "1.6")
    lib.equal(t.output("skopeo", "inspect", "--format", "{{.Digest}}", f"oci:{t.dir}/store/team/app:1.6").strip(),
              image.digest)
    file = t.dir / "save.tar"
    file.write_bytes(old_docker_save(sample.image("1.7"), ["team/app:1.7"]))
    push(t, mount, file, "team/app/_push/1.7.tar")
    lib.equal(mount.path("team/app:1.7/rootfs/app/version").read_text(), "1.7")
    lib.equal(sorted(os.listdir(mount.path("team/app/_tags"))), ["1.6", "1.7"])


def test_what_comes_out_goes_in(t):
    """image.tar and oci/ of one repository, pushed into another."""
    registry = t.registry()
    pushed = sample.push_all(registry)
    mount = t.mount(registry.host)
    push(t, mount, mount.path("team/app:1.5/image.tar"), "copy/_push/1.tar")
    lib.equal(manifest(registry, "copy", "1")[0], pushed["1.5"].digest)


# --- what travels ---


def test_what_is_there_is_not_sent_again(t):
    registry, mount = empty(t)
    push(t, mount, archive(t, sample.image("1.6")), "team/app/_push/1.6.tar")
    registry.forget()
    image = sample.image("1.7")
    push(t, mount, archive(t, image), "team/app/_push/1.7.tar")
    uploads = registry.requests("PUT", "/blobs/uploads/")
    # The base is there; the top layer and the config are new.
    lib.equal(len(uploads), 2, uploads)
    assert not any(oci.sha256(image.layers[0].blob)[7:] in path for _, path, _, _ in uploads)
    registry.forget()
    push(t, mount, archive(t, image), "team/app/_push/1.8.tar")
    lib.equal(registry.requests("PUT", "/blobs/uploads/"), [])
    lib.equal(manifest(registry, "team/app", "1.8")[0], image.digest)


def test_manifest_last(t):
    registry, mount = empty(t)
    push(t, mount, archive(t, sample.image("1.6")), "team/app/_push/1.6.tar")
    changes = [path for method, path, _, _ in registry.requests() if method in ("PUT", "POST", "PATCH")]
    assert "/manifests/1.6" in changes[-1], changes
    lib.equal(sum("/manifests/" in path for path in changes), 1)


# --- failures ---


def refuse(t, mount, data, number, where="team/app/_push/1.6.tar"):
    """Writing DATA must fail with errno NUMBER by the time the file is closed."""
    path = mount.path(where)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    with lib.fails(number):
        try:
            with io.BytesIO(data) as source:
                while piece := source.read(131072):
                    os.write(fd, piece)
        finally:
            os.close(fd)


def test_bad_archives_are_refused(t):
    registry, mount = empty(t)
    image = sample.image("good")
    image.push(registry, "team/app", "1.6")
    before = manifest(registry, "team/app", "1.6")
    good = archive(t, sample.image("1.6")).read_bytes()
    save = old_docker_save(sample.image("1.6"), ["a:1"])
    without = Tar().file("other", "x").end()
    layout = sample.image("1.6")
    missing = Tar().file("oci-layout", '{"imageLayoutVersion":"1.0.0"}')
    missing.file("index.json", json.dumps({"schemaVersion": 2, "manifests": [layout.descriptor("1.6")]}))
    missing.file(f"blobs/sha256/{layout.digest[7:]}", layout.manifest)
    missing.file(f"blobs/sha256/{oci.sha256(layout.config)[7:]}", layout.config)
    wrong = Tar().raw(missing.cut())
    for layer in layout.layers:
        wrong.file(f"blobs/sha256/{oci.sha256(layer.blob)[7:]}", layer.blob[:-1] + b"?")
    for name, data in {"cut off": good[:len(good) // 2], "no end": good[:-4096], "nonsense": b"nonsense" * 1000,
                       "no manifest": without, "a layer missing": missing.end(), "a wrong layer": wrong.end(),
                       "cut docker save": save[:len(save) // 2],
                       "cut gzip": gzip.compress(good)[:len(good) // 3]}.items():
        lib.note(name)
        refuse(t, mount, data, errno.EINVAL)
        lib.equal(manifest(registry, "team/app", "1.6"), before, name)
    assert "team/app" in mount.read_log()
    lib.equal(mount.path("team/app:1.6/rootfs/app/version").read_text(), "good")
    # None of it stands in the way of a good one.
    refused = sample.image("better")
    push(t, mount, archive(t, refused), "team/app/_push/1.6.tar")
    lib.equal(manifest(registry, "team/app", "1.6")[0], refused.digest)
    lib.equal(mount.path("team/app:1.6/rootfs/app/version").read_text(), "better")


def test_cp_tells_of_a_failure(t):
    _, mount = empty(t)
    file = t.dir / "bad.tar"
    for text in (b"not a tar" * 10000, b"{}"):
        file.write_bytes(text)
        ended = t.run("cp", file, mount.path("team/app/_push/1.tar"), status=1)
        assert b"Invalid argument" in ended.stderr, ended.stderr
    assert "it is no archive, or only the beginning of one" in mount.read_log()


def test_bad_tags_are_refused(t):
    _, mount = empty(t)
    for name in ("-1", "a b", "a" * 129, "ä", "a:b"):
        with lib.fails(errno.EINVAL):
            os.close(os.open(mount.path("team/app/_push", name), os.O_WRONLY | os.O_CREAT))


def check_refusal(t, number, words, rules, timeout=5):
    """A registry that fails in one way: close() says NUMBER, the tag stays, the log has WORDS."""
    registry = t.bad_registry()
    sample.image("old").push(registry, "team/app", "1.6")
    before = dict(registry.repos["team/app"]["tags"])
    mount = t.mount(registry.host, timeout=timeout)
    for method, path, actions in rules:
        registry.rule(method, path, **actions)
    refuse(t, mount, archive(t, sample.image("1.6")).read_bytes(), number)
    lib.equal(registry.repos["team/app"]["tags"], before)
    log = mount.read_log()
    assert words in log, log


def test_refused_by_the_registry(t):
    denied = {"status": 403, "body": json.dumps({"errors": [{"code": "DENIED", "message": "go away"}]})}
    check_refusal(t, errno.EACCES, "go away", [("POST", "/uploads/", denied)])


def test_refused_as_too_large(t):
    check_refusal(t, errno.EDQUOT, "413", [("PUT|PATCH", "/uploads/", {"status": 413})])


def test_refused_at_the_manifest(t):
    invalid = {"status": 500, "body": json.dumps({"errors": [{"code": "UNKNOWN", "message": "disk on fire"}]})}
    check_refusal(t, errno.EIO, "disk on fire", [("PUT", "/manifests/", invalid)])


def test_blob_unknown_for_a_moment(t):
    """docker-registry forgets a blob while another push brings it too: what names it is sent once more."""
    registry = t.bad_registry()
    image = sample.image("1.6")
    unknown = json.dumps({"errors": [{"code": "MANIFEST_BLOB_UNKNOWN", "message": "blob unknown to registry"}]})
    registry.rule("PUT", "/manifests/", times=1, status=400, body=unknown)
    mount = t.mount(registry.host)
    push(t, mount, archive(t, image), "team/app/_push/1.6.tar")
    lib.equal(registry.repos["team/app"]["tags"]["1.6"], image.digest)
    lib.equal(registry.count("PUT", "/manifests/"), 2)


def test_upload_dropped_once(t):
    registry = t.bad_registry()
    image = sample.image("1.6")
    file = archive(t, image)
    registry.rule("PUT|PATCH", "/uploads/", times=1, take=1000)
    mount = t.mount(registry.host, timeout=10)
    push(t, mount, file, "team/app/_push/1.6.tar")
    lib.equal(registry.repos["team/app"]["tags"]["1.6"], image.digest)


def test_answer_to_the_manifest_lost(t):
    """regfs asks for the tag: it is what was pushed, so that the push succeeded."""
    registry = t.bad_registry()
    image = sample.image("1.6")
    registry.rule("PUT", "/manifests/", times=1, lose=True)
    mount = t.mount(registry.host, timeout=10)
    push(t, mount, archive(t, image), "team/app/_push/1.6.tar")
    lib.equal(registry.repos["team/app"]["tags"]["1.6"], image.digest)


def test_manifest_is_never_answered(t):
    """Silence is asked about as a lost answer is: not taken, or, where that cannot be told, unknown."""
    silence = ("PUT", "/manifests/1.6", {"stall": 1000})
    check_refusal(t, errno.EIO, "has not taken it", [silence], timeout=2)
    mute = ("HEAD|GET", "/manifests/1.6", {"stall": 1000})
    check_refusal(t, errno.EIO, "outcome unknown", [silence, mute], timeout=2)


def test_registry_gone(t):
    registry, mount = empty(t)
    image = archive(t, sample.image("1.6")).read_bytes()
    registry.stop()
    path = mount.path("team/app/_push/1.6.tar")
    with lib.fails(errno.ECONNREFUSED):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT)
        try:
            os.write(fd, image)
        finally:
            os.close(fd)


def test_killed_writer_publishes_nothing(t):
    registry, mount = empty(t)
    file = archive(t, sample.image("1.6"))
    path = mount.path("team/app/_push/1.6.tar")
    script = ("import os, sys, time\n"
              "fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)\n"
              "os.write(fd, open(sys.argv[2], 'rb').read())\n"
              "print('written', flush=True)\n"
              "time.sleep(1000)\n")
    writer = subprocess.Popen([lib.sys.executable, "-c", script, path, file], stdout=subprocess.PIPE)
    # All is written, but nobody has closed it yet when the writer dies.
    lib.equal(writer.stdout.readline(), b"written\n")
    writer.kill()
    writer.wait()
    writer.stdout.close()
    # What was under way is over when the mount is.
    mount.stop()
    lib.equal(manifest(registry, "team/app", "1.6"), None)


# Go's runtime moves its threads on by SIGURG, also while they close() (golang/go#37942).
CLOSER = """
import os, signal, sys
signal.signal(signal.SIGURG, lambda *_: None)
signal.signal(signal.SIGINT, signal.SIG_DFL)
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
os.write(fd, open(sys.argv[2], "rb").read())
print("written", flush=True)
os.close(fd)
"""


def closer(t, mount, tag):
    """A writer that stands in close(), of which a SIGURG is known."""
    process = subprocess.Popen([lib.sys.executable, "-c", CLOSER, mount.path(f"team/app/_push/{tag}.tar"),
                                archive(t, sample.image("1.6"))], stdout=subprocess.PIPE)
    lib.equal(process.stdout.readline(), b"written\n")
    lib.wait_for(lambda: mount.stats()["fuse_waiting_now"] >= 1, "the close() to wait")
    process.stdout.close()
    process.send_signal(signal.SIGURG)
    lib.wait_for(lambda: mount.stats()["fuse_interrupted"] >= 1, "the kernel to tell of it")
    return process


def test_signals_that_ask_for_nothing(t):
    """They interrupt no close(), as they would not on a disk; one that ends the writer, behind one, does."""
    registry, mount = empty(t)
    mount.path("team/app/_push").stat()
    registry.process.signal(signal.SIGSTOP)
    try:
        process = closer(t, mount, "1.7")
    finally:
        registry.process.signal(signal.SIGCONT)
    lib.equal(process.wait(lib.PATIENCE_S), 0)
    lib.equal(mount.path("team/app:1.7/rootfs/app/version").read_text(), "1.6")
    mount.restart()
    mount.path("team/app/_push").stat()
    registry.process.signal(signal.SIGSTOP)
    try:
        process = closer(t, mount, "1.8")
        process.send_signal(signal.SIGINT)
        lib.equal(process.wait(lib.PATIENCE_S), -signal.SIGINT)
    finally:
        registry.process.signal(signal.SIGCONT)
    mount.stop()
    lib.equal(manifest(registry, "team/app", "1.8"), None)


def test_spool_is_left_empty(t):
    _, mount = empty(t)
    push(t, mount, archive(t, sample.image("1.6")), "team/app/_push/1.6.tar")
    refuse(t, mount, b"nonsense" * 10000, errno.EINVAL)
    mount.stop()
    used = subprocess.run(["du", "-sk", t.dir / "cache"], capture_output=True, text=True, check=True).stdout
    left = [path for path in (t.dir / "cache").rglob("*") if "push" in path.name or "spool" in path.name]
    lib.equal([path for path in left if path.is_file()], [], used)
