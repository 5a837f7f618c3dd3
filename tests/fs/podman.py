# SPDX-License-Identifier: Apache-2.0
"""A podman with a storage of its own in a test's directory.

Knows podman and its storage. Must not know regfs.
"""
import json
import shutil

import lib


class Podman:
    """STORES are additional layer stores, as storage.conf(5) has them."""

    def __init__(self, t, stores=()):
        lib.need_root()
        lib.need("podman", "runc")
        self.t = t
        self.place = t.dir / t.name("podman")
        self.place.mkdir()
        self.conf = self.place / "storage.conf"
        self.conf.write_text(f"""[storage]
driver = "overlay"
graphroot = "{self.place}/root"
runroot = "{self.place}/run"
[storage.options]
additionallayerstores = {json.dumps([str(store) for store in stores])}
[storage.options.overlay]
mountopt = "xino=on"
""")
        policy = {"default": [{"type": "insecureAcceptAnything"}]}
        (self.place / "policy.json").write_text(json.dumps(policy))
        t.stack.callback(self.clean)
        said = self.run("images", "-q", status=None)
        if said.returncode != 0:
            raise lib.Skip(f"podman has no overlay here: {said.stderr.decode()[-200:]}")

    def argv(self, *args):
        return ["env", f"CONTAINERS_STORAGE_CONF={self.conf}", shutil.which("podman"), "--tmpdir", str(self.place / "tmp"),
                "--events-backend", "none", "--cgroup-manager", "cgroupfs", "--runtime", "runc", *args]

    def run(self, *args, **options):
        return self.t.run(*self.argv(*args), **options)

    def output(self, *args, **options):
        return self.run(*args, **options).stdout.decode(errors="surrogateescape")

    def pull(self, name):
        """What it said beside the image's id."""
        return self.run("pull", "-q", "--tls-verify=false", "--signature-policy", self.place / "policy.json",
                        name).stderr.decode()

    @staticmethod
    def in_container(*options):
        """The arguments of `podman run`, with limits that a sandbox can have."""
        return ("run", "--rm", "--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024",
                *options)

    def clean(self):
        # The storage keeps its own directory mounted on itself.
        while points := lib.mounts_under(self.place):
            self.t.run("umount", points[0])
