# SPDX-License-Identifier: Apache-2.0
"""The image whose start is measured: a Debian with python3, what sciences and builds use, and a service on top; about
500 MB. Stored as plain gzip, as eStargz and as zstd:chunked (by ctr-remote), in the storage of one
docker-registry; made once and kept under build/images.

Knows mmdebstrap, tar and ctr-remote. Must not know what reads it.
"""
import hashlib
import io
import json
import pathlib
import shutil
import subprocess
import tarfile

from containerd import containerd
import images
import lib
import oci

RECIPE = 1  # to be counted up when the code below makes another image of the same lists
FORMATS = {"estargz": "--estargz", "zstdchunked": "--zstdchunked"}
# What each layer installs over the one before.
INSTALLED = {"base": [], "python3": ["python3", "ca-certificates"],
             "sciences": ["python3-numpy", "python3-pandas", "python3-requests"],
             "builds": ["gcc", "make", "libc6-dev"]}
# All of a root but what belongs to this machine or to apt.
LEFT_OUT = ("./dev", "./proc", "./sys", "./var/lib/apt/lists/*", "./var/cache/apt/*", "./tmp/*")


def storage(test):
    """Of a docker-registry that has service:gzip and service:FORMAT. Not to be written to."""
    for program in ("mmdebstrap", "tar", "docker-registry"):
        lib.need(program)
    version = hashlib.sha256(repr((RECIPE, INSTALLED, FORMATS, LEFT_OUT)).encode()).hexdigest()[:12]
    place = images.PLACE / f"service-{version}"
    if not place.exists():
        for old in images.PLACE.glob("service-*"):
            shutil.rmtree(old)
        scratch = images.PLACE / f"service-tmp-{version}"
        make(test, scratch)
        scratch.rename(place)
    return place


def make(test, place):
    print("  the image is made, which takes some minutes", flush=True)
    image = oci.Image([oci.Layer(tar) for tar in layers(test.dir)])
    registry = test.registry(storage=place)
    image.push(registry, "service", "gzip")
    convert(test, registry, "service", FORMATS)
    registry.stop()


def convert(test, registry, repository, formats):
    """REPOSITORY:gzip of a registry, stored anew as ctr-remote writes it; {tag: its layers' digests}."""
    archive = test.dir / "converted.tar"
    name = f"example.com/{repository}"
    test.skopeo("copy", "-q", "--src-tls-verify=false", f"docker://{registry.host}/{repository}:gzip",
                f"oci-archive:{archive}:{name}:gzip")
    made = {}
    with containerd(test) as ctr:
        ctr("image", "import", "--no-unpack", archive)
        [source] = ctr("image", "ls", "-q").split()
        for tag, option in formats.items():
            archive.unlink()
            ctr("image", "convert", "--oci", option, source, f"{name}:{tag}")
            ctr("image", "export", archive, f"{name}:{tag}")
            test.skopeo("copy", "-q", "--preserve-digests", "--dest-tls-verify=false", f"oci-archive:{archive}",
                        f"docker://{registry.host}/{repository}:{tag}")
            made[tag] = layer_digests(registry, repository, tag)
    archive.unlink()
    return made


def layer_digests(registry, repository, tag):
    """Bottom first."""
    manifest = registry.request("GET", f"/v2/{repository}/manifests/{tag}", None, {"Accept": oci.MANIFEST})[2]
    return [layer["digest"] for layer in json.loads(manifest)["layers"]]


def layers(scratch):
    """The tar of each layer: what its installation has changed, and the service."""
    before = {}
    for snapshot in snapshots(scratch):
        with tarfile.open(snapshot) as tar:
            members = {member.name: member for member in tar.getmembers()}
            changed = [member for name, member in members.items() if traits(member) != before.get(name)]
            yield pack(tar, changed)
        before = {name: traits(member) for name, member in members.items()}
        snapshot.unlink()
    yield application()


def traits(member):
    return (member.type, member.mode, member.uid, member.gid, member.size, member.mtime, member.linkname)


def pack(source, members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for member in members:
            tar.addfile(member, source.extractfile(member) if member.isreg() else None)
    return out.getvalue()


def application():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(40):
            text = f'"""Part {number}."""\n'.encode() * 200
            member = tarfile.TarInfo(f"./app/service/part{number}.py")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
    return out.getvalue()


def snapshots(scratch):
    """Tar files of one root after each of the installations, from where this machine has its packages."""
    release = pathlib.Path("/etc/os-release").read_text(encoding="utf-8")
    suite = next(line.split("=")[1].strip('"') for line in release.splitlines() if line.startswith("VERSION_CODENAME="))
    sources = pathlib.Path("/etc/apt/sources.list.d/debian.sources")
    taken = [scratch / f"{name}.tar" for name in INSTALLED]
    hooks = []
    for snapshot, packages in zip(taken, INSTALLED.values()):
        if packages:
            hooks.append('chroot "$1" apt-get install -y -q --no-install-recommends ' + " ".join(packages))
        left_out = " ".join(f'--exclude="{path}"' for path in LEFT_OUT)
        hooks.append(f'tar -C "$1" --one-file-system --numeric-owner {left_out} -cf "{snapshot}" .')
    command = ["mmdebstrap", "--variant=minbase", "--format=null", "--dpkgopt=force-unsafe-io",
               *[f"--customize-hook={hook}" for hook in hooks], suite, "/dev/null"]
    if sources.exists():
        command.append(str(sources))
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return taken
