# SPDX-License-Identifier: Apache-2.0
"""Real images: a Debian with python3 and gcc on it, made once and kept under build/images.

Six layers by mmdebstrap and umoci: the base, python3, gcc, then deletions, replacements and
additions such as builds have; stored as gzip, zstd and plain; pushed by skopeo into the
storage of a docker-registry. Beside them the tree that umoci unpacks. Must not know regfs.
"""
import fcntl
import gzip
import hashlib
import json
import os
import pathlib
import pickle
import shutil
import subprocess
import tempfile

import layers
import lib
import tree

KINDS = ("gzip", "zstd", "plain")
PLACE = lib.ROOT / "build/images"


class Debian:
    """The images of one place: layouts (an OCI layout each), storage, and the tree of all."""

    def __init__(self, place):
        self.place = pathlib.Path(place)

    def layout(self, kind):
        return self.place / kind

    @property
    def storage(self):
        """Of a docker-registry that has debian:gzip, debian:zstd and debian:plain. Not to be written to."""
        return self.place / "storage"

    def tree(self):
        with open(self.place / "tree.pickle", "rb") as file:
            return pickle.load(file)


def debian():
    """The images, made now if they are not there."""
    lib.need_root()
    lib.need("mmdebstrap", "umoci", "skopeo", "docker-registry", "zstd", "tar")
    PLACE.mkdir(parents=True, exist_ok=True)
    version = hashlib.sha256(pathlib.Path(__file__).read_bytes()).hexdigest()[:12]
    place = PLACE / f"debian-{version}"
    with open(PLACE / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two tests may come here at once
        if not place.exists():
            # Others than this, and what a making that was killed has left.
            for old in [*PLACE.glob("debian-*"), *PLACE.glob("tmp*")]:
                shutil.rmtree(old)
            with tempfile.TemporaryDirectory(dir=PLACE) as scratch:
                make(pathlib.Path(scratch))
                (pathlib.Path(scratch) / "result").rename(place)
    return Debian(place)


def run(*argv, **options):
    argv = [str(arg) for arg in argv]
    ended = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, check=False, **options)
    if ended.returncode != 0:
        raise AssertionError(f"{' '.join(argv)}:\n{ended.stdout.decode(errors='replace')[-4000:]}")


def make(scratch):
    result = scratch / "result"
    result.mkdir()
    snapshots = debootstrap(scratch)
    build(scratch, result / "gzip", snapshots)
    for kind in KINDS[1:]:
        convert(result / "gzip", result / kind, kind)
    run("umoci", "unpack", "--image", f"{result}/gzip:latest", scratch / "unpacked")
    with open(result / "tree.pickle", "wb") as file:
        pickle.dump(tree.read(scratch / "unpacked/rootfs"), file)
    registry = lib.Registry(scratch / "registry", result / "storage")
    try:
        for kind in KINDS:
            run("skopeo", "--insecure-policy", "copy", "--preserve-digests", "--dest-tls-verify=false",
                f"oci:{result / kind}:latest", f"docker://{registry.host}/debian:{kind}")
    finally:
        registry.stop()


def debootstrap(scratch):
    """Tar files of one root after three installations, from where this machine has its packages."""
    release = dict(line.rstrip().split("=", 1) for line in open("/etc/os-release", encoding="utf-8")
                   if "=" in line)
    suite = release.get("VERSION_CODENAME", "").strip('"')
    if release.get("ID") not in ("debian", "ubuntu"):
        raise lib.Skip("not a Debian")
    sources = [path for path in ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list",
                                 "/etc/apt/sources.list.d/ubuntu.sources")
               if os.path.exists(path) and os.path.getsize(path)]
    snapshots = [scratch / f"{name}.tar" for name in ("base", "python3", "gcc")]
    hooks = []
    for snapshot, packages in zip(snapshots, ([], ["python3"], ["gcc", "libc6-dev"])):
        if packages:
            hooks.append('chroot "$1" apt-get install -y -q --no-install-recommends ' + " ".join(packages))
        hooks.append(f'tar -C "$1" --one-file-system --numeric-owner --xattrs --xattrs-include="*" '
                     f'--exclude=./dev --exclude=./proc --exclude=./sys '
                     f'--exclude="./var/lib/apt/lists/*" --exclude="./var/cache/apt/*" -cf "{snapshot}" .')
    run("mmdebstrap", "--variant=minbase", "--format=null", "--dpkgopt=force-unsafe-io",
        *[f"--customize-hook={hook}" for hook in hooks], suite, os.devnull, *sources[:1])
    return snapshots


