# SPDX-License-Identifier: Apache-2.0
"""Trees of files as values: what is in a directory, and how two of them differ.

Knows lstat and friends. Must not know images.

A tree is a dictionary from a path (bytes, b"" for the root) to the attributes of what is there:

    type    "file" "dir" "link" "char" "block" "fifo" "socket"
    mode    permission bits with setuid, setgid and sticky
    uid, gid, mtime (nanoseconds since 1970)
    xattrs  {name: value}
    size, sha256    of files
    target          of links
    rdev            (major, minor) of devices
    nlink, same     of all but directories: the link count, and the first path of the same inode
"""
import hashlib
import os
import stat

TYPES = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link", stat.S_IFCHR: "char",
         stat.S_IFBLK: "block", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket"}


def sha256_file(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def read_xattrs(path):
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return {}
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in names}


def read_entry(path):
    """The attributes of one path, and its inode."""
    st = os.lstat(path)
    kind = TYPES[stat.S_IFMT(st.st_mode)]
    entry = {"type": kind, "mode": stat.S_IMODE(st.st_mode), "uid": st.st_uid, "gid": st.st_gid,
             "mtime": st.st_mtime_ns, "xattrs": read_xattrs(path)}
    if kind != "dir":
        entry["nlink"] = st.st_nlink
    if kind == "file":
        entry["size"] = st.st_size
        entry["sha256"] = sha256_file(path)
    elif kind == "link":
        entry["target"] = os.readlink(path)
    elif kind in ("char", "block"):
        entry["rdev"] = (os.major(st.st_rdev), os.minor(st.st_rdev))
    return entry, st.st_ino


def walk(root):
    """Every path below ROOT, in bytewise order, the root as b""."""
    waiting = [b""]
    while waiting:
        path = waiting.pop()
        yield path
        full = os.path.join(root, path)
        if stat.S_ISDIR(os.lstat(full).st_mode):
            names = sorted(os.listdir(full), reverse=True)
            waiting += [os.path.join(path, name) for name in names]


def read(root):
    """The tree at ROOT."""
    root = os.fsencode(root)
    tree, first = {}, {}
    for path in walk(root):
        entry, ino = read_entry(os.path.join(root, path))
        if entry["type"] != "dir":
            entry["same"] = first.setdefault(ino, path)
        tree[path] = entry
    return tree


def expect(tree, changes):
    """TREE as it should be: CHANGES maps paths to attributes that replace those there; None removes one."""
    tree = {path: dict(entry) for path, entry in tree.items()}
    for path, attributes in changes.items():
        if attributes is None:
            tree.pop(path, None)
        else:
            tree.setdefault(path, {}).update(attributes)
    return tree


def differences(got, expected, limit=40):
    """Lines that tell where GOT is not as EXPECTED; attributes that EXPECTED does not name are not looked at."""
    lines = [f"{path!r} is missing" for path in sorted(expected.keys() - got.keys())]
    lines += [f"{path!r} is there, but should not be" for path in sorted(got.keys() - expected.keys())]
    for path in sorted(expected.keys() & got.keys()):
        for key, value in expected[path].items():
            if key not in got[path] or got[path][key] != value:
                lines.append(f"{path!r}: {key} is {got[path].get(key)!r}, not {value!r}")
    if len(lines) > limit:
        lines[limit:] = [f"… and {len(lines) - limit} more"]
    return lines


def assert_equal(got, expected):
    lines = differences(got, expected)
    if lines:
        raise AssertionError("the trees differ:\n  " + "\n  ".join(lines))
