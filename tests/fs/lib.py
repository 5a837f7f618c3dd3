# SPDX-License-Identifier: Apache-2.0
"""What a mount test works with: a directory of its own, registries, mounts, commands.

Knows processes, mounts and docker-registry. Must not know what a test expects of regfs.

A test is a function test_NAME(t); t is a Test. Whatever t starts, it ends, and tests/fs/run looks
whether something was left behind. Waiting is always for a condition, never for a time.
"""
import contextlib
import errno
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import badregistry
import oci

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# The program under test; an ASan build of it is tested by the same suite.
REGFS = os.environ.get("REGFS", str(ROOT / "build/regfs"))
SANITIZER_WORDS = re.compile(r"AddressSanitizer|LeakSanitizer|ThreadSanitizer|runtime error:")
# How long a condition that must come true may take: only a broken program meets it.
PATIENCE_S = 60


class Skip(Exception):
    """The test cannot run here; its text says why."""


def slow(test):
    """Marks a test as too slow for a sanitized build: tests/fs/run --sanitized leaves it out."""
    test.slow = True
    return test


def need(*programs):
    """Skips the test where one of the programs is not installed."""
    for program in programs:
        if not shutil.which(program):
            raise Skip(f"no {program}")


def need_root():
    if os.geteuid() != 0:
        raise Skip("not root")


def wait_for(condition, what, patience_s=PATIENCE_S):
    """Calls CONDITION until its result is true, and returns that."""
    deadline = time.monotonic() + patience_s
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"gave up waiting for {what}")
        time.sleep(0.01)


def equal(got, expected, what=""):
    if got != expected:
        raise AssertionError(f"{what}: got {got!r}, expected {expected!r}")


@contextlib.contextmanager
def fails(*errnos):
    """The body must fail with one of these errnos."""
    names = "/".join(errno.errorcode[number] for number in errnos)
    try:
        yield
    except OSError as err:
        if err.errno not in errnos:
            got = errno.errorcode.get(err.errno, err.errno)
            raise AssertionError(f"failed with {got}, expected {names}: {err}") from err
    else:
        raise AssertionError(f"did not fail, expected {names}")


def mounts_under(path):
    """The mount points at and below PATH, innermost first."""
    points = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as info:
        for line in info:
            point = re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), line.split(" ")[4])
            if point == str(path) or point.startswith(f"{path}/"):
                points.append(point)
    return points[::-1]


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Process:
    """A program in the background with its output in a file."""

    def __init__(self, argv, log, env=None):
        self.argv, self.log = [str(arg) for arg in argv], pathlib.Path(log)
        with open(log, "ab") as out:
            self.popen = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=out,
                                          stderr=out, env=env)

    @property
    def pid(self):
        return self.popen.pid

    def output(self):
        return self.log.read_text(errors="replace")

    def running(self):
        return self.popen.poll() is None

    def signal(self, number):
        self.popen.send_signal(number)

    def wait(self):
        try:
            return self.popen.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise AssertionError(f"{self.argv[0]} did not end:\n{self.output()}") from None

    def stop(self):
        """Ends it politely, and for sure."""
        if self.running():
            self.popen.send_signal(signal.SIGCONT)
            self.popen.terminate()
        return self.wait()