def build(scratch, layout, snapshots):
    """The image in LAYOUT: a layer for each snapshot, and for each edit below."""
    bundle = scratch / "bundle"
    root = bundle / "rootfs"
    image = f"{layout}:latest"
    run("umoci", "init", "--layout", layout)
    run("umoci", "new", "--image", image)
    run("umoci", "unpack", "--image", image, bundle)

    def repack(what):
        run("umoci", "repack", "--refresh-bundle", "--history.created_by", what, "--image", image, bundle)

    for snapshot in snapshots:
        for child in root.iterdir():
            remove(child)
        run("tar", "-C", root, "--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf", snapshot)
        snapshot.unlink()
        repack(f"install {snapshot.stem}")
    for edit in (delete_and_replace, add_odd_files, replace_back):
        edit(root)
        repack(edit.__name__)


def remove(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def delete_and_replace(root):
    """A directory gone, one replaced by a file and one by a link, a file by a directory, a link by a file."""
    shutil.rmtree(root / "usr/share/man")
    for path in sorted((root / "usr/share/doc").iterdir())[::2]:
        remove(path)
    shutil.rmtree(root / "usr/share/locale")
    (root / "usr/share/locale").write_text("all languages are gone\n")
    shutil.rmtree(root / "usr/share/info", ignore_errors=True)
    (root / "usr/share/info").symlink_to("doc")
    (root / "etc/issue").unlink()
    (root / "etc/issue").mkdir()
    (root / "etc/issue/one").write_text("1\n")
    (root / "etc/localtime").unlink(missing_ok=True)
    (root / "etc/localtime").write_text("no time\n")
    os.chmod(root / "usr/bin/gcc-12" if (root / "usr/bin/gcc-12").exists() else root / "usr/bin/env", 0o700)
    os.chmod(root / "usr/lib", 0o711)


def add_odd_files(root):
    """What real trees have beside plain files."""
    app = root / "app"
    app.mkdir(mode=0o2775)
    shutil.copy2(root / "usr/bin/env", app / "tool")
    os.setxattr(app / "tool", "security.capability", layers.capability(1 << 13))
    os.link(app / "tool", root / "usr/local/bin/tool")
    os.chmod(root / "usr/bin/mount", 0o755)
    (app / "data").write_bytes(bytes(range(256)) * 4096)
    os.setxattr(app / "data", "user.origin", b"\x00\xffbuild")
    os.chown(app / "data", 1000, 1000)
    with open(app / "sparse", "wb") as file:
        file.truncate(50 << 20)
        file.seek(20 << 20)
        file.write(b"in the middle" * 1000)
    deep = app
    for number in range(12):
        deep = deep / (f"{number:02}" * 15)
        deep.mkdir()
    (deep / ("n" * 255)).write_text("deep\n")
    (app / os.fsdecode(b"caf\xe9")).write_text("latin\n")
    (app / "dangling").symlink_to("/nowhere/" + "x" * 150)
    os.mkfifo(app / "fifo")
    os.mknod(app / "zero", 0o20666, os.makedev(1, 5))
    for number in range(20000):
        (app / f"small{number % 10}").mkdir(exist_ok=True)
        (app / f"small{number % 10}" / f"file{number}").write_text(f"{number}\n")
    os.utime(app / "data", ns=(1, 1234567890123456789))


def replace_back(root):
    """What was replaced is a directory and a file again, and a part of the application goes."""
    (root / "usr/share/locale").unlink()
    (root / "usr/share/locale").mkdir()
    (root / "usr/share/locale/new").write_text("one language\n")
    shutil.rmtree(root / "etc/issue")
    (root / "etc/issue").write_text("Debian, again\n")
    for number in range(0, 10, 2):
        shutil.rmtree(root / f"app/small{number}")
    (root / "app/small1/file1").write_text("changed\n")
    (root / "usr/local/bin/tool").unlink()
    os.chown(root / "app", 33, 33)


def convert(source, target, kind):
    """Copies the OCI layout SOURCE with its layers stored anew, as KIND."""
    (target / "blobs/sha256").mkdir(parents=True)
    shutil.copy(source / "oci-layout", target)
    index = json.loads((source / "index.json").read_bytes())

    def blob(where, digest):
        return where / "blobs/sha256" / digest.removeprefix("sha256:")

    def put(data):
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        blob(target, digest).write_bytes(data)
        return {"digest": digest, "size": len(data)}

    for entry in index["manifests"]:
        manifest = json.loads(blob(source, entry["digest"]).read_bytes())
        put(blob(source, manifest["config"]["digest"]).read_bytes())
        for layer in manifest["layers"]:
            data = gzip.decompress(blob(source, layer["digest"]).read_bytes())
            if kind == "zstd":
                data = subprocess.run(["zstd", "-q", "-c", "-3"], input=data, check=True,
                                      stdout=subprocess.PIPE).stdout
            layer.update(put(data))
            layer["mediaType"] = layer["mediaType"].removesuffix("+gzip") + ("+zstd" if kind == "zstd" else "")
        entry.update(put(json.dumps(manifest).encode()))
    (target / "index.json").write_text(json.dumps(index))
