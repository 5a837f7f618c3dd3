# SPDX-License-Identifier: Apache-2.0
"""Hand-made layers: each rule of image-spec's layer.md, each tar format, each trick with names.

A case says what the tree must be, from the specification; beside it the same image is unpacked by
umoci, and where umoci does something else the case says what and why. Must not know regfs.
"""
import gzip
import struct

import oci
from tarfiles import MTIME, Tar

NS = 10**9


class Case:
    """LAYERS (bottom first; bytes of a tar, or oci.Layer) and the TREE they make.

    TREE has every path (the root only where it matters) with the attributes that matter. UMOCI and PODMAN
    say how the tree that those unpack differs ({path: attributes that are right, or None}), or are
    a text: why that program cannot tell.
    """

    def __init__(self, layers, tree, umoci=None, podman=None):
        self.layers = [layer if isinstance(layer, oci.Layer) else oci.Layer(layer)
                       for layer in layers]
        self.tree = {oci_path(path): entry for path, entry in tree.items()}
        self.umoci, self.podman = (
            differs if isinstance(differs, str) else
            {oci_path(path): attributes for path, attributes in (differs or {}).items()}
            for differs in (umoci, podman))
        self.image = oci.Image(self.layers)


def oci_path(path):
    return path.encode() if isinstance(path, str) else path


def entry(kind, mode, **more):
    return {"type": kind, "mode": mode, "uid": 0, "gid": 0, "mtime": MTIME * NS, "xattrs": {}} | more


def file(data=b"", mode=0o644, **more):
    import hashlib  # pylint: disable=import-outside-toplevel
    data = oci_path(data)
    return entry("file", mode, **{"size": len(data), "sha256": hashlib.sha256(data).hexdigest(),
                                  "nlink": 1} | more)


def directory(mode=0o755, **more):
    return entry("dir", mode, **more)


def implicit():
    """A directory that no layer names."""
    return entry("dir", 0o755, mtime=oci.CREATED_NS)


def link(target, **more):
    return entry("link", 0o777, **{"target": oci_path(target), "nlink": 1} | more)


def same(path, nlink, what):
    """WHAT with NLINK names, the first of which is PATH."""
    return what | {"nlink": nlink, "same": oci_path(path)}


# Both give directories that no layer names the time of the unpacking; the specification is silent,
# and regfs gives them the image's.
CREATED = {"mtime": oci.CREATED_NS}

# A directory that an upper layer only passes through (it has no entry for it) keeps the attributes of
# the layer that names it; podman's storage makes it anew.
PASSED = {"mtime": MTIME * NS}
REFUSES_DUPLICATES = "it refuses duplicate names"
REFUSES_LOWER = "it refuses hard links into lower layers"

CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


# --- whiteouts and opaque markers ---


def below():
    return (Tar().file("a", "a1").file("b", "b1").dir("d").file("d/x", "x1").file("d/y", "y1")
            .dir("d/sub").file("d/sub/z", "z1").end())


@case
def whiteout_before_siblings():
    return Case([below(), Tar().whiteout("a").file("c", "c2").dir("d").whiteout("d/sub")
                 .file("d/w", "w2").end()],
                {"b": file("b1"), "c": file("c2"), "d": directory(), "d/x": file("x1"),
                 "d/y": file("y1"), "d/w": file("w2")})


@case
def whiteout_after_siblings():
    return Case([below(), Tar().file("c", "c2").dir("d").file("d/w", "w2").whiteout("d/sub")
                 .whiteout("a").end()],
                {"b": file("b1"), "c": file("c2"), "d": directory(), "d/x": file("x1"),
                 "d/y": file("y1"), "d/w": file("w2")})


@case
def whiteout_of_what_is_not_there():
    return Case([below(), Tar().whiteout("none").whiteout("d/none").end()],
                {"a": file("a1"), "b": file("b1"), "d": directory(), "d/x": file("x1"),
                 "d/y": file("y1"), "d/sub": directory(), "d/sub/z": file("z1")},
                podman={"d": PASSED})


