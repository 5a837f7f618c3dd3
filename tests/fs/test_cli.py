# SPDX-License-Identifier: Apache-2.0
"""The command line: what is wrong with it is said before the program goes to the background; mounting
in every way; make install and make run."""
import os
import pathlib
import re
import stat
import subprocess

import lib
import oci
import sample
from tarfiles import Tar


def complaint(t, *args, status=None):
    """regfs with these arguments must fail at once, with words on stderr and nothing mounted."""
    ended = t.run(lib.REGFS, *args, status=status)
    assert ended.returncode not in (0, None), f"{args} succeeded"
    lib.equal(lib.mounts_under(t.dir), [])
    words = ended.stderr.decode()
    assert words.strip() and not lib.SANITIZER_WORDS.search(words), words
    return words


def point(t):
    path = t.dir / t.name("point")
    path.mkdir()
    return path


def background(t, *args, env=None):
    """Mounts as a user does, in the background; unmounted with the test."""
    where = args[-1]
    options = f"cache_dir={t.dir}/cache,store={t.dir}/store"
    t.run(lib.REGFS, "-o", options, *args, env=env)
    # The command returns when the mount is there.
    lib.equal(lib.mounts_under(where), [str(where)])
    t.stack.callback(leave, where)
    return where


def leave(where):
    """Unmounts, and waits until the process in the background has ended."""
    if lib.mounts_under(where):
        lib.unmount(where)
    lib.wait_for(lambda: not processes_at(where), "the process to end")


def processes_at(where):
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(where).encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            pass
    return [pid for pid in found if pid != os.getpid()]


def test_help_and_version(t):
    text = t.output(lib.REGFS, "--help")
    assert "usage" in text.lower() and "cache_dir" in text, text
    assert re.search(r"\d+\.\d+", t.output(lib.REGFS, "--version"))


def test_help_and_manual_agree(t):
    """Each option of --help is in the manual page, and the other way round."""
    text = t.output(lib.REGFS, "--help")
    manual = (lib.ROOT / "contrib/regfs.1").read_text().replace("\\-", "-").replace("\\_", "_")
    options = set(re.findall(r"^ {5}([a-z_]+)[ =]", text, re.M)) - {"ro", "mount"}
    assert {"cache_dir", "tag_ttl", "platform", "offline"} <= options, options
    for option in options:
        assert option in manual, f"{option} is not in the manual page"


def test_usage_errors(t):
    where = point(t)
    for args, words in {
            (): "", ("-o",): "", ("a", "b", "c"): "", ("--nonsense", where): "nonsense",
            ("-o", "nonsense=1", where): "nonsense", ("-o", "cache_size=much", where): "cache_size",
            ("-o", "cache_size=-5", where): "cache_size", ("-o", "platform=///", where): "platform",
            ("-o", "tag_ttl=soon", where): "tag_ttl", ("-o", "timeout=-1", where): "timeout",
            ("-o", "log=loud", where): "log", ("-o", "max_read=4096", where): "max_read", ("-o", "verify=never", where): "verify",
            ("-o", "compress=rar", where): "compress", ("-o", "registry=bad host", where): "registry",
            ("UPPER/case:1", where): "UPPER", ("bad:tag:twice", where): "bad", ("host:5000/", where): "host",
            ("a/b@sha256:12", where): "sha256"}.items():
        text = complaint(t, *args)
        assert words in text, f"{args}: {text}"


def test_bad_mountpoint(t):
    file = t.dir / "file"
    file.write_text("x")
    assert "file" in complaint(t, file)
    assert "missing" in complaint(t, t.dir / "missing")


def test_bad_cache_directory(t):
    file = t.dir / "file"
    file.write_text("x")
    assert "file" in complaint(t, "-o", f"cache_dir={file}/sub", point(t))
    where = point(t)
    words = complaint(t, "-o", "cache_dir=/proc/none", where)
    assert "/proc/none" in words
    assert str(where) not in words, "nothing is wrong with the mountpoint"


