# SPDX-License-Identifier: Apache-2.0
"""A reader of SOCI indexes: what upstream's would make of a ztoc, span by span, and what it would refuse.

After soci-snapshotter's ztoc/fbs/ztoc.fbs, ztoc/ztoc_marshaler.go, ztoc/compression/gzip_zinfo.c and
fs/span-manager/span_manager.go, and FlatBuffers' internals (https://flatbuffers.dev/internals/). Must not know regfs:
nothing of its code is used.
"""
import ctypes
import json
import struct
import zlib

import oci
import soci

WINDOW, POINT = soci.WINDOW, 17 + soci.WINDOW


class Table:
    """A table at AT of DATA; fields by their numbers."""

    def __init__(self, data, at):
        self.data, self.at = data, at
        assert at % 4 == 0, "a table is not aligned"
        self.vtable = at - self.number(at, "i")
        self.length, self.size = self.number(self.vtable, "H"), self.number(self.vtable + 2, "H")

    def number(self, at, kind):
        return struct.unpack_from("<" + kind, self.data, at)[0]

    def place(self, field):
        if 4 + 2 * field >= self.length:
            return 0
        offset = self.number(self.vtable + 4 + 2 * field, "H")
        assert offset < self.size, "a field is outside of its table"
        return self.at + offset if offset else 0

    def scalar(self, field, kind, default=0):
        at = self.place(field)
        assert at % struct.calcsize(kind) == 0, "a field is not aligned"
        return self.number(at, kind) if at else default

    def follow(self, at):
        return at + self.number(at, "I")

    def table(self, field):
        return Table(self.data, self.follow(self.place(field)))

    def bytes_at(self, at):
        length = self.number(at, "I")
        assert at + 4 + length <= len(self.data), "cut off"
        return self.data[at + 4:at + 4 + length]

    def bytes(self, field):
        return self.bytes_at(self.follow(self.place(field))) if self.place(field) else b""

    def text(self, field):
        if not self.place(field):
            return ""
        at = self.follow(self.place(field))
        value = self.bytes_at(at)
        assert self.data[at + 4 + len(value)] == 0, "no NUL behind a string"
        return value.decode(errors="surrogateescape")

    def vector(self, field):
        """Where the things are that a vector refers to."""
        if not self.place(field):
            return []
        at = self.follow(self.place(field))
        assert at % 4 == 0, "a vector is not aligned"
        return [self.follow(at + 4 + 4 * n) for n in range(self.number(at, "I"))]


def root(data):
    return Table(data, struct.unpack_from("<I", data, 0)[0])