@case
def whiteout_beside_its_name():
    """It acts on lower layers only: the new directory stays and has nothing old in it."""
    tree = {"a": file("a1"), "b": file("b1"), "d": directory(0o700), "d/new": file("n2")}
    first = Tar().whiteout("d").dir("d", mode=0o700).file("d/new", "n2").end()
    return Case([below(), first], tree,
                podman="it keeps the old children")


@case
def whiteout_after_its_name():
    tree = {"a": file("a1"), "b": file("b1"), "d": directory(0o700), "d/new": file("n2")}
    last = Tar().dir("d", mode=0o700).file("d/new", "n2").whiteout("d").end()
    # It deletes in the directory after it has set its time.
    return Case([below(), last], tree, {"d": {"mtime": MTIME * NS}},
                podman="it refuses: file exists")


@case
def whiteout_beside_a_file():
    return Case([below(), Tar().file("a", "a2").whiteout("a").whiteout("b").file("b", "b2").end()],
                {"a": file("a2"), "b": file("b2"), "d": directory(), "d/x": file("x1"),
                 "d/y": file("y1"), "d/sub": directory(), "d/sub/z": file("z1")},
                podman="it refuses: file exists")


@case
def whiteout_then_made_again():
    return Case([below(), Tar().whiteout("d").end(), Tar().dir("d", uid=7).file("d/n", "n3").end()],
                {"a": file("a1"), "b": file("b1"), "d": directory(uid=7), "d/n": file("n3")})


@case
def whiteout_of_a_whole_tree_below():
    """The deleted directory comes back by a deeper name only: nothing old is in it."""
    return Case([Tar().dir("a").dir("a/b").dir("a/b/c").file("a/b/c/f", "1").end(),
                 Tar().whiteout("a").end(), Tar().file("a/b/new", "3").end()],
                {"a": implicit(), "a/b": implicit(), "a/b/new": file("3")},
                {"a": CREATED, "a/b": CREATED},
                podman={"a": CREATED, "a/b": CREATED})


@case
def opaque_before_siblings():
    return Case([below(), Tar().dir("d").opaque("d").file("d/new", "n2").end()],
                {"a": file("a1"), "b": file("b1"), "d": directory(), "d/new": file("n2")})


@case
def opaque_after_siblings():
    return Case([below(), Tar().dir("d").file("d/new", "n2").dir("d/sub").file("d/sub/n", "n2")
                 .opaque("d").end()],
                {"a": file("a1"), "b": file("b1"), "d": directory(), "d/new": file("n2"),
                 "d/sub": directory(), "d/sub/n": file("n2")},
                {"d/sub": {"mtime": MTIME * NS}})


@case
def opaque_without_its_directory():
    """The directory keeps the attributes of the layer that names it."""
    return Case([Tar().dir("d", mode=0o711, uid=5).file("d/old", "1").end(),
                 Tar().opaque("d").file("d/new", "2").end()],
                {"d": directory(0o711, uid=5), "d/new": file("2")},
                podman={"d": {"mode": 0o711, "uid": 5} | PASSED})


@case
def opaque_root():
    return Case([below(), Tar().file("new", "2").opaque("").end()], {"new": file("2")},
                podman="it passes over a marker in the root")


@case
def opaque_keeps_what_comes_above():
    return Case([below(), Tar().dir("d").opaque("d").file("d/two", "2").end(),
                 Tar().file("d/three", "3").end()],
                {"a": file("a1"), "b": file("b1"), "d": directory(), "d/two": file("2"),
                 "d/three": file("3")},
                podman={"d": PASSED})


@case
def opaque_under_a_deleted_parent():
    return Case([below(), Tar().whiteout("d").dir("d").dir("d/sub").opaque("d/sub")
                 .file("d/sub/new", "2").end()],
                {"a": file("a1"), "b": file("b1"), "d": directory(), "d/sub": directory(),
                 "d/sub/new": file("2")},
                podman="it keeps the old children")


# --- one kind replaced by another ---


@case
def file_to_directory_and_back():
    return Case([Tar().file("p", "1").dir("q").file("q/in", "1").end(),
                 Tar().dir("p").file("p/in", "2").file("q", "2").end(),
                 Tar().file("p", "3").dir("q").file("q/new", "3").end()],
                {"p": file("3"), "q": directory(), "q/new": file("3")})


