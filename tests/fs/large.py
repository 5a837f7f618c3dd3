# SPDX-License-Identifier: Apache-2.0
"""Layers too large to be held: many members, or many bytes; made as a stream, in constant memory.

Knows tar headers and gzip. Must not know what reads them.
"""
import hashlib
import struct
import zlib

import oci
import tarfiles

MIB = 1 << 20


class Layer(oci.Layer):
    """A gzip layer of the bytes that PIECES yields. A piece that comes again as the same object costs next to
    nothing, but for the sums of all bytes: SUMS, (their SHA-256, their CRC-32, their number), if they are known."""

    def __init__(self, pieces, sums=None):
        # pylint: disable=super-init-not-called
        digest, crc, size = hashlib.sha256(), 0, 0
        packer, packed = zlib.compressobj(1, zlib.DEFLATED, -15), {}
        out = [b"\x1f\x8b\x08\0\0\0\0\0\0\xff"]
        for piece in pieces:
            if not sums:
                digest.update(piece)
                crc, size = zlib.crc32(piece, crc), size + len(piece)
            # After a full flush the same bytes are packed the same way again.
            if id(piece) not in packed:
                packed[id(piece)] = (piece, packer.compress(piece) + packer.flush(zlib.Z_FULL_FLUSH))
            out.append(packed[id(piece)][1])
        self.sums = sums or (digest.hexdigest(), crc, size)
        out += [packer.flush(), struct.pack("<II", self.sums[1], self.sums[2] % (1 << 32))]
        self.blob = b"".join(out)
        self.media_type = oci.LAYER + "+gzip"

    @property
    def diff_id(self):
        return "sha256:" + self.sums[0]


def many_files(directories, files_each):
    """The pieces of a tar of so many files of a line each, as dNNN/fNNN."""
    header = tarfiles.Tar().header("NAME", b"0", size=5).parts[0]
    plain = sum(header) - sum(header[148:156]) + 8 * ord(" ") - sum(b"NAME")
    data = tarfiles.padded(b"line\n")
    for directory in range(directories):
        name = f"d{directory:03}"
        parts = tarfiles.Tar().dir(name).parts
        for number in range(files_each):
            path = b"%s/f%03d" % (name.encode(), number)
            checksum = b"%06o\0 " % (plain + sum(path))
            parts += [path.ljust(100, b"\0"), header[100:148], checksum, header[156:], data]
        yield b"".join(parts)
    yield bytes(1024)


def big_file(name, size, words):
    """The pieces of a tar of one file of SIZE bytes (a multiple of a MiB): zeros, but for WORDS {offset: bytes}."""
    yield b"".join(tarfiles.Tar().header(name, b"0", size=size).parts)
    zeros = bytes(MIB)
    for at in range(0, size, MIB):
        here = {offset - at + i: word[i:i + 1] for offset, word in words.items() for i in range(len(word))
                if at <= offset + i < at + MIB}
        piece = bytearray(zeros) if here else zeros
        for offset, byte in here.items():
            piece[offset:offset + 1] = byte
        yield piece
    yield bytes(1024)
