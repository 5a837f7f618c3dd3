# SPDX-License-Identifier: Apache-2.0
"""A registry at the other end of a wire of any length (delay.c), and the way into the namespace at this end.

Knows namespaces. Must not know what is measured over the wire.
"""
import contextlib
import ctypes
import os
import subprocess

from common import ROOT

SERVER = "10.203.0.2"
CLONE_NEWNET = 0x40000000


def enter(fd):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Wire:
    """One wire. Nothing of it has a name: it goes with its process."""

    def __init__(self):
        self.process = subprocess.Popen([ROOT / "build/bench/delay"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        ends = self.process.stdout.readline().split()
        if len(ends) != 2:
            raise RuntimeError("no namespaces or no TUN devices here")
        self.client, self.server = ends

    def round_trip(self, milliseconds):
        """Sets how long it is."""
        self.process.stdin.write(f"{milliseconds}\n")
        self.process.stdin.flush()
        self.process.stdout.readline()

    @contextlib.contextmanager
    def near(self):
        """This thread, and what it starts, is at the client's end."""
        with open("/proc/thread-self/ns/net", "rb") as home, open(self.client, "rb") as there:
            enter(there.fileno())
            try:
                yield
            finally:
                enter(home.fileno())

    def registry(self, bench, **options):
        """A registry at the server's end. To be called (and asked) from near()."""
        return bench.test.registry(address=SERVER, enter=["nsenter", f"--net={self.server}"], **options)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


@contextlib.contextmanager
def wire():
    """A wire, with this thread at its client's end."""
    one = Wire()
    try:
        with one.near():
            yield one
    finally:
        one.close()