@case
def file_to_directory():
    return Case([Tar().file("p", "1").dir("q").file("q/in", "1").end(),
                 Tar().dir("p").file("p/in", "2").file("q", "2").end()],
                {"p": directory(), "p/in": file("2"), "q": file("2")})


@case
def link_to_directory_and_back():
    return Case([Tar().dir("real").file("real/f", "1").link("l", "real").dir("d").file("d/f", "1").end(),
                 Tar().dir("l").file("l/g", "2").link("d", "real").end()],
                {"real": directory(), "real/f": file("1"), "l": directory(), "l/g": file("2"),
                 "d": link("real")})


@case
def directory_attributes_of_the_top():
    return Case([Tar().dir("d", mode=0o700, uid=1, gid=2).file("d/f", "1").end(),
                 Tar().dir("d", mode=0o1777, uid=3, gid=4, mtime=1600000000).end(),
                 Tar().file("d/g", "3").end()],
                {"d": directory(0o1777, uid=3, gid=4, mtime=1600000000 * NS), "d/f": file("1"),
                 "d/g": file("3")},
                podman={"d": {"mode": 0o1777, "uid": 3, "gid": 4, "mtime": 1600000000 * NS}})


@case
def file_replaced_by_each_kind():
    return Case([Tar().file("a", "1").file("b", "1").file("c", "1").file("d", "1").end(),
                 Tar().link("a", "b").fifo("b").device("c", "char", 1, 3).file("d", "2").end()],
                {"a": link("b"), "b": entry("fifo", 0o600, nlink=1),
                 "c": entry("char", 0o600, rdev=(1, 3), nlink=1), "d": file("2")})


# --- twice the same name in one layer ---


@case
def duplicates():
    return Case([Tar().file("f", "old").file("g", "old").file("f", "new", mode=0o600)
                 .dir("d").file("d/f", "old").dir("d", mode=0o700).file("./d/f", "new").end()],
                {"f": file("new", 0o600), "g": file("old"), "d": directory(0o700),
                 "d/f": file("new")},
                podman=REFUSES_DUPLICATES)


@case
def duplicates_of_another_kind():
    return Case([Tar().file("a", "1").dir("a").file("a/in", "2").dir("b").file("b/in", "1")
                 .file("b", "2").link("c", "a").file("c", "2").file("d", "1").link("d", "b").end()],
                {"a": directory(), "a/in": file("2"), "b": file("2"), "c": file("2"),
                 "d": link("b")},
                podman=REFUSES_DUPLICATES)


@case
def duplicate_of_a_linked_file():
    """A hard link is to the file, not to the name."""
    return Case([Tar().file("a", "old").hard("b", "a").file("a", "new").end()],
                {"a": file("new"), "b": file("old")},
                podman=REFUSES_DUPLICATES)


# --- hard links ---


@case
def hard_links_in_one_layer():
    data = file("data", 0o640, uid=3)
    return Case([Tar().dir("d").file("d/a", "data", mode=0o640, uid=3)
                 .hard("d/b", "d/a", mode=0o640, uid=3).hard("c", "d/b", mode=0o640, uid=3)
                 .hard("./e", "./d/a", mode=0o640, uid=3).end()],
                {"d": directory(), **{path: same("c", 4, data) for path in ("c", "d/a", "d/b", "e")}})


@case
def hard_link_to_a_lower_layer():
    data = file("data", 0o4755, xattrs={"user.k": b"v"})
    return Case([Tar().dir("d").pax([("SCHILY.xattr.user.k", "v")]).file("d/a", "data", mode=0o4755)
                 .end(), Tar().hard("b", "d/a").hard("d/c", "d/a").end()],
                {"d": directory(), **{path: same("b", 3, data) for path in ("b", "d/a", "d/c")}},
                podman=REFUSES_LOWER)


