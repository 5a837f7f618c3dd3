# SPDX-License-Identifier: Apache-2.0
"""What is agreed with the kernel: which requests are made at all, and how large they are."""
import errno
import os
import pathlib
import re

import lib
import oci
from tarfiles import Tar


def push_files(registry, count=8, size=3000):
    tar = Tar()
    for number in range(count):
        tar.file(f"f{number}", bytes([number]) * size)
    oci.Image([oci.Layer(tar.end(), "gzip")]).push(registry, "app", "1")


def requests(mount):
    """The operations that libfuse has seen of this process, by its debugging output."""
    return re.findall(rf"opcode: (\w+) .*pid: {os.getpid()}\b", mount.output())


def requests_of_warm_reads(mount, rootfs):
    """Those for opening, reading and closing what is in the page cache, eight files thrice."""
    os.listdir(rootfs)
    for turn in range(4):
        for number in range(8):
            fd = os.open(rootfs / f"f{number}", os.O_RDONLY)  # open() asks whether it is a terminal
            lib.equal(os.read(fd, 4000), bytes([number]) * 3000)
            os.close(fd)
        if turn == 0:
            before = len(requests(mount))
    return requests(mount)[before:]


def test_warm_files_cost_no_request(t):
    registry = t.registry()
    push_files(registry)
    # An image alone, or what is read-only: nothing is ever pushed.
    image = t.mount(f"{registry.host}/app:1", "-d")
    lib.equal(requests_of_warm_reads(image, image.path("rootfs")), [])
    plain = t.mount(registry.host, "-d", ro=True)
    lib.equal(requests_of_warm_reads(plain, plain.path("app:1/rootfs")), [])
    # Elsewhere each close may be a push's.
    pushing = t.mount(registry.host, "-d")
    lib.equal(requests_of_warm_reads(pushing, pushing.path("app:1/rootfs")), ["FLUSH"] * 24)


def test_remounted_is_no_way_to_push(t):
    lib.need_root()
    registry = t.registry()
    push_files(registry)
    mount = t.mount(registry.host, ro=True)
    lib.equal(mount.path("app:1/rootfs/f1").read_bytes()[:1], b"\1")
    with lib.fails(errno.EROFS):
        mount.path("app/_push/2.tar").write_bytes(b"x")
    t.run("mount", "-i", "-o", "remount,rw", mount.point)
    # Nobody would learn what came of it.
    with lib.fails(errno.EROFS):
        mount.path("app/_push/2.tar").write_bytes(b"x")
    with lib.fails(errno.EROFS):
        os.mknod(mount.path("app/_push/2.tar"))


def test_reads_ahead(t):
    """Root's mounts ask for as much at once as a request can hold."""
    lib.need_root()
    mount = t.mount(t.registry().host)
    mount.stats()
    device = os.stat(mount.point).st_dev
    kib = pathlib.Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb").read_text()
    lib.equal(int(kib), 1024)
