# SPDX-License-Identifier: Apache-2.0
"""A containerd of a test's own, for ctr-remote, which makes the lazy formats. Must not know regfs."""
import contextlib
import json

import lib


@contextlib.contextmanager
def containerd(t):
    """A containerd of the test's own; gives a function that runs ctr-remote beside it."""
    lib.need("containerd", "ctr-remote", "skopeo")
    lib.need_root()
    socket = t.dir / "containerd.sock"
    config = t.dir / "containerd.toml"
    plugins = ["grpc.v1.cri", "snapshotter.v1.btrfs", "snapshotter.v1.zfs", "snapshotter.v1.devmapper", "snapshotter.v1.aufs"]
    config.write_text(f"""version = 2
root = "{t.dir}/containerd"
state = "{t.dir}/containerd-state"
disabled_plugins = {json.dumps(["io.containerd." + plugin for plugin in plugins])}
[grpc]
address = "{socket}"
[ttrpc]
address = "{socket}.ttrpc"
""")
    process = t.start("containerd", "-c", config)
    lib.wait_for(lambda: t.run("ctr-remote", "-a", socket, "version", status=None).returncode == 0, "containerd")
    yield lambda *args: t.output("ctr-remote", "-a", socket, *args)
    process.stop()