@case
def hard_link_outlives_its_target():
    return Case([Tar().file("a", "one").file("x", "one").end(), Tar().hard("b", "a").hard("y", "x").end(),
                 Tar().file("a", "three").whiteout("x").end()],
                {"a": file("three"), "b": file("one"), "y": file("one")},
                podman=REFUSES_LOWER)


@case
def hard_link_through_three_layers():
    data = file("one")
    return Case([Tar().file("a", "one").end(), Tar().hard("b", "a").end(), Tar().hard("c", "b").end()],
                {path: same("a", 3, data) for path in ("a", "b", "c")},
                podman=REFUSES_LOWER)


@case
def hard_link_to_a_link():
    what = link("nowhere")
    return Case([Tar().link("a", "nowhere").hard("b", "a").end(), Tar().hard("c", "a").end()],
                {path: same("a", 3, what) for path in ("a", "b", "c")},
                podman=REFUSES_LOWER)


@case
def hard_link_to_a_device_and_fifo():
    return Case([Tar().device("n", "char", 1, 5).hard("m", "n", mode=0o600)
                 .fifo("p").hard("q", "p", mode=0o600).end()],
                {**{path: same("m", 2, entry("char", 0o600, rdev=(1, 5))) for path in "mn"},
                 **{path: same("p", 2, entry("fifo", 0o600)) for path in "pq"}})


@case
def hard_link_then_whiteout_of_its_target():
    """As a layer of a rename has it."""
    return Case([Tar().file("a", "1").end(), Tar().hard("b", "a").whiteout("a").end()],
                {"b": file("1")},
                podman=REFUSES_LOWER)


@case
def hard_link_then_its_target_anew():
    return Case([Tar().file("a", "1").file("c", "1").end(),
                 Tar().hard("b", "a").file("a", "2").file("c", "2").hard("d", "c").end()],
                {"a": file("2"), "b": file("1"), "c": same("c", 2, file("2")),
                 "d": same("c", 2, file("2"))},
                podman=REFUSES_LOWER)


@case
def hard_links_partly_hidden():
    """The link count is that of the names one can see."""
    return Case([Tar().dir("d").file("d/a", "1").hard("b", "d/a").hard("c", "d/a").hard("e", "d/a")
                 .file("f", "2").hard("d/g", "f").end(),
                 Tar().whiteout("d").file("e", "new").end()],
                {"b": same("b", 2, file("1")), "c": same("b", 2, file("1")), "e": file("new"),
                 "f": file("2")},
                podman={"b": {"nlink": 2}, "c": {"nlink": 2}, "f": {"nlink": 1}})


# --- long names, and all that ustar cannot say ---

LONG = "/".join(["d" * 90, "e" * 90, "f" * 90])  # 272 bytes
WIDE = "n" * 255


@case
def names_in_the_prefix():
    return Case([Tar().dir("p" * 100).header("f" * 99, b"0", prefix="p" * 100).end()],
                {"p" * 100: directory(), "p" * 100 + "/" + "f" * 99: file()})


@case
def names_by_gnu():
    tar = Tar(gnu=True)
    tree = {}
    for depth in (1, 2, 3):
        path = "/".join(LONG.split("/")[:depth])
        (tar.dir(path) if depth == 1 else tar.gnu_long(path + "/").dir(path[:99]))
        tree[path] = directory()
    tar.gnu_long(f"{LONG}/{WIDE}").file("short", "long").gnu_long(target=LONG).link("l", "x")
    tar.gnu_long("h" * 150, f"{LONG}/{WIDE}").hard("short", "short")
    data = file("long")
    return Case([tar.end()], tree | {"l": link(LONG), "h" * 150: same(f"{LONG}/{WIDE}", 2, data),
                                     f"{LONG}/{WIDE}": same(f"{LONG}/{WIDE}", 2, data)})


@case
def names_by_pax():
    tar = Tar()
    tree = {}
    for depth in (1, 2, 3):
        path = "/".join(LONG.split("/")[:depth])
        tar.pax([("path", path + "/")]).dir("short")
        tree[path] = directory()
    tar.pax([("path", f"{LONG}/{WIDE}")]).file("short", "long")
    tar.pax([("path", "l" * 200), ("linkpath", LONG)]).link("l", "x")
    tar.pax([("linkpath", f"{LONG}/{WIDE}")]).hard("h", "short")
    data = file("long")
    return Case([tar.end()], tree | {"l" * 200: link(LONG), "h": same(f"{LONG}/{WIDE}", 2, data),
                                     f"{LONG}/{WIDE}": same(f"{LONG}/{WIDE}", 2, data)})