class Registry:
    """A docker-registry server on a free port of the loopback, with deletion.

    STORAGE is kept; without it the registry has a new one in the test's directory. What it served is read
    from its access log. With an ADDRESS it listens there, started by the command that ENTER begins.
    """

    ACCESS = re.compile(r'"(GET|HEAD|PUT|POST|PATCH|DELETE) (\S+) HTTP/[\d.]+" (\d+) (\d+)')

    def __init__(self, directory, storage=None, config=None, address="127.0.0.1", enter=()):
        need("docker-registry")
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.address, self.enter = address, enter
        self.storage = pathlib.Path(storage or self.directory / "storage")
        self.storage.mkdir(parents=True, exist_ok=True)
        self.config = self.directory / "config.yml"
        self.config.write_text(json.dumps({
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": False}},
            "storage": {"filesystem": {"rootdirectory": str(self.storage)},
                        "delete": {"enabled": True},
                        "maintenance": {"uploadpurging": {"enabled": False}}},
            "http": {"addr": f"{address}:{self.port}"},
            **(config or {}),
        }))
        self.process = None
        self.marks = 0
        self.forgotten = 0
        self.start()

    @property
    def host(self):
        return f"{self.address.replace('127.0.0.1', 'localhost')}:{self.port}"

    def start(self):
        # Its own variables would override the file.
        env = {key: value for key, value in os.environ.items() if not key.startswith("REGISTRY_")}
        env["OTEL_TRACES_EXPORTER"] = "none"
        self.process = Process([*self.enter, "docker-registry", "serve", self.config],
                               self.directory / "log", env)
        try:
            wait_for(self.answers, f"docker-registry: {self.process.output()}")
        except BaseException:
            self.process.stop()
            raise

    def stop(self):
        self.process.stop()

    def answers(self):
        if not self.process.running():
            raise AssertionError(f"docker-registry ended:\n{self.process.output()}")
        try:
            return self.request("GET", "/v2/?mark=0")[0] in (200, 401)
        except OSError:
            return False

    def request(self, *args):
        """One request of the test's own: (status, headers, body)."""
        return oci.request(self, *args)

    def requests(self, method=None, path=r""):
        """The requests served whose method and path fit: a list of (method, path, status, bytes)."""
        # The log is written when a request is done: one of our own comes after those before it.
        self.marks += 1
        mark = f"/v2/?mark={self.marks}"
        self.request("GET", mark)
        log = wait_for(lambda: (text := self.process.output()) and mark in text and text, mark)
        found = [(m[1], m[2], int(m[3]), int(m[4])) for m in self.ACCESS.finditer(log, self.forgotten)]
        return [entry for entry in found if (method is None or entry[0] == method)
                and "?mark=" not in entry[1] and re.search(path, entry[1])]

    def count(self, method=None, path=r""):
        return len(self.requests(method, path))

    def forget(self):
        """What was served so far no longer counts."""
        self.requests()
        self.forgotten = len(self.process.output())


class Mount:
    """One regfs in the foreground, mounted."""

    def __init__(self, test, source, options, args, name):
        self.test = test
        self.point = test.dir / name
        self.point.mkdir(exist_ok=True)
        self.options = {"cache_dir": test.dir / "cache", "store": test.dir / "store", **options}
        self.source, self.args = source, args
        self.log = test.dir / f"{name}.log"
        self.process = None
        self.start()

    def argv(self):
        options = [key if value is True else f"{key}={value}"
                   for key, value in self.options.items() if value is not None]
        source = [self.source] if self.source else []
        return [REGFS, "-f", *self.args, "-o", ",".join(options), *source, self.point]

    def start(self):
        self.process = Process(self.argv(), self.log)
        wait_for(self.is_mounted, f"the mount: {self.process.output()}")

    def is_mounted(self):
        if not self.process.running():
            raise AssertionError(f"regfs ended:\n{self.process.output()}")
        return str(self.point) in mounts_under(self.point)

    def path(self, *parts):
        return self.point.joinpath(*parts)

    def output(self):
        """What it wrote to stderr."""
        return self.process.output()

    def read_log(self):
        return self.path("_regfs/log").read_text()

    def stats(self):
        return json.loads(self.path("_regfs/stats.json").read_text())

    def stop(self, status=0):
        """Unmounts, and looks at how the program ended."""
        if self.process is None:
            return
        process, self.process = self.process, None
        if process.running():
            unmount(self.point)
        got = process.wait()
        if SANITIZER_WORDS.search(process.output()):
            raise AssertionError(f"a sanitizer spoke:\n{process.output()}")
        if got != status:
            raise AssertionError(f"regfs ended with {got}:\n{process.output()}")

    def kill(self):
        """As a power cut would."""
        self.process.signal(signal.SIGKILL)
        self.process.wait()
        self.process = None
        unmount(self.point)

    def restart(self):
        self.stop()
        self.start()


