# SPDX-License-Identifier: Apache-2.0
"""What is agreed with the kernel: which requests are made at all, and how large they are."""
import errno
import mmap
import os
import pathlib
import random
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


BIG = random.Random(5).randbytes(300000)


def push_big(registry):
    tar = Tar().file("big", BIG).hard("other", "big").file("small", b"s" * 100).file("middle", BIG[:120000])
    tar.file("zeros", bytes(200000) + b"end")
    oci.Image([oci.Layer(tar.end(), "gzip")]).push(registry, "app", "1")


def read_until_passed(mount, path):
    """Reads PATH until the kernel does it by itself, which it does after it was read once."""
    def passed():
        before = len(requests(mount))
        with open(path, "rb", buffering=0) as file:
            file.read()
        return "READ" not in requests(mount)[before:] and mount.stats()["passthrough_made"]

    lib.wait_for(passed, "the kernel to read by itself")


def copies_made(t):
    return [path.stat().st_size for path in (t.dir / "cache/files/copy").iterdir()]


def test_passthrough(t):
    lib.need_root()
    registry = t.registry()
    push_big(registry)
    plain = t.mount(registry.host)
    lib.equal(plain.stats()["passthrough"], False)
    mount = t.mount(registry.host, "-d", passthrough=True)
    if not mount.stats()["passthrough"]:
        raise lib.Skip("this kernel has no passthrough")
    rootfs = mount.path("app:1/rootfs")
    before = os.stat(rootfs / "big")
    # One that is open reads through regfs, and so do the others as long as it is.
    first = os.open(rootfs / "big", os.O_RDONLY)
    lib.equal(os.read(first, 400000), BIG)
    lib.equal((rootfs / "other").read_bytes(), BIG)
    os.close(first)
    read_until_passed(mount, rootfs / "big")
    reads = requests(mount).count("READ")
    with open(rootfs / "other", "rb", buffering=0) as file:
        lib.equal(file.read(), BIG)
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            lib.equal(mapped[:], BIG)
        # The two have one inode: while this is open the other goes the same way.
        with open(rootfs / "big", "rb", buffering=0) as again:
            lib.equal(os.pread(again.fileno(), 10, 299995), BIG[-5:])
        lib.equal(requests(mount).count("READ"), reads, "reads through regfs")
        lib.wait_for(lambda: mount.stats()["passthrough_now"] == 1, "one file to be counted")
        # What is evicted stays readable where it is open.
        t.run(lib.REGFS, "cache", "prune", "--max", "0", "--cache-dir", t.dir / "cache")
        reads = requests(mount).count("READ")
        lib.equal(os.pread(file.fileno(), 400000, 0), BIG)
        lib.equal(requests(mount).count("READ"), reads, "reads through regfs")
    after = os.stat(rootfs / "big")
    lib.equal([after.st_ino, after.st_size, after.st_blocks, after.st_mtime_ns, after.st_nlink],
              [before.st_ino, before.st_size, before.st_blocks, before.st_mtime_ns, before.st_nlink])
    lib.wait_for(lambda: mount.stats()["passthrough_now"] == 0, "none to be counted")
    lib.equal((rootfs / "other").read_bytes(), BIG)
    lib.equal((rootfs / "small").read_bytes(), b"s" * 100)
    # A smaller one stays with the kernel's own pages; copies are made one after the other.
    lib.equal((rootfs / "middle").read_bytes(), BIG[:120000])
    lib.equal((rootfs / "zeros").read_bytes()[-3:], b"end")
    lib.wait_for(lambda: 200003 in copies_made(t), "a copy")
    lib.equal(120000 in copies_made(t), False, "a copy of the smaller one")
    # What regfs writes by itself, and what is written, never goes that way.
    lib.equal(mount.path("_regfs/version").read_text(), plain.path("_regfs/version").read_text())
    with lib.fails(errno.EINVAL):
        mount.path("app/_push/2.tar").write_bytes(b"x" * 100000)


def test_passthrough_of_a_damaged_file(t):
    lib.need_root()
    registry = t.registry()
    push_big(registry)
    mount = t.mount(registry.host, "-d", passthrough=True)
    if not mount.stats()["passthrough"]:
        raise lib.Skip("this kernel has no passthrough")
    path = mount.path("app:1/rootfs/big")
    read_until_passed(mount, path)
    whole, = (t.dir / "cache/files/copy").iterdir()
    with open(whole, "r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    lib.equal(path.read_bytes(), BIG)
    lib.wait_for(lambda: mount.stats()["cache_corrupt"] == 1, "the damage to be counted")
    read_until_passed(mount, path)
    lib.equal(path.read_bytes(), BIG)


def test_passthrough_falls_back(t):
    """A cache on an overlay: the kernel does not stack so high."""
    lib.need_root()
    registry = t.registry()
    push_big(registry)
    for name in ("lower", "upper", "work", "merged"):
        (t.dir / name).mkdir()
    t.run("mount", "-t", "overlay", "overlay", "-o",
          f"lowerdir={t.dir}/lower,upperdir={t.dir}/upper,workdir={t.dir}/work", t.dir / "merged")
    t.stack.callback(lib.unmount, t.dir / "merged")
    mount = t.mount(registry.host, passthrough=True, cache_dir=t.dir / "merged/cache")
    path = mount.path("app:1/rootfs/big")

    def given_up():
        lib.equal(path.read_bytes(), BIG)
        return not mount.stats()["passthrough"]

    lib.wait_for(given_up, "passthrough to be given up")
    lib.equal(path.read_bytes(), BIG)


def test_io_uring_is_used_or_not(t):
    """Whether this kernel and this libfuse have it or not, the same is read."""
    registry = t.registry()
    push_big(registry)
    mount = t.mount(registry.host, io_uring=True)
    lib.equal(mount.path("app:1/rootfs/big").read_bytes(), BIG)
    lib.equal(type(mount.stats()["io_uring"]), bool)