@case
def times():
    return Case([Tar().pax([("mtime", "1700000000.123456789")]).file("ns")
                 .pax([("mtime", "1700000000.5")]).dir("half").pax([("mtime", "1.000000001")])
                 .link("l", "ns").pax([("mtime", "4102444800.25")]).file("y2100")
                 .pax([("mtime", "1700000000"), ("atime", "1.5"), ("ctime", "2.5")]).file("whole")
                 .file("zero", mtime=0).end()],
                {"ns": file(mtime=1700000000123456789), "half": directory(mtime=1700000000500000000),
                 "l": link("ns", mtime=1000000001), "y2100": file(mtime=4102444800250000000),
                 "whole": file(), "zero": file(mtime=0)})


@case
def times_before_1970():
    why = {"mtime": -1500000000}
    return Case([Tar().pax([("mtime", "-1.5")]).file("pax").file("base256", mtime=-86400).end()],
                {"pax": file(mtime=-1500000000), "base256": file(mtime=-86400 * NS)},
                {"pax": why, "base256": {"mtime": -86400 * NS}},
                podman={"pax": why, "base256": {"mtime": -86400 * NS}})


@case
def numbers_by_base256():
    return Case([Tar(gnu=True).file("size", "12345", force_base256=True)
                 .file("owner", uid=3000000, gid=4000000000).file("late", mtime=8**11 + 5).end()],
                {"size": file("12345"), "owner": file(uid=3000000, gid=4000000000),
                 "late": file(mtime=(8**11 + 5) * NS)})


@case
def numbers_by_pax():
    return Case([Tar().pax([("uid", "3000000"), ("gid", "4000000000")]).file("owner")
                 .pax([("size", "7")]).header("size", b"0", size=0).raw(b"1234567".ljust(512, b"\0"))
                 .file("after", "x").end()],
                {"owner": file(uid=3000000, gid=4000000000), "size": file("1234567"),
                 "after": file("x")})


@case
def global_headers():
    return Case([Tar().pax([("comment", "0123456789abcdef")], b"g").file("a", "1")
                 .pax([("path", "b")]).file("x", "2").file("c", "3").end()],
                {"a": file("1"), "b": file("2"), "c": file("3")}, "type g is unknown to it",
                podman="it takes the header for a file")


@case
def old_kinds():
    """Before POSIX: a NUL for files, a name that ends in / for directories; 7 is a file."""
    return Case([Tar().file("v7", "1", kind=b"\0").header("d/", b"\0", mode=0o755)
                 .file("d/contiguous", "2", kind=b"7").end()],
                {"v7": file("1"), "d": directory(), "d/contiguous": file("2")},
                "type 7 is unknown to it",
                podman="type 7 is unknown to it")


# --- sparse files ---

EXTENTS = [(4096, b"a" * 512), (65536, b"b" * 1024), (1048576, b"c" * 1536)]
SPARSE_SIZE = 2000000


def sparse_bytes(size, extents):
    data = bytearray(size)
    for offset, piece in extents:
        data[offset:offset + len(piece)] = piece
    return bytes(data)


def sparse_case(write, umoci=None, podman=None):
    many = [(number * 8192, bytes([65 + number]) * 512) for number in range(50)]
    tar = Tar()
    write(tar)("sparse", SPARSE_SIZE, EXTENTS + [(SPARSE_SIZE, b"")], mode=0o640)
    tar.file("between", "x")
    write(tar)("many", 50 * 8192, many + [(50 * 8192, b"")])
    write(tar)("hole", 100000, [(100000, b"")])
    tar.file("after", "y")
    return Case([tar.end()],
                {"sparse": file(sparse_bytes(SPARSE_SIZE, EXTENTS), 0o640), "between": file("x"),
                 "many": file(sparse_bytes(50 * 8192, many)), "hole": file(bytes(100000)),
                 "after": file("y")}, umoci, podman)