def unnamed_files(pid, directory):
    """{inode: bytes on disk} of the files below DIRECTORY that a process holds and that have no name."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/{pid}/fd/{name}")
            if target.startswith(f"{directory}/") and target.endswith("(deleted)"):
                stat = os.stat(f"/proc/{pid}/fd/{name}")
                found[stat.st_ino] = stat.st_blocks * 512
    return found


def unmount(point):
    command = ["umount", point] if os.geteuid() == 0 else ["fusermount3", "-u", point]
    deadline = time.monotonic() + 5
    while True:
        ended = subprocess.run(command, capture_output=True, text=True)
        # Other tests' `regfs status` looks into all mounts: that passes.
        if "busy" not in ended.stderr or time.monotonic() > deadline:
            break
        time.sleep(0.01)
    if ended.returncode != 0 and mounts_under(point):
        lazy = ["umount", "-l", point] if os.geteuid() == 0 else ["fusermount3", "-uz", point]
        subprocess.run(lazy, capture_output=True)
        raise AssertionError(f"{point} could not be unmounted: {ended.stderr.strip()}")


class Test:
    """One running test: its directory and all it has started."""

    def __init__(self, directory):
        self.dir = pathlib.Path(directory)
        self.stack = contextlib.ExitStack()
        self.names = 0
        # Nothing of the user's is read or written.
        home = self.dir / "home"
        home.mkdir()
        runtime = self.dir / "runtime"
        runtime.mkdir(mode=0o700)
        for key in [key for key in os.environ if key.startswith("XDG_") or key.endswith("_AUTH_FILE")
                    or key == "DOCKER_CONFIG"]:
            del os.environ[key]
        os.environ.update(HOME=str(home), XDG_RUNTIME_DIR=str(runtime), LC_ALL="C.UTF-8",
                          REGFS_TEST_DIR=str(self.dir))

    def close(self):
        self.stack.close()

    def name(self, prefix):
        self.names += 1
        return f"{prefix}{self.names}"

    def registry(self, storage=None, config=None, **where):
        registry = Registry(self.dir / self.name("registry"), storage, config, **where)
        self.stack.callback(registry.stop)
        return registry

    def bad_registry(self, **options):
        """The server that misbehaves on request (badregistry.py), in this process."""
        registry = self.stack.enter_context(badregistry.BadRegistry(**options))
        registry.forget = registry.requests.clear
        return registry

    def mount(self, source=None, *args, **options):
        """Mounts SOURCE; OPTIONS are -o options (True for those without a value)."""
        mount = Mount(self, source, options, list(args), self.name("mnt"))
        self.stack.callback(mount.stop)
        return mount

    def run(self, *argv, status=0, **options):
        """Runs a program to its end, with an expected exit status (None: any)."""
        options = {"stdin": subprocess.DEVNULL} | options
        if "input" in options:
            del options["stdin"]
        ended = subprocess.run([str(arg) for arg in argv], capture_output=True, check=False, **options)
        if status is not None and ended.returncode != status:
            raise AssertionError(f"{' '.join(map(str, argv))}: exit status {ended.returncode}, "
                                 f"expected {status}\n{ended.stdout.decode(errors='replace')}"
                                 f"{ended.stderr.decode(errors='replace')}")
        return ended

    def output(self, *argv, **options):
        return self.run(*argv, **options).stdout.decode(errors="surrogateescape")

    def start(self, *argv):
        """Starts a program in the background; it is ended with the test."""
        process = Process(argv, self.dir / self.name("process"))
        self.stack.callback(process.stop)
        return process

    def skopeo(self, *args, **options):
        need("skopeo")
        return self.output("skopeo", "--insecure-policy", *args, **options)


def note(text):
    """A line for the reader of a failed test's output."""
    print(text, file=sys.stderr)