def test_background(t):
    registry = t.registry()
    sample.push_all(registry)
    where = background(t, registry.host, point(t))
    lib.equal((where / "team/app:1.5/rootfs/app/version").read_text(), "1.5")
    lib.equal(len(processes_at(where)), 1)
    pid = processes_at(where)[0]
    if os.geteuid() == 0:  # to others the kernel does not show it (PR_SET_DUMPABLE)
        lib.equal(os.readlink(f"/proc/{pid}/fd/0"), "/dev/null")
    lib.equal(os.getsid(pid) != os.getsid(0), True, "a session of its own")


def test_default_directories(t):
    """$XDG_CACHE_HOME/regfs and $XDG_DATA_HOME/regfs, or those under HOME."""
    where = point(t)
    t.run(lib.REGFS, "local", where)
    leave_pid = processes_at(where)
    assert leave_pid
    home = pathlib.Path(os.environ["HOME"])
    lib.equal(stat.S_IMODE((home / ".cache/regfs").stat().st_mode), 0o700)
    os.makedirs(where / "a")
    leave(where)
    env = {**os.environ, "XDG_CACHE_HOME": str(t.dir / "xc"), "XDG_DATA_HOME": str(t.dir / "xd")}
    t.run(lib.REGFS, "local", where, env=env)
    leave(where)
    assert (t.dir / "xc/regfs").is_dir()


def test_mount_options(t):
    where = background(t, "local", point(t))
    options = next(line for line in pathlib.Path("/proc/self/mounts").read_text().splitlines()
                   if f" {where} " in line).split()
    lib.equal(options[2], "fuse.regfs")
    assert {"nosuid", "nodev"} <= set(options[3].split(",")), options
    lib.equal(options[0], "local")


def vfs_options(where):
    return next(line for line in pathlib.Path("/proc/self/mounts").read_text().splitlines()
                if f" {where} " in line).split()[3].split(",")


def test_suid_and_dev_when_asked(t):
    lib.need_root()
    options = vfs_options(background(t, "-o", "suid,dev,ro", "local", point(t)))
    assert "nosuid" not in options and "nodev" not in options and "ro" in options, options


def test_mount_type_regfs(t):
    """What mount -t fuse.regfs runs: its helper, which looks for regfs in PATH, with what fstab has."""
    lib.need_root()
    lib.need("mount.fuse3")
    registry = t.registry()
    sample.push_all(registry)
    where = point(t)
    path = f"{pathlib.Path(lib.REGFS).parent}:{os.environ['PATH']}"
    t.stack.callback(leave, where)
    t.run("mount.fuse3", registry.host, where, "-t", "fuse.regfs", "-o",
          f"rw,cache_dir={t.dir}/cache,store={t.dir}/store,_netdev,noauto,nofail,user,x-systemd.automount",
          env={**os.environ, "PATH": path})
    lib.equal((where / "team/app:1.5/rootfs/app/version").read_text(), "1.5")
    # The helper adds dev,suid to what root mounts. Nobody asked for it.
    assert {"nosuid", "nodev"} <= set(vfs_options(where)), vfs_options(where)


def test_cache_commands(t):
    registry = t.registry()
    sample.push_all(registry)
    mount = t.mount(registry.host)
    lib.equal((mount.path("team/app:1.5/rootfs/noise")).read_bytes(), sample.NOISE)
    cache = ["--cache-dir", t.dir / "cache"]
    assert re.search(r"\d", t.output(lib.REGFS, "cache", "info", *cache))
    t.run(lib.REGFS, "cache", "verify", *cache)
    mount.stop()
    t.run(lib.REGFS, "cache", "verify", *cache)
    t.run(lib.REGFS, "cache", "prune", "--max", "0", *cache)
    used = sum(path.lstat().st_blocks * 512 for path in (t.dir / "cache").rglob("*") if path.name != "table")
    assert used < len(sample.NOISE), used
    words = t.run(lib.REGFS, "cache", "nonsense", "--cache-dir", t.dir / "none", status=2).stderr.decode()
    assert "nonsense" in words, words