@case
def sparse_old():
    return sparse_case(lambda tar: tar.sparse_old, "type S is unknown to it", "type S is unknown to it")


@case
def sparse_pax_00():
    return sparse_case(lambda tar: tar.sparse_00)


@case
def sparse_pax_01():
    return sparse_case(lambda tar: tar.sparse_01)


@case
def sparse_pax_10():
    return sparse_case(lambda tar: tar.sparse_10)


# --- attributes ---


def capability(permitted, inheritable=0, effective=True):
    """security.capability, version 2 (linux/capability.h, vfs_cap_data)."""
    low, high = 0xffffffff, 32
    return struct.pack("<5I", 0x02000000 | effective, permitted & low, inheritable & low,
                       permitted >> high, inheritable >> high)


@case
def xattrs():
    odd = bytes(range(256))
    cap = capability(1 << 13)
    return Case([Tar().pax([("SCHILY.xattr.user.a", "1"), ("SCHILY.xattr.user.odd", odd)]).file("f")
                 .pax([("SCHILY.xattr.security.capability", cap)]).file("ping", "x", mode=0o755)
                 .pax([("SCHILY.xattr.user.d", "dir"), ("SCHILY.xattr.trusted.t", "t")]).dir("d")
                 .pax([("SCHILY.xattr.trusted.l", "link")]).link("l", "f")
                 .pax([("SCHILY.xattr.user.big", "x" * 2000)]).file("big").end()],
                {"f": file(xattrs={"user.a": b"1", "user.odd": odd}),
                 "ping": file("x", 0o755, xattrs={"security.capability": cap}),
                 "d": directory(xattrs={"user.d": b"dir", "trusted.t": b"t"}),
                 "l": link("f", xattrs={"trusted.l": b"link"}),
                 "big": file(xattrs={"user.big": b"x" * 2000})})


@case
def xattrs_of_the_top_layer():
    return Case([Tar().pax([("SCHILY.xattr.user.a", "1")]).dir("d").pax([("SCHILY.xattr.user.a", "1")])
                 .file("f", "1").end(), Tar().dir("d").file("f", "2").end()],
                {"d": directory(), "f": file("2")})


@case
def modes_and_owners():
    tar, tree = Tar(), {}
    for mode in (0, 0o400, 0o755, 0o4755, 0o2755, 0o6711, 0o1644, 0o7777):
        tar.file(f"f{mode:o}", mode=mode, uid=mode, gid=65534)
        tree[f"f{mode:o}"] = file(mode=mode, uid=mode, gid=65534)
    for mode in (0, 0o700, 0o1777, 0o2775, 0o3777):
        tar.dir(f"d{mode:o}", mode=mode, uid=65534, gid=mode)
        tree[f"d{mode:o}"] = directory(mode, uid=65534, gid=mode)
    tar.link("l", "f755", uid=12, gid=13)
    return Case([tar.end()], tree | {"l": link("f755", uid=12, gid=13)})


@case
def devices_and_fifos():
    tar, tree = Tar(), {}
    for name, kind, major, minor in (("null", "char", 1, 3), ("tty", "char", 5, 0),
                                     ("sda", "block", 8, 0), ("large", "block", 259, 70000),
                                     ("larger", "char", 4095, 1048575)):
        tar.device(name, kind, major, minor, mode=0o620, gid=5)
        tree[name] = entry(kind, 0o620, gid=5, rdev=(major, minor), nlink=1)
    tar.fifo("fifo", mode=0o644)
    return Case([tar.end()], tree | {"fifo": entry("fifo", 0o644, nlink=1)})


# --- names ---


