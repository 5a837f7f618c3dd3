# SPDX-License-Identifier: Apache-2.0
"""The program whose start is measured: a python3 service as they are, up to where it would begin to serve.

Knows what it imports and which files that takes. Must not know how it is started.
"""
import os
import re
import subprocess

SOURCE = """
import argparse, asyncio, concurrent.futures, csv, dataclasses, datetime, decimal, email.message, hashlib
import http.server, json, logging.handlers, multiprocessing, sqlite3, ssl, subprocess, tempfile, typing
import unicodedata, urllib.request, uuid, xml.etree.ElementTree, zipfile
with sqlite3.connect(":memory:") as database:
    database.execute("create table visits (name text)")
async def main():
    return json.dumps({"ready": ssl.OPENSSL_VERSION, "id": str(uuid.uuid4())})
print(asyncio.run(main()))
"""
ARGV = ["/usr/bin/python3", "-c", SOURCE]


def in_chroot(root):
    return ["chroot", root, *ARGV]


def files_read(root):
    """{path in ROOT: bytes} of the regular files that the program opens or runs."""
    ended = subprocess.run(["strace", "-f", "-qq", "-y", "-e", "trace=open,openat", *in_chroot(root)],
                           capture_output=True, text=True, check=True)
    root = os.path.realpath(root)
    paths = set(re.findall(rf"= \d+<({re.escape(root)}/[^>]*)>", ended.stderr))
    # These two the kernel opens itself.
    for path in ("/usr/bin/python3", "/lib64/ld-linux-x86-64.so.2"):
        paths.add(os.path.join(root, os.path.realpath(root + path).removeprefix("/")))
    return {path.removeprefix(root): os.path.getsize(path) for path in paths if os.path.isfile(path)}