class Ztoc:
    """Like soci.describe(): .files as soci.members() has them, and .spans."""

    def __init__(self, data):
        top = root(data)
        toc, info = top.table(4), top.table(5)
        self.version, self.tool = top.text(0), top.text(1)
        self.size, self.tar_size = top.scalar(2, "q"), top.scalar(3, "q")
        self.files = [self.file(Table(data, at)) for at in toc.vector(0)]
        self.algorithm = info.scalar(0, "b", soci.GZIP)
        self.digests = [info.bytes_at(at).decode() for at in info.vector(2)]
        read_points = self.gzip_points if self.algorithm == soci.GZIP else self.plain_points
        self.points = read_points(info.bytes(3))
        assert info.scalar(1, "i") == len(self.points) - 1 == len(self.digests) - 1
        starts = [point[0] - bool(point[2]) for point in self.points]
        ends = [point[0] for point in self.points[1:]] + [self.size]
        outs = [point[1] for point in self.points] + [self.tar_size]
        assert all(a < b for a, b in zip(starts, ends)) and all(a < b for a, b in zip(outs, outs[1:])), "not monotonic"
        self.spans = list(zip(starts, ends, outs, outs[1:]))

    @staticmethod
    def file(table):
        pax = {Table(table.data, at).text(0): Table(table.data, at).text(1) for at in table.vector(13)}
        return {"name": table.text(0), "type": table.text(1), "off": table.scalar(2, "q"), "size": table.scalar(3, "q"),
                "link": table.text(4), "mode": table.scalar(5, "q"), "uid": table.scalar(6, "I"),
                "gid": table.scalar(7, "I"), "time": table.text(10), "major": table.scalar(11, "q"),
                "minor": table.scalar(12, "q"), "pax": pax}

    def gzip_points(self, data):
        count, self.span_size = struct.unpack_from("<iq", data)
        assert len(data) == 12 + count * POINT, "the checkpoints are not as many as they say"
        return [struct.unpack_from("<qqB", data, at) + (data[at + 17:at + POINT],)
                for at in range(12, len(data), POINT)]

    def plain_points(self, data):
        table = root(data)
        assert table.scalar(0, "i") == 2
        self.span_size, size = table.scalar(1, "q"), table.scalar(2, "q")
        assert size == self.size == self.tar_size
        return [(off, off, 0, b"") for off in range(0, size, self.span_size)]

    def read_span(self, blob, n):
        """What readers before version 0.14 make of a span: they do not go on behind a gzip member's end."""
        start, end, out, out_end = self.spans[n]
        piece = blob[start:end]
        assert oci.sha256(piece) == self.digests[n], f"the digest of span {n}"
        if self.algorithm != soci.GZIP:
            return piece
        return inflate_raw(piece, self.points[n], out_end - out)

    def read(self, blob):
        assert len(blob) == self.size
        if self.algorithm == soci.GZIP:  # what is before the first point is a gzip header, whole
            zlib.decompressobj(31).decompress(blob[:self.points[0][0]] + b"\x03\0" + bytes(8))
        return b"".join(self.read_span(blob, n) for n in range(len(self.spans)))


def inflate_raw(piece, point, size):
    """SIZE bytes from POINT on, at most to the end of the deflate stream."""
    _, _, bits, window = point
    z = ctypes.CDLL("libz.so.1")
    z.zlibVersion.restype = ctypes.c_char_p
    out = ctypes.create_string_buffer(size)
    source = ctypes.create_string_buffer(piece, len(piece))
    skip = 1 if bits else 0
    stream = soci.Stream(next_in=ctypes.addressof(source) + skip, avail_in=len(piece) - skip,
                         next_out=ctypes.addressof(out), avail_out=size)
    assert z.inflateInit2_(ctypes.byref(stream), -15, z.zlibVersion(), ctypes.sizeof(stream)) == 0
    try:
        if bits:
            assert z.inflatePrime(ctypes.byref(stream), bits, piece[0] >> (8 - bits)) == 0
        assert z.inflateSetDictionary(ctypes.byref(stream), window, WINDOW) == 0
        result = z.inflate(ctypes.byref(stream), 0)
        assert result in (0, 1), f"inflate: {result}"
        return out.raw[:size - stream.avail_out]
    finally:
        z.inflateEnd(ctypes.byref(stream))


def indexes(registry, repo, subject):
    """{digest: manifest} of the SOCI indexes of version 1 that the fallback tag of SUBJECT names."""
    status, _, body = oci.request(registry, "GET", f"/v2/{repo}/manifests/{subject.replace(':', '-')}", None,
                                  {"Accept": oci.INDEX})
    assert status == 200, status
    found = {}
    for entry in json.loads(body)["manifests"]:
        if entry.get("artifactType") != soci.TYPE % 1:
            continue
        _, _, data = oci.request(registry, "GET", f"/v2/{repo}/manifests/{entry['digest']}", None,
                                 {"Accept": oci.MANIFEST})
        assert oci.sha256(data) == entry["digest"] and len(data) == entry["size"]
        found[entry["digest"]] = json.loads(data)
    return found


def ztocs(registry, repo, manifest):
    """{layer digest: (Ztoc, its descriptor)} of an index."""
    found = {}
    for entry in manifest["layers"]:
        status, _, data = oci.request(registry, "GET", f"/v2/{repo}/blobs/{entry['digest']}")
        assert status == 200 and oci.sha256(data) == entry["digest"] and len(data) == entry["size"]
        found[entry["annotations"][soci.LAYER_DIGEST]] = Ztoc(data), entry
    return found