@case
def odd_names():
    names = [b"\xff\xfe", b"latin\xe9", "grüße".encode(), "日本".encode(), b"new\nline", b"tab\t", b" blank ",
             b"back\\slash", b"-dash", b"quo'te\"", b"*", b"\x01\x7f", b"...", b"..a", b".wh",
             b"\xf0\x9f\x90\xb3" * 60, b"a" * 255, b":colon:1.5", b"a@sha256", b"_push", b"_tags"]
    tar, tree = Tar(), {}
    for name in names:
        if len(name) > 100:
            tar.pax([("path", name)]).file("short", name)
        else:
            tar.file(name, name)
        tree[name] = file(name)
    tar.link(b"link\xff", b"to\xfe").hard(b"hard\xfd", b"\xff\xfe")
    tree[b"link\xff"] = link(b"to\xfe")
    tree[b"hard\xfd"] = tree[b"\xff\xfe"] = same(b"hard\xfd", 2, file(b"\xff\xfe"))
    return Case([tar.end()], tree)


@case
def dot_prefixes():
    return Case([Tar().dir("./").file("./a", "1").dir("./d/").file("d/b", "1").file(".//d//c", "1")
                 .dir("d/./e/").end(), Tar().file("a", "2").file("./d/b", "2").whiteout("./d/c").end()],
                {"a": file("2"), "d": directory(), "d/b": file("2"), "d/e": directory()},
                podman={"d": PASSED})


@case
def root_entry():
    return Case([Tar().dir("./", mode=0o711, uid=6, gid=7, mtime=1500000000).file("a", "1").end(),
                 Tar().file("b", "2").end()],
                {"": directory(0o711, uid=6, gid=7, mtime=1500000000 * NS), "a": file("1"),
                 "b": file("2")},
                {"": {"mode": 0o711, "uid": 6, "gid": 7, "mtime": 1500000000 * NS}},
                podman={"": {"mode": 0o711, "uid": 6, "gid": 7, "mtime": 1500000000 * NS}})


@case
def no_root_entry():
    return Case([Tar().file("a", "1").end()], {"": implicit(), "a": file("1")},
                {"": {"mode": 0o755, "mtime": oci.CREATED_NS}},
                podman={"": {"mode": 0o755, "mtime": oci.CREATED_NS}})


@case
def missing_parents():
    return Case([Tar().file("x/y/z", "1").end(), Tar().dir("x", mode=0o700).file("p/q", "2").end()],
                {"x": directory(0o700), "x/y": implicit(), "x/y/z": file("1"), "p": implicit(),
                 "p/q": file("2")},
                {"x/y": CREATED, "p": CREATED},
                podman={"x/y": CREATED, "p": CREATED})


@case
def parent_named_after_its_child():
    return Case([Tar().file("d/f", "1").dir("d", mode=0o710, uid=4).end()],
                {"d": directory(0o710, uid=4), "d/f": file("1")})


@case
def parent_that_was_a_file():
    return Case([Tar().file("p", "1").file("q", "1").file("q/in", "2").end(), Tar().file("p/in", "2").end()],
                {"p": implicit(), "p/in": file("2"), "q": implicit(), "q/in": file("2")},
                "it refuses: not a directory",
                podman="it refuses: not a directory")


@case
def parent_that_was_a_link_below():
    """A layer's own parents are directories: one above a link takes its place, as overlayfs has it."""
    return Case([Tar().dir("real").file("real/f", "1").link("l", "real").end(),
                 Tar().file("l/g", "2").end()],
                {"real": directory(), "real/f": file("1"), "l": implicit(), "l/g": file("2")},
                "it follows the link of the lower layer",
                podman={"l": CREATED})


@case
def names_that_lead_out():
    return Case([Tar().file("/absolute", "1").file("../../up", "2").dir("d").file("d/../e", "3")
                 .file("d/../../../f", "4").hard("h", "/absolute").hard("i", "../../up").dir("/g/")
                 .link("l", "/absolute").link("m", "../../../etc/passwd").end()],
                {"absolute": same("absolute", 2, file("1")), "h": same("absolute", 2, file("1")),
                 "up": same("i", 2, file("2")), "i": same("i", 2, file("2")), "d": directory(),
                 "e": file("3"), "f": file("4"), "g": directory(), "l": link("/absolute"),
                 "m": link("../../../etc/passwd")})