def test_status(t):
    registry = t.registry()
    sample.push_all(registry)
    mount = t.mount(registry.host)
    lib.equal((mount.path("team/app:1.5/rootfs/app/version")).read_text(), "1.5")
    assert str(mount.point) in t.output(lib.REGFS, "status", mount.point)
    assert str(mount.point) in t.output(lib.REGFS, "status")
    assert t.run(lib.REGFS, "status", t.dir, status=None).returncode != 0


def test_as_another_user(t):
    """Not root: mounted by fusermount3, with files of that user's."""
    lib.need_root()
    lib.need("setpriv", "fusermount3")
    if os.stat("/dev/fuse").st_mode & 0o006 != 0o006:
        raise lib.Skip("/dev/fuse is root's only")
    where = point(t)
    user = t.dir / "user"
    user.mkdir()
    for path in (where, user):
        os.chown(path, 65534, 65534)
    os.chmod(t.dir, 0o755)
    argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    env = {**os.environ, "HOME": str(user)}
    try:
        t.run(*argv, lib.REGFS, "local", where, env=env)
        t.run(*argv, "mkdir", where / "new", env=env)
        lib.equal(t.output(*argv, "stat", "-c", "%u", where / "new", env=env).strip(), "65534")
        # Others may not look, not even root.
        lib.equal(t.run("ls", where, status=None).returncode, 2)
    finally:
        t.run(*argv, "fusermount3", "-u", where, env=env, status=None)
        lib.wait_for(lambda: not processes_at(where), "the process to end")


def test_allow_other(t):
    """Others read images as their owners and modes let them; what tells of the mount, or changes it, is its user's."""
    lib.need_root()
    lib.need("setpriv")
    registry, other = t.registry(), t.registry()
    tar = Tar().dir("open").file("open/x", "read me").file("shadow", "secret", mode=0o600).end()
    for one in (registry, other):
        oci.Image([oci.Layer(tar)]).push(one, "team/app", "1")
    mount = t.mount(None, registry=registry.host, allow_other=True)
    os.chmod(t.dir, 0o755)

    def status(*argv):
        return t.run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *argv, status=None).returncode

    image = mount.path(f"{registry.host}/team/app:1")
    lib.equal(status("cat", image / "rootfs/open/x"), 0)
    lib.equal(status("cat", image / "rootfs/shadow"), 1, "a file of root's")
    for name in ("_regfs", f"{registry.host}/_push", f"{registry.host}/team/app/_push",
                 f"{registry.host}/team/app/_tags"):
        attr = os.stat(mount.path(name))
        lib.equal((stat.S_IMODE(attr.st_mode), attr.st_uid), (0o700, 0), name)
        lib.equal(status("ls", mount.path(name)), 2, name)
    lib.equal(status("mkdir", mount.path(f"{registry.host}/team/new")), 1, "a repository")
    # A host costs requests with the user's credentials: only that user opens it.
    lib.equal(status("ls", mount.path(other.host)), 2, "a new host")
    os.listdir(mount.path(other.host))
    lib.equal(status("cat", mount.path(f"{other.host}/team/app:1/rootfs/open/x")), 0, "a host that was opened")


def test_make_install(t):
    if "build-" in lib.REGFS:
        raise lib.Skip("only the ordinary build is installed")
    t.run("make", "-s", "install", f"DESTDIR={t.dir}/dest", "PREFIX=/usr", cwd=lib.ROOT)
    dest = t.dir / "dest/usr"
    assert os.access(dest / "bin/regfs", os.X_OK)
    assert (dest / "share/man/man1/regfs.1").is_file()


def test_make_run(t):
    """What `make run` does once all is built: a mount with a sample in it, that stays; twice is fine."""
    where = t.dir / "reg"
    env = {**os.environ, "MNT": str(where), "REGFS": lib.REGFS}
    t.stack.callback(leave, where)
    for _ in range(2):
        text = t.output("contrib/run", cwd=lib.ROOT, env=env)
        lib.equal(lib.mounts_under(where), [str(where)])
        assert "hello" in text.lower(), text
        images = subprocess.run(["ls", where / "local"], capture_output=True, text=True, check=True).stdout
        assert images.strip(), images
