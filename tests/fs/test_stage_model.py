# SPDX-License-Identifier: Apache-2.0
"""A directory under _push against one on a disk: the same calls give the same answers and the same tree."""
import os
import random
import stat

import lib
import tree
from test_push import empty
from test_stage import staged

CALLS = 1500
NAMES = [directory + name for directory in ("", "d/", "e/", "d/f/") for name in "abdef"]


def write(path, at, size, byte):
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
        file.seek(at)
        file.write(bytes([byte]) * size)


def append(path):
    with open(path, "ab") as file:
        file.write(b"appended")


def read(path):
    with open(path, "rb") as file:
        return file.read()


def look(path):
    st = os.lstat(path)
    if stat.S_ISDIR(st.st_mode):
        return st.st_mode, st.st_uid, st.st_gid, sorted(os.listdir(path))
    return st.st_mode, st.st_uid, st.st_gid, st.st_nlink, st.st_size


def some_call(dice, root):
    """One call on two names below ROOT: a function without arguments."""
    one, two = (os.path.join(root, dice.choice(NAMES)) for _ in range(2))
    large = dice.random() < 0.2
    at, size = dice.randrange(400_000 if large else 100), dice.randrange(1, 300_000 if large else 50)
    mode, number, target = dice.randrange(0o10000), dice.randrange(5), dice.choice("abd")
    calls = [
        lambda: os.mkdir(one),
        lambda: write(one, at, size, number),
        lambda: append(one),
        lambda: read(one),
        lambda: os.truncate(one, size),
        lambda: os.unlink(one),
        lambda: os.rmdir(one),
        lambda: os.rename(one, two),
        lambda: os.link(one, two, follow_symlinks=False),
        lambda: os.symlink(target, two),
        lambda: os.chmod(one, mode),
        lambda: os.chown(one, number, number + 1, follow_symlinks=False),
        lambda: os.setxattr(one, "user.x", b"%d" % number),
        lambda: look(one),
    ]
    return dice.randrange(len(calls)), calls


def answer(call):
    try:
        return call()
    except OSError as err:
        return err.errno


def test_random_calls(t):
    lib.need_root()
    _, mount = empty(t)
    roots = [staged(mount, "1.6") / "rootfs", t.dir / "disk"]
    for root in roots:
        root.mkdir()
    dices = [random.Random(6), random.Random(6)]
    for number in range(CALLS):
        which, answers = None, []
        for root, dice in zip(roots, dices):
            which, calls = some_call(dice, root)
            answers.append(answer(calls[which]))
        lib.equal(answers[0], answers[1], f"call {number}, of kind {which}")
    trees = [tree.read(root) for root in roots]
    for entry in [entry for found in trees for entry in found.values()]:
        del entry["mtime"]
    assert len(trees[1]) > 5
    tree.assert_equal(*trees)
