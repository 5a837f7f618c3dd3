# SPDX-License-Identifier: Apache-2.0
"""A writer of tar archives that does exactly what it is told, also what no tar program would.

Python's tarfile tidies names up and knows neither the GNU sparse formats for writing nor mistakes.
Knows the formats ustar, PAX (POSIX.1-2001, pax) and GNU. Must not know images.
"""

BLOCK = 512
MTIME = 1700000000  # of entries that name none


def octal(value, width):
    return b"%0*o\0" % (width - 1, value)


def base256(value, width):
    """GNU's way to write what does not fit into octal digits, negative numbers too."""
    return bytes([0xff if value < 0 else 0x80]) + (value % (1 << 8 * (width - 1))).to_bytes(width - 1, "big")


def number(value, width):
    return octal(value, width) if 0 <= value < 8 ** (width - 1) else base256(value, width)


def padded(data):
    return data + bytes(-len(data) % BLOCK)


def as_bytes(text):
    return text.encode() if isinstance(text, str) else text


class Tar:
    """Collects entries. Each add_… returns self."""

    def __init__(self, gnu=False):
        self.gnu = gnu
        self.parts = []

    # What the entries are made of.

    def header(self, name, kind, **fields):
        """One header block. Names must fit: long ones are the caller's to arrange."""
        get = fields.get
        prefix = as_bytes(get("prefix", b""))
        block = bytearray(BLOCK)
        for offset, width, value in [
                (0, 100, as_bytes(name)), (100, 8, number(get("mode", 0o644), 8)),
                (108, 8, number(get("uid", 0), 8)), (116, 8, number(get("gid", 0), 8)),
                (124, 12, (base256 if get("force_base256") else number)(get("size", 0), 12)),
                (136, 12, number(get("mtime", MTIME), 12)), (148, 8, b" " * 8), (156, 1, kind),
                (157, 100, as_bytes(get("target", b""))),
                (257, 8, b"ustar  \0" if self.gnu else b"ustar\x0000"),
                (329, 8, octal(get("major", 0), 8)), (337, 8, octal(get("minor", 0), 8)),
                (345, 155, prefix), *get("raw", [])]:
            assert len(value) <= width, (name, value)
            block[offset:offset + len(value)] = value
        block[148:156] = b"%06o\0 " % sum(block)
        self.parts.append(bytes(block))
        return self

    def pax(self, records, kind=b"x"):
        """A PAX header with these (key, value) records, for the next entry."""
        data = b""
        for key, value in records:
            rest = b" %s=%s\n" % (as_bytes(key), as_bytes(value))
            length = len(rest)
            while len(b"%d" % length) + len(rest) != length:
                length = len(b"%d" % length) + len(rest)
            data += b"%d" % length + rest
        self.header("PaxHeaders/x", kind, size=len(data))
        self.parts.append(padded(data))
        return self

    def gnu_long(self, name=None, target=None):
        """GNU's @LongLink entries for the next entry."""
        for kind, text in ((b"K", target), (b"L", name)):
            if text is not None:
                data = as_bytes(text) + b"\0"
                self.header("././@LongLink", kind, size=len(data), mode=0, mtime=0)
                self.parts.append(padded(data))
        return self

    def raw(self, data):
        self.parts.append(data)
        return self

    # Entries.

    def file(self, name, data=b"", **fields):
        data = as_bytes(data)
        self.header(name, fields.pop("kind", b"0"), size=len(data), **fields)
        return self.raw(padded(data))

    def dir(self, name, **fields):
        return self.header(name, b"5", **{"mode": 0o755, **fields})

    def link(self, name, target, **fields):
        return self.header(name, b"2", target=target, **{"mode": 0o777, **fields})

    def hard(self, name, target, **fields):
        return self.header(name, b"1", target=target, **fields)

    def device(self, name, kind, major, minor, **fields):
        return self.header(name, {"char": b"3", "block": b"4"}[kind], major=major, minor=minor,
                           **{"mode": 0o600, **fields})

    def fifo(self, name, **fields):
        return self.header(name, b"6", **{"mode": 0o600, **fields})

    def whiteout(self, name):
        """The marker that deletes NAME of the layers below."""
        head, _, tail = name.rpartition("/")
        return self.file(f"{head}/.wh.{tail}" if head else f".wh.{tail}")

    def opaque(self, directory):
        return self.file(f"{directory}/.wh..wh..opq" if directory else ".wh..wh..opq")

    # Sparse files: EXTENTS are (offset, bytes), SIZE is the whole.

    def sparse_old(self, name, size, extents, **fields):
        """GNU's old format: type S, four extents in the header, 21 in each further block."""
        entries = [octal(offset, 12) + octal(len(data), 12) for offset, data in extents]
        first, rest = b"".join(entries[:4]), entries[4:]
        self.header(name, b"S", size=sum(len(data) for _, data in extents), prefix=b"",
                    raw=[(257, 8, b"ustar  \0"), (345, 155, bytes(155)), (386, 96, first), (482, 1, bytes([bool(rest)])),
                         (483, 12, octal(size, 12))], **fields)
        while rest:
            block, rest = b"".join(rest[:21]), rest[21:]
            self.raw(block.ljust(504, b"\0") + bytes([bool(rest)]) + bytes(7))
        return self.raw(padded(b"".join(data for _, data in extents)))

    def sparse_00(self, name, size, extents, **fields):
        records = [("GNU.sparse.size", str(size)), ("GNU.sparse.numblocks", str(len(extents)))]
        for offset, data in extents:
            records += [("GNU.sparse.offset", str(offset)), ("GNU.sparse.numbytes", str(len(data)))]
        self.pax(records)
        return self.file(name, b"".join(data for _, data in extents), **fields)

    def sparse_01(self, name, size, extents, **fields):
        table = ",".join(f"{offset},{len(data)}" for offset, data in extents)
        self.pax([("GNU.sparse.size", str(size)), ("GNU.sparse.numblocks", str(len(extents))),
                  ("GNU.sparse.name", name), ("GNU.sparse.map", table)])
        return self.file(f"GNUSparseFile.1/{name}"[:100], b"".join(data for _, data in extents), **fields)

    def sparse_10(self, name, size, extents, **fields):
        table = f"{len(extents)}\n" + "".join(f"{offset}\n{len(data)}\n" for offset, data in extents)
        self.pax([("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.name", name),
                  ("GNU.sparse.realsize", str(size))])
        return self.file(f"GNUSparseFile.1/{name}"[:100],
                         padded(table.encode()) + b"".join(data for _, data in extents), **fields)

    def end(self):
        """The archive's bytes, with its end marker."""
        return b"".join(self.parts) + bytes(2 * BLOCK)

    def cut(self, length=None):
        """The archive's bytes without an end marker, cut off at LENGTH."""
        return b"".join(self.parts)[:length]
