# SPDX-License-Identifier: Apache-2.0
"""Layers in zstd:chunked as containers/storage writes it since podman 5 (pkg/chunked: compressor, internal/minimal):
the annotations io.github.containers.…, names as the tar has them, chunks cut by content, runs of zeros as chunks of
their own, a tar-split behind the table, a footer of 64 bytes. Must not know regfs.
"""
import hashlib
import json
import struct

import oci
from tarfiles import Tar

ANNOTATION = "io.github.containers.zstd-chunked."
ZEROS_MIN = 1024
TIME = 1700000000
NANOSECONDS = 123456789


def skippable(data):
    """A frame that decoders pass over (RFC 8878, section 3.1.2)."""
    return struct.pack("<II", 0x184D2A50, len(data)) + data


def cuts(data):
    """Pieces of DATA: (bytes, whether they are only zeros)."""
    found, at = [], 0
    while at < len(data):
        zeros = len(data) - at - len(data[at:].lstrip(b"\0"))
        if zeros >= ZEROS_MIN:
            found.append((data[at:at + zeros], True))
        else:
            end = data.find(bytes(ZEROS_MIN), at)
            # of no round length, as a rolling hash finds them
            length = min((end if end >= 0 else len(data)) - at, 50_021 + at % 977)
            found.append((data[at:at + length], False))
        at += len(found[-1][0])
    return found


class ChunkedLayer(oci.Layer):
    """DIRS and FILES (name: bytes) below ./, and LINKS (name: target), hard ones."""

    def __init__(self, dirs, files, links):
        self.tar, self.frames, self.entries = b"", b"", []
        for name in ["", *dirs]:
            self.member("dir", f"./{name}/".replace("//", "/"), mode=0o755)
        for name, data in files.items():
            self.member("reg", f"./{name}", mode=0o644, data=data)
        for name, target in links.items():
            self.member("hardlink", f"./{name}", mode=0o644, linkName=f"./{target}")
        self.put(bytes(1024))
        super().__init__(self.tar, "zstd", blob=self.frames)
        self.add_table()

    def put(self, data):
        """DATA in a frame of its own: where that is."""
        off = len(self.frames)
        self.tar += data
        self.frames += oci.zstd(data, 1)
        return off

    def member(self, kind, name, mode, data=b"", **fields):
        tar = Tar().pax([("mtime", f"{TIME}.{NANOSECONDS}")])
        if kind == "dir":
            tar.dir(name, mode=mode)
        elif kind == "hardlink":
            tar.hard(name, fields["linkName"])
        else:
            tar.file(name, data, mode=mode)
        whole = b"".join(tar.parts)
        padding = -len(data) % 512
        self.put(whole[:len(whole) - padding - len(data)])
        entry = {"type": kind, "name": name, "mode": mode, "modtime": f"2023-11-14T22:13:20.{NANOSECONDS}Z", **fields}
        self.entries.append(entry)
        if data:
            self.add_chunks(entry, name, data)
        if padding:
            self.put(bytes(padding))

    def add_chunks(self, entry, name, data):
        pieces, at = cuts(data), 0
        entry |= {"size": len(data), "digest": oci.sha256(data)}
        for piece, zeros in pieces:
            chunk = {"offset": self.put(piece)}
            if len(pieces) > 1:
                chunk |= {"chunkSize": len(piece), "chunkDigest": oci.sha256(piece)}
            if zeros:
                chunk["chunkType"] = "zeros"
            if at:
                self.entries.append({"type": "chunk", "name": name, "chunkOffset": at} | chunk)
            else:
                entry |= chunk
            at += len(piece)
        entry["endOffset"] = len(self.frames)

    def add_table(self):
        split = b'{"type":2,"payload":""}\n'
        table = json.dumps({"version": 1, "entries": self.entries, "tarSplitDigest": oci.sha256(split)}).encode()
        packed = [(oci.zstd(data, 1), len(data)) for data in (table, split)]
        places = []
        for data, decoded in packed:
            places.append((len(self.blob) + 8, len(data), decoded))
            self.blob += skippable(data)
        numbers = [*places[0], 1, *places[1]]
        self.blob += skippable(struct.pack("<7Q", *numbers) + b"GNUlInUx")
        self.annotations = {
            f"{ANNOTATION}manifest-checksum": "sha256:" + hashlib.sha256(packed[0][0]).hexdigest(),
            f"{ANNOTATION}manifest-position": ":".join(map(str, numbers[:4])),
            f"{ANNOTATION}tarsplit-position": ":".join(map(str, numbers[4:])),
        }

    def descriptor(self):
        return super().descriptor() | {"annotations": self.annotations}
