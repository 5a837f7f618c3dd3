# SPDX-License-Identifier: Apache-2.0
"""The Debian of tests/fs/images.py in the formats that are read in place, as ctr-remote writes them; made
once and kept under build/images.

Knows ctr-remote and skopeo. Must not know what reads them.
"""
import shutil

from containerd import containerd
import images

FORMATS = {"estargz": "--estargz", "zstdchunked": "--zstdchunked"}


def storage(test):
    """Of a docker-registry that has debian:estargz and debian:zstdchunked. Not to be written to."""
    debian = images.debian()
    place = images.PLACE / f"lazy-{debian.place.name}"
    if not place.exists():
        for old in images.PLACE.glob("lazy-*"):
            shutil.rmtree(old)
        scratch = images.PLACE / "tmp-lazy"
        shutil.rmtree(scratch, ignore_errors=True)
        make(test, debian, scratch)
        scratch.rename(place)
    return place


def make(test, debian, place):
    archive = test.dir / "debian.tar"
    test.skopeo("copy", "-q", f"oci:{debian.layout('gzip')}:latest", f"oci-archive:{archive}:example.com/debian:gzip")
    registry = test.registry(storage=place)
    with containerd(test) as ctr:
        ctr("image", "import", "--no-unpack", archive)
        [name] = ctr("image", "ls", "-q").split()
        for tag, option in FORMATS.items():
            ctr("image", "convert", "--oci", option, name, f"example.com/debian:{tag}")
            ctr("image", "export", archive, f"example.com/debian:{tag}")
            test.skopeo("copy", "-q", "--preserve-digests", "--dest-tls-verify=false", f"oci-archive:{archive}",
                        f"docker://{registry.host}/debian:{tag}")
    registry.stop()
    archive.unlink()