@case
def links_that_lead_out():
    """A parent that is a link of the same layer is followed, inside the tree."""
    return Case([Tar().dir("tmp").link("out", "/tmp").file("out/f", "1").link("up", "../../../tmp")
                 .file("up/g", "2").end()],
                {"tmp": directory(), "out": link("/tmp"), "tmp/f": file("1"), "up": link("../../../tmp"),
                 "tmp/g": file("2")})


# --- how a layer is stored ---


def plain_tree():
    tar = Tar().dir("d").file("d/f", "data" * 1000).link("l", "d/f").file("z", "end").end()
    return tar, {"d": directory(), "d/f": file("data" * 1000), "l": link("d/f"), "z": file("end")}


@case
def stored_plain():
    tar, tree = plain_tree()
    return Case([oci.Layer(tar, "none")], tree)


@case
def stored_zstd():
    tar, tree = plain_tree()
    return Case([oci.Layer(tar, "zstd")], tree, "it reads no zstd")


@case
def stored_under_a_wrong_type():
    """The magic decides, not the media type."""
    tar, tree = plain_tree()
    return Case([oci.Layer(tar, "gzip", blob=tar),
                 oci.Layer(tar, "gzip", blob=oci.zstd(tar)),
                 oci.Layer(tar, "none", blob=gzip.compress(tar, mtime=0))], tree,
                "it believes the media type")


@case
def stored_as_docker_does():
    tar, tree = plain_tree()
    kind = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    return Case([oci.Layer(tar, media_type=kind)], tree, "it knows no type of Docker's")


@case
def gzip_of_many_members():
    tar, tree = plain_tree()
    pieces = [tar[start:start + 1000] for start in range(0, len(tar), 1000)]
    blob = b"".join(gzip.compress(piece, mtime=0) for piece in [b"", *pieces, b""])
    return Case([oci.Layer(tar, blob=blob)], tree)


@case
def zstd_of_many_frames():
    tar, tree = plain_tree()
    skippable = b"\x50\x2a\x4d\x18" + struct.pack("<I", 5) + b"ABCDE"
    blob = skippable + b"".join(oci.zstd(tar[start:start + 3000]) + skippable
                                for start in range(0, len(tar), 3000))
    return Case([oci.Layer(tar, "zstd", blob=blob)], tree, "it reads no zstd",
                podman="it reads no skippable frames")


@case
def garbage_after_the_end():
    """What follows the end marker belongs to the digest, not to the archive."""
    tar, tree = plain_tree()
    return Case([oci.Layer(tar + b"garbage" * 1000)], tree)


@case
def padding_after_the_end():
    tar, tree = plain_tree()
    return Case([oci.Layer(tar + bytes(10240 * 20))], tree)


@case
def no_end_marker():
    tar, tree = plain_tree()
    return Case([oci.Layer(tar[:-1024])], tree)


@case
def empty_layers():
    tar, tree = plain_tree()
    return Case([oci.Layer(bytes(1024)), tar, oci.Layer(bytes(1024), "none"), bytes(10240)], tree)


@case
def layers_of_no_bytes():
    tar, tree = plain_tree()
    return Case([b"", tar, b""], tree)


@case
def the_same_layer_twice():
    tar, tree = plain_tree()
    return Case([tar, Tar().whiteout("d").file("z", "other").end(), tar], tree)


@case
def many_layers():
    """127 of them, as many as overlay takes: each adds, changes and deletes."""
    layers, tree = [], {}
    for number in range(127):
        tar = Tar().file(f"own{number}", str(number)).file("common", str(number))
        tar.dir(f"dir{number % 7}", mode=0o700 + number % 8).file(f"dir{number % 7}/f{number}", "x")
        if number % 5 == 4:
            tar.whiteout(f"own{number - 2}")
        layers.append(tar.end())
        tree |= {f"own{number}": file(str(number)), "common": file(str(number)),
                 f"dir{number % 7}": directory(0o700 + number % 8),
                 f"dir{number % 7}/f{number}": file("x")}
        if number % 5 == 4:
            del tree[f"own{number - 2}"]
    return Case(layers, tree,
                podman="127 layers take it longer than all the rest")
