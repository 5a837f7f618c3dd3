# SPDX-License-Identifier: Apache-2.0
"""A small image with a file for each question, for the tests of browsing, pushing and errors."""
import random

import oci
from tarfiles import Tar

OS_RELEASE = b"ID=sample\nPRETTY_NAME=Sample\n"
# Does not compress, so that a layer with it is as large as it looks.
NOISE = random.Random(1).randbytes(600_000)


def base_tar():
    return (Tar().dir("etc").file("etc/os-release", OS_RELEASE).file("etc/old", "old")
            .dir("usr").dir("usr/bin").file("usr/bin/tool", "#!/bin/sh\necho base\n", mode=0o755)
            .file("noise", NOISE).end())


def top_tar(version):
    return (Tar().dir("app").file("app/version", version).file("usr/bin/tool", f"#!/bin/sh\necho {version}\n",
                                                               mode=0o755).whiteout("etc/old").end())


def image(version="1.5", **options):
    """Two layers: a base that all versions share, and one of its own."""
    return oci.Image([oci.Layer(base_tar()), oci.Layer(top_tar(version))], {
        "config": {"Cmd": ["/usr/bin/tool"], "Env": ["PATH=/usr/bin"]},
        "history": [{"created": oci.CREATED, "created_by": "ADD base.tar /"},
                    {"created": oci.CREATED, "created_by": "ENV x=y", "empty_layer": True},
                    {"created": oci.CREATED, "created_by": f"COPY app {version}"}],
    }, **options)


def push_all(registry):
    """team/app:1.4, :1.5 and :latest, the nested team/app/web:2.0, and solo:1."""
    pushed = {version: image(version).push(registry, "team/app", version) for version in ("1.4", "1.5")}
    pushed["1.5"].push(registry, "team/app", "latest")
    pushed["web"] = image("2.0").push(registry, "team/app/web", "2.0")
    pushed["solo"] = image("solo").push(registry, "solo", "1")
    registry.forget()
    return pushed
