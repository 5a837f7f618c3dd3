# SPDX-License-Identifier: Apache-2.0
"""The tree: registries, repositories, tags, image directories; and what looking at them costs."""
import errno
import json
import os
import pathlib
import re
import stat

import lib
import oci
import sample
import tree


def mounted(t, **options):
    registry = t.registry()
    pushed = sample.push_all(registry)
    return registry, pushed, t.mount(registry.host, **options)


# --- names ---


def test_root_lists_registries(t):
    registry = t.registry()
    sample.push_all(registry)
    mount = t.mount(registry="registry.test:1234")
    names = set(os.listdir(mount.point))
    assert {"_regfs", "local", "docker.io", "registry.test:1234"} <= names, names
    assert registry.host not in names
    lib.equal(mount.path(registry.host, "team/app:1.5/app/version").exists(), False)
    lib.equal(mount.path(registry.host, "team/app:1.5/rootfs/app/version").read_text(), "1.5")
    assert registry.host in os.listdir(mount.point), "a host is listed once it was visited"


def test_root_knows_what_is_no_host(t):
    mount = t.mount()
    for name in (".git", "autorun.inf", "HEAD", ".Trash-0", "no_host.test", "_push", "a:b:c"):
        lib.equal(os.path.lexists(mount.path(name)), False, name)
    lib.equal(mount.stats()["http_requests"], 0 if "autorun.inf" not in mount.read_log() else 1)


def test_host_with_plus_for_colon(t):
    registry = t.registry()
    sample.push_all(registry)
    mount = t.mount()
    plus = registry.host.replace(":", "+")
    lib.equal(mount.path(plus, "team/app/_tags/1.5/rootfs/app/version").read_text(), "1.5")


def test_repositories_nest(t):
    _, _, mount = mounted(t)
    lib.equal(sorted(name for name in os.listdir(mount.point) if name != "_regfs"),
              ["_push", "solo", "team"])
    lib.equal(sorted(os.listdir(mount.path("team"))), ["app"])
    lib.equal(sorted(os.listdir(mount.path("team/app"))), ["_blobs", "_digests", "_push", "_tags", "web"])
    lib.equal(os.listdir(mount.path("team/app/web/_tags")), ["2.0"])


def test_tags_are_links_and_cost_one_request(t):
    registry, _, mount = mounted(t)
    before = registry.count()
    tags = mount.path("team/app/_tags")
    listing = t.output("ls", "-l", "--color=always", tags)
    lib.equal(sorted(os.listdir(tags)), ["1.4", "1.5", "latest"])
    assert listing.count(" -> ") == 3, listing
    lib.equal(os.readlink(tags / "1.5"), "../../app:1.5")
    assert len(registry.requests("GET", "/tags/list")) == 1, registry.requests()
    assert registry.count() - before <= 5, registry.requests()


def test_find_above_images_fetches_none(t):
    registry, _, mount = mounted(t)
    t.run("find", mount.point)
    t.run("du", "-s", mount.point)
    lib.equal(registry.requests(path="/(manifests|blobs)/"), [])


def test_images_are_entered_by_name(t):
    _, pushed, mount = mounted(t)
    assert "app:1.5" not in os.listdir(mount.path("team"))
    for name in ("team/app:1.5", f"team/app@{pushed['1.5'].digest}", "team/app/_tags/1.5",
                 f"team/app/_digests/{pushed['1.5'].digest.replace(':', '-')}"):
        lib.equal(mount.path(name, "digest").read_text(), pushed["1.5"].digest + "\n")
        lib.equal(mount.path(name, "rootfs/app/version").read_text(), "1.5")
    lib.equal(mount.path("team/app:latest/digest").read_text(), pushed["1.5"].digest + "\n")
    lib.equal(mount.path("team/app/web:2.0/rootfs/app/version").read_text(), "2.0")


def test_what_is_not_there(t):
    _, pushed, mount = mounted(t)
    other = "sha256:" + "0" * 64
    for name in ("team/app:none", f"team/app@{other}", "team/app@sha256:12", "team/none:1", "none/_tags/1",
                 f"team/app/_digests/{other.replace(':', '-')}", "team/app/_tags/none", "Team", "team/app:1.5/none",
                 f"team/app/_blobs/sha256/{'0' * 64}", "team/app:1.5/rootfs/none", "team/app:1.5/rootfs/etc/old",
                 "team/app:1.5/layers/03", "team/app:-bad", "team/.git", "team/app/_blobs/md5"):
        with lib.fails(errno.ENOENT):
            os.stat(mount.path(name))
    with lib.fails(errno.ENOENT):
        os.listdir(mount.path("never/was/_tags"))
    with lib.fails(errno.ENOTDIR):
        os.stat(mount.path("team/app:1.5/rootfs/app/version/x"))
    assert pushed


# --- an image directory ---


def test_image_directory(t):
    _, pushed, mount = mounted(t)
    image = pushed["1.5"]
    here = mount.path("team/app:1.5")
    lib.equal(sorted(os.listdir(here)), ["config.json", "digest", "history", "image.tar", "layers",
                                         "manifest.json", "oci", "referrers", "rootfs"])
    lib.equal((here / "manifest.json").read_bytes(), image.manifest)
    lib.equal((here / "config.json").read_bytes(), image.config)
    history = (here / "history").read_text()
    lines = history.splitlines()
    assert "ADD base.tar /" in history and "COPY app 1.5" in history and "ENV x=y" in history, history
    assert len(lines) >= 3, history
    lib.equal(sorted(os.listdir(here / "layers")), ["01", "01.tar.gz", "02", "02.tar.gz"])
    lib.equal((here / "layers/01.tar.gz").read_bytes(), image.layers[0].blob)
    lib.equal((here / "layers/02.tar.gz").stat().st_size, len(image.layers[1].blob))
    lib.equal(sorted(os.listdir(here / "rootfs")), ["app", "etc", "noise", "usr"])
    lib.equal((here / "rootfs/noise").read_bytes(), sample.NOISE)
    for name in ("digest", "manifest.json", "config.json", "history", "layers/01.tar.gz", "image.tar"):
        st = (here / name).stat()
        assert stat.S_ISREG(st.st_mode), name
        lib.equal(len((here / name).read_bytes()), st.st_size, name)


def test_layers_as_stored(t):
    _, _, mount = mounted(t)
    layers = mount.path("team/app:1.5/layers")
    lib.equal(sorted(os.listdir(layers / "01")), ["etc", "noise", "usr"])
    lib.equal((layers / "01/etc/old").read_text(), "old")
    lib.equal(sorted(os.listdir(layers / "02")), ["app", "etc", "usr"])
    lib.equal(os.listdir(layers / "02/etc"), [".wh.old"])
    lib.equal((layers / "02/etc/.wh.old").stat().st_size, 0)


def test_layer_files_by_media_type(t):
    registry = t.registry()
    tar = sample.base_tar()
    oci.Image([oci.Layer(tar, "none"), oci.Layer(tar, "zstd"), oci.Layer(tar)]).push(registry, "a", "1")
    mount = t.mount(registry.host)
    lib.equal(sorted(os.listdir(mount.path("a:1/layers"))),
              ["01", "01.tar", "02", "02.tar.zst", "03", "03.tar.gz"])


def test_raw_blobs(t):
    _, pushed, mount = mounted(t)
    blob = pushed["1.5"].layers[0].blob
    digest = oci.sha256(blob)
    lib.equal(mount.path("team/app/_blobs/sha256", digest[7:]).read_bytes(), blob)
    lib.equal(sorted(os.listdir(mount.path("team/app/_blobs"))), ["sha256", "sha512"])
    # A blob of another repository is not this one's.
    alien = oci.sha256(pushed["solo"].layers[1].blob)
    with lib.fails(errno.ENOENT):
        os.stat(mount.path("team/app/_blobs/sha256", alien[7:]))


def test_attributes_that_answer(t):
    _, pushed, mount = mounted(t)
    here = mount.path("team/app:1.5")

    def ask(path, name):
        return os.getxattr(here / path, f"user.regfs.{name}").decode()

    lib.equal(ask("", "digest"), pushed["1.5"].digest)
    lib.equal(ask("", "media_type"), oci.MANIFEST)
    lib.equal(ask("rootfs/noise", "layer"), "1")
    lib.equal(ask("rootfs/usr/bin/tool", "layer"), "2")
    lib.equal(ask("rootfs/usr/bin/tool", "layer_digest"), oci.sha256(pushed["1.5"].layers[1].blob))
    lib.equal(ask("rootfs/usr/bin/tool", "created_by"), "COPY app 1.5")
    lib.equal(ask("rootfs/noise", "created_by"), "ADD base.tar /")
    lib.equal(ask("layers/01.tar.gz", "digest"), oci.sha256(pushed["1.5"].layers[0].blob))
    lib.equal(os.listxattr(here / "rootfs/usr/bin/tool"), [])
    with lib.fails(errno.ENODATA):
        os.getxattr(here / "rootfs/noise", "user.none")


def test_image_tar_is_loadable(t):
    _, pushed, mount = mounted(t)
    where = mount.path("team/app/_tags/1.5/image.tar")
    for transport in ("docker-archive", "oci-archive"):
        got = json.loads(t.skopeo("inspect", "--config", f"{transport}:{where}"))
        lib.equal(got["rootfs"], json.loads(pushed["1.5"].config)["rootfs"], transport)
    t.skopeo("copy", f"docker-archive:{where}", f"dir:{t.dir}/out")


def test_image_tar_at_any_offset(t):
    """It is not built first: its end can be read before its beginning was."""
    registry, _, mount = mounted(t)
    where = mount.path("team/app:1.5/image.tar")
    fd = os.open(where, os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        tail = os.pread(fd, 4096, size - 4096)
        lib.equal(tail[-1024:], bytes(1024))
        middle = os.pread(fd, 10000, size // 2 + 123)
        whole = where.read_bytes()
        lib.equal(len(whole), size)
        lib.equal(whole[-4096:], tail)
        lib.equal(whole[size // 2 + 123:][:10000], middle)
        lib.equal(os.pread(fd, 10, size + 5), b"")
    finally:
        os.close(fd)
    assert registry.count("GET", "/blobs/") > 0


def test_oci_layout(t):
    _, pushed, mount = mounted(t)
    where = mount.path("team/app/_tags/1.5/oci")
    lib.equal(t.output("skopeo", "inspect", "--format", "{{.Digest}}", f"oci:{where}").strip(),
              pushed["1.5"].digest)
    t.run("cp", "-r", where, t.dir / "copy")
    lib.equal((t.dir / "copy/blobs/sha256" / pushed["1.5"].digest[7:]).read_bytes(), pushed["1.5"].manifest)
    t.skopeo("copy", f"oci:{t.dir}/copy", f"dir:{t.dir}/out")


def test_history_and_times(t):
    _, _, mount = mounted(t)
    root = mount.path("team/app:1.5/rootfs").stat()
    lib.equal((stat.S_IMODE(root.st_mode), root.st_uid, root.st_gid), (0o755, 0, 0))
    lib.equal(root.st_mtime_ns, oci.CREATED_NS)


def test_platforms(t):
    registry = t.registry()
    children = {arch: oci.Image([oci.Layer(sample.top_tar(arch))], {"architecture": arch.split("/")[0]})
                for arch in ("amd64", "arm64/v8", "s390x")}
    platforms = []
    for arch, image in children.items():
        name, _, variant = arch.partition("/")
        platforms.append((image, {"os": "linux", "architecture": name} | ({"variant": variant} if variant else {})))
    attestation = oci.Image([oci.Layer(sample.top_tar("attest"))])
    platforms.append((attestation, {"os": "unknown", "architecture": "unknown"}))
    index = oci.make_index(platforms, registry, "multi", "1")
    mount = t.mount(registry.host, platform="linux/arm64/v8")
    here = mount.path("multi:1")
    lib.equal(sorted(os.listdir(here / "platforms")), ["linux-amd64", "linux-arm64-v8", "linux-s390x"])
    lib.equal((here / "manifest.json").read_bytes(), index)
    lib.equal((here / "digest").read_text().strip(), oci.sha256(index))
    lib.equal((here / "rootfs/app/version").read_text(), "arm64/v8")
    lib.equal((here / "config.json").read_bytes(), children["arm64/v8"].config)
    lib.equal((here / "platforms/linux-s390x/rootfs/app/version").read_text(), "s390x")
    absent = t.mount(registry.host, platform="linux/riscv64").path("multi:1")
    lib.equal({"rootfs", "config.json", "layers", "history"} & set(os.listdir(absent)), set())
    lib.equal(len(os.listdir(absent / "platforms")), 3)
    with lib.fails(errno.ENOENT):
        os.stat(absent / "rootfs")


# --- what it costs ---


def test_entering_costs_the_manifest_and_config(t):
    registry, pushed, mount = mounted(t)
    t.run("ls", "-l", mount.path("team/app:1.5"))
    os.listdir(mount.path("team/app:1.5/layers"))
    lib.equal({path for _, path, _, _ in registry.requests(path="/blobs/")} -
              {f"/v2/team/app/blobs/{oci.sha256(pushed['1.5'].config)}"}, set())
    assert 1 <= registry.count(path="/manifests/") <= 2, registry.requests()


def test_a_file_costs_the_layers_that_decide_it(t):
    registry, pushed, mount = mounted(t)
    base = oci.sha256(pushed["1.5"].layers[0].blob)
    lib.equal(mount.path("team/app:1.5/rootfs/app/version").read_text(), "1.5")
    lib.equal(registry.requests(path=f"/blobs/{base}"), [], "the top layer decides it")
    lib.equal(mount.path("team/app:1.5/rootfs/etc/os-release").read_bytes(), sample.OS_RELEASE)
    lib.equal(registry.count("GET", f"/blobs/{base}"), 1)


def test_warm_and_after_a_remount(t):
    registry, _, mount = mounted(t)
    first = tree.read(mount.path("team/app:1.5/rootfs"))
    blobs = registry.count(path="/blobs/")
    lib.equal(tree.read(mount.path("team/app:1.5/rootfs")), first)
    mount.restart()
    lib.equal(tree.read(mount.path("team/app:1.5/rootfs")), first)
    lib.equal(registry.count(path="/blobs/"), blobs, "blobs asked for again")


def test_layers_are_shared(t):
    registry, pushed, mount = mounted(t)
    base = oci.sha256(pushed["1.5"].layers[0].blob)
    for tag in ("1.4", "1.5", "latest"):
        lib.equal(mount.path(f"team/app:{tag}/rootfs/noise").read_bytes(), sample.NOISE)
    lib.equal(registry.count("GET", f"/blobs/{base}"), 1)


def test_inode_numbers_are_stable(t):
    _, _, mount = mounted(t)

    def numbers():
        root = mount.path("team/app:1.5/rootfs")
        found = {path: os.lstat(os.path.join(os.fsencode(root), path)).st_ino
                 for path in tree.walk(os.fsencode(root))}
        for name in ("team/app:1.5", "team/app:1.5/manifest.json", "team/app/_tags", "team"):
            found[name] = mount.path(name).stat().st_ino
        return found

    first = numbers()
    lib.equal(len(set(first.values())), len(first))
    mount.restart()
    lib.equal(numbers(), first)


def test_statfs_and_root_need_no_network(t):
    registry, _, mount = mounted(t)
    before = registry.count()
    os.statvfs(mount.point)
    os.stat(mount.point)
    os.stat(mount.path("_regfs"))
    lib.equal(registry.count(), before)


def test_many_readers_cause_one_request(t):
    registry, pushed, mount = mounted(t)
    processes = [t.start("cat", mount.path("team/app:1.5/rootfs/noise")) for _ in range(8)]
    for process in processes:
        lib.equal(process.wait(), 0)
        lib.equal(process.log.read_bytes(), sample.NOISE)
    base = oci.sha256(pushed["1.5"].layers[0].blob)
    lib.equal(registry.count("GET", f"/blobs/{base}"), 1)


def test_directories_can_be_read_on(t):
    """A listing longer than one call of the kernel, and from a position in the middle."""
    registry = t.registry()
    tar = sample.Tar()
    names = [f"file-with-a-rather-long-name-{number:05}" for number in range(5000)]
    for name in names:
        tar.file(name, "x")
    oci.Image([oci.Layer(tar.end())]).push(registry, "many", "1")
    mount = t.mount(registry.host)
    lib.equal(sorted(os.listdir(mount.path("many:1/rootfs"))), names)
    script = ("import ctypes, sys\n"
              "c = ctypes.CDLL(None, use_errno=True)\n"
              "c.opendir.restype = c.readdir.restype = ctypes.c_void_p\n"
              "c.readdir.argtypes = c.telldir.argtypes = [ctypes.c_void_p]\n"
              "c.telldir.restype = ctypes.c_long\n"
              "c.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]\n"
              "name = lambda entry: ctypes.string_at(entry + 19)\n"
              "d = c.opendir(sys.argv[1].encode())\n"
              "seen = []\n"
              "while True:\n"
              "    at = c.telldir(d)\n"
              "    entry = c.readdir(d)\n"
              "    if not entry: break\n"
              "    seen.append((at, name(entry)))\n"
              "for at, what in seen[::487]:\n"
              "    c.seekdir(d, at)\n"
              "    assert name(c.readdir(d)) == what, what\n"
              "print(len(seen))\n")
    got = t.output(lib.sys.executable, "-c", script, mount.path("many:1/rootfs"))
    lib.equal(got.strip(), "5002")


# --- names change, digests do not ---


def test_a_moved_tag_is_seen(t):
    registry, _, mount = mounted(t, tag_ttl=1)
    version = mount.path("team/app:1.5/rootfs/app/version")
    lib.equal(version.read_text(), "1.5")
    sample.image("1.5.1").push(registry, "team/app", "1.5")
    lib.wait_for(lambda: version.read_text() == "1.5.1", "the tag's new image")
    sample.image("9").push(registry, "team/app", "new")
    lib.wait_for(lambda: "new" in os.listdir(mount.path("team/app/_tags")), "the new tag")


def test_an_open_file_stays_what_it_was(t):
    registry, _, mount = mounted(t, tag_ttl=1)
    path = mount.path("team/app:1.5/rootfs/app/version")
    with open(path, encoding="utf-8") as file:
        sample.image("1.5.1").push(registry, "team/app", "1.5")
        lib.wait_for(lambda: path.read_text() == "1.5.1", "the tag's new image")
        lib.equal(file.read(), "1.5")


def test_without_a_catalogue(t):
    """A registry that refuses _catalog: names can be entered, and are listed once they were right."""
    registry = t.bad_registry()
    sample.push_all(registry)
    registry.rule("GET", r"/v2/_catalog", status=404)
    mount = t.mount(registry.host)
    assert "team" not in os.listdir(mount.point)
    lib.equal(mount.path("team/app:1.5/rootfs/app/version").read_text(), "1.5")
    lib.equal(sorted(os.listdir(mount.path("team/app/_tags"))), ["1.4", "1.5", "latest"])
    assert "team" in os.listdir(mount.point)


# --- sources ---


def test_source_is_an_image(t):
    registry = t.registry()
    sample.push_all(registry)
    mount = t.mount(f"{registry.host}/team/app:1.5", tag_ttl=1)
    lib.equal(mount.path("rootfs/app/version").read_text(), "1.5")
    sample.image("other").push(registry, "team/app", "1.5")
    mount.restart()
    lib.equal(mount.path("rootfs/app/version").read_text(), "other")


def test_source_image_is_pinned(t):
    registry = t.registry()
    pushed = sample.push_all(registry)
    mount = t.mount(f"{registry.host}/team/app:1.5", tag_ttl=0)
    lib.equal(mount.path("digest").read_text().strip(), pushed["1.5"].digest)
    sample.image("other").push(registry, "team/app", "1.5")
    lib.equal(mount.path("rootfs/app/version").read_text(), "1.5")
    lib.equal(mount.path("digest").read_text().strip(), pushed["1.5"].digest)


def test_source_is_an_image_by_digest(t):
    registry = t.registry()
    pushed = sample.push_all(registry)
    mount = t.mount(f"{registry.host}/team/app@{pushed['1.4'].digest}")
    lib.equal(mount.path("rootfs/app/version").read_text(), "1.4")


def test_source_with_a_scheme(t):
    registry = t.registry()
    sample.push_all(registry)
    mount = t.mount(f"http://{registry.host}")
    lib.equal(mount.path("solo:1/rootfs/app/version").read_text(), "solo")


def test_local_store(t):
    """A layout that skopeo wrote beside the mount; what is deleted there goes here."""
    registry = t.registry()
    pushed = sample.push_all(registry)
    (t.dir / "store/team").mkdir(parents=True)
    pushed["1.5"].write_layout(t.dir / "store/team/app", "1.5")
    mount = t.mount("local", tag_ttl=0)
    assert "team" in os.listdir(mount.point)
    lib.equal(os.listdir(mount.path("team/app/_tags")), ["1.5"])
    lib.equal(mount.path("team/app:1.5/rootfs/app/version").read_text(), "1.5")
    t.skopeo("copy", "--src-tls-verify=false", f"docker://{registry.host}/team/app:1.4",
             f"oci:{t.dir}/store/team/app:1.4")
    lib.wait_for(lambda: set(os.listdir(mount.path("team/app/_tags"))) == {"1.4", "1.5"}, "the new tag")
    lib.equal(mount.path("team/app:1.4/rootfs/app/version").read_text(), "1.4")


# --- read-only ---


def write(path, flags):
    fd = os.open(path, os.O_WRONLY | flags)
    try:
        os.write(fd, b"other")
    finally:
        os.close(fd)


def test_everything_else_is_read_only(t):
    _, pushed, mount = mounted(t)
    here = mount.path("team/app:1.5")
    for path in ("rootfs/new", "new", "layers/new"):
        with lib.fails(errno.EROFS):
            os.close(os.open(here / path, os.O_WRONLY | os.O_CREAT))
    for path, expected in (("manifest.json", pushed["1.5"].manifest), ("rootfs/noise", sample.NOISE)):
        for flags in (0, os.O_TRUNC, os.O_APPEND):
            # The kernel may let it be opened; what is written must be refused and leave no trace.
            with lib.fails(errno.EROFS):
                write(here / path, flags)
            lib.equal((here / path).stat().st_size, len(expected), f"size after {flags:o}")
            lib.equal((here / path).read_bytes(), expected, f"bytes after {flags:o}")
    for what, action in {
            "unlink": lambda: os.unlink(here / "rootfs/noise"), "mkdir": lambda: os.mkdir(here / "rootfs/dir"),
            "chmod": lambda: os.chmod(here / "rootfs/noise", 0o600),
            "truncate": lambda: os.truncate(here / "digest", 0),
            "rename": lambda: os.rename(here / "digest", here / "other"),
            "utime": lambda: os.utime(here / "rootfs/noise"), "rmdir": lambda: os.rmdir(here / "rootfs/app"),
            "symlink": lambda: os.symlink("x", here / "rootfs/l"), "mkfifo": lambda: os.mkfifo(here / "p"),
            "link": lambda: os.link(here / "digest", here / "hard"),
            "setxattr": lambda: os.setxattr(here, "user.x", b"y")}.items():
        print(what)
        with lib.fails(errno.EROFS):
            action()


# --- _regfs ---


def test_regfs_directory(t):
    _, _, mount = mounted(t)
    lib.equal(mount.path("team/app:1.5/rootfs/app/version").read_text(), "1.5")
    names = set(os.listdir(mount.path("_regfs")))
    assert {"version", "stats.json", "metrics", "log", "pushes"} <= names, names
    assert mount.path("_regfs/version").read_text().strip()
    assert mount.stats()["http_requests"] >= 3, mount.stats()
    metrics = mount.path("_regfs/metrics").read_text()
    assert "http_requests" in metrics, metrics
    gauges = set(re.findall(r"^# TYPE regfs_(\w+) gauge$", metrics, re.M))
    lib.equal(gauges, {"http_now", "fuse_waiting_now", "passthrough_now", "cache_limit_bytes",
                       "cache_used_bytes"})
    counters = set(re.findall(r"^# TYPE regfs_(\w+) counter$", metrics, re.M))
    assert {"http_requests", "http_bytes_in", "pass_bytes"} <= counters, counters
    status = t.output(lib.REGFS, "status", mount.point)
    assert str(mount.point) in status, status
    assert pathlib.Path(t.dir, "cache").stat().st_mode & 0o777 == 0o700


def test_counters_read_slowly(t):
    """Who asks whether there is more gets none of a text that became longer meanwhile."""
    mount = t.mount("local")
    for name in ("stats.json", "metrics"):
        path = mount.path("_regfs", name)
        slow = os.open(path, os.O_RDONLY)
        try:
            first = os.read(slow, 1 << 20)
            digits = sum(char.isdigit() for char in first.decode())

            def longer():
                path.parent.joinpath("version").read_text()
                return sum(char.isdigit() for char in path.read_text()) > digits

            lib.wait_for(longer, "a counter of one more digit")
            lib.equal(os.read(slow, 1 << 20), b"")
        finally:
            os.close(slow)
