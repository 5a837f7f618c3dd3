# SPDX-License-Identifier: Apache-2.0
"""A writer of SOCI indexes: ztocs by the published schema, and the manifests that name them.

After soci-snapshotter's ztoc/fbs/ztoc.fbs, ztoc/compression/gzip_zinfo.h and soci/soci_index.go, and FlatBuffers'
internals (https://flatbuffers.dev/internals/). Must not know regfs: nothing of its code is used.
"""
import ctypes
import hashlib
import io
import json
import struct
import tarfile
import time
import zlib

import oci

TYPE = "application/vnd.amazon.soci.index.v%d+json"
INDEX_DIGEST = "com.amazon.soci.index-digest"
LAYER_DIGEST = "com.amazon.soci.image-layer-digest"
MANIFEST_DIGEST = "com.amazon.soci.image-manifest-digest"
WINDOW = 32768
GZIP, PLAIN = 1, 2


# --- FlatBuffers: a table is a list of fields, None where absent


class Table:
    """FIELDS are None, (format, number) pairs, or what has a write() of its own."""

    def __init__(self, *fields):
        self.fields = fields

    def write(self, out):
        offsets, size = [], 4
        for field in self.fields:
            width = 4 if not isinstance(field, tuple) else struct.calcsize(field[0])
            size += -size % width
            offsets.append(0 if field is None else size)
            size += 0 if field is None else width
        out += bytes(-len(out) % 2)
        vtable = len(out)
        out += struct.pack(f"<{2 + len(offsets)}H", 4 + 2 * len(offsets), size, *offsets)
        out += bytes(-len(out) % 8)  # the widest field's alignment, seen from the document's start
        at = len(out)
        out += bytes(size)
        struct.pack_into("<i", out, at, at - vtable)
        for offset, field in zip(offsets, self.fields):
            if isinstance(field, tuple):
                struct.pack_into("<" + field[0], out, at + offset, field[1])
            elif field is not None:
                link(out, at + offset, field)
        return at


class Vector:
    def __init__(self, items):
        self.items = items

    def write(self, out):
        out += bytes(-len(out) % 4)
        at = len(out)
        out += struct.pack("<I", len(self.items)) + bytes(4 * len(self.items))
        for n, item in enumerate(self.items):
            link(out, at + 4 + 4 * n, item)
        return at


class Bytes:
    """A string, or a vector of bytes (ALIGN for what lies in it)."""

    def __init__(self, data, align=4):
        self.data, self.align = data.encode() if isinstance(data, str) else data, align

    def write(self, out):
        out += bytes(-(len(out) + 4) % self.align)
        at = len(out)
        out += struct.pack("<I", len(self.data)) + self.data + b"\0"
        return at


def link(out, at, child):
    struct.pack_into("<I", out, at, child.write(out) - at)


def document(root):
    out = bytearray(8)
    link(out, 0, root)
    return bytes(out)


# --- checkpoints


class Stream(ctypes.Structure):
    """zlib's z_stream: Python's zlib module does not stop at the ends of blocks."""
    _fields_ = [("next_in", ctypes.c_void_p), ("avail_in", ctypes.c_uint), ("total_in", ctypes.c_ulong),
                ("next_out", ctypes.c_void_p), ("avail_out", ctypes.c_uint), ("total_out", ctypes.c_ulong),
                ("msg", ctypes.c_char_p), ("state", ctypes.c_void_p), ("zalloc", ctypes.c_void_p),
                ("zfree", ctypes.c_void_p), ("opaque", ctypes.c_void_p), ("data_type", ctypes.c_int),
                ("adler", ctypes.c_ulong), ("reserved", ctypes.c_ulong)]


def checkpoints(blob, span_size):
    """[in, out, bits, window] of places to resume at, more than SPAN_SIZE decoded bytes apart. All members."""
    z = ctypes.CDLL("libz.so.1")
    z.zlibVersion.restype = ctypes.c_char_p
    tar_len = len(decoded(blob))
    out = ctypes.create_string_buffer(tar_len + 1)
    source = ctypes.create_string_buffer(blob, len(blob))
    stream = Stream(next_in=ctypes.addressof(source), avail_in=len(blob), next_out=ctypes.addressof(out),
                    avail_out=tar_len + 1)
    assert z.inflateInit2_(ctypes.byref(stream), 47, z.zlibVersion(), ctypes.sizeof(stream)) == 0
    found, base_in, base_out = [], 0, 0
    try:
        while True:
            result = z.inflate(ctypes.byref(stream), 5)  # Z_BLOCK
            assert result in (0, 1), result
            total_in, total_out = base_in + stream.total_in, base_out + stream.total_out
            if result == 1:
                if stream.avail_in == 0:
                    return found
                base_in, base_out = total_in, total_out
                assert z.inflateReset2(ctypes.byref(stream), 47) == 0
                continue
            at_block = stream.data_type & 128 and not stream.data_type & 64
            if at_block and (not found or total_out - found[-1][1] > span_size):
                window = out.raw[max(total_out - WINDOW, 0):total_out].rjust(WINDOW, b"\0")
                found.append([total_in, total_out, stream.data_type & 7, window])
    finally:
        z.inflateEnd(ctypes.byref(stream))


def decoded(blob):
    if blob[:2] != b"\x1f\x8b":
        return blob
    data = b""
    while blob:
        inflater = zlib.decompressobj(31)
        data += inflater.decompress(blob)
        blob = inflater.unused_data
    return data


def pack_checkpoints(points, span_size, headless):
    kept = points[1:] if headless else points
    return struct.pack("<iq", len(points), span_size) + b"".join(
        struct.pack("<qqB", offset_in, offset_out, bits) + window for offset_in, offset_out, bits, window in kept)


# --- a ztoc


TYPES = {tarfile.REGTYPE: "reg", tarfile.AREGTYPE: "reg", tarfile.DIRTYPE: "dir", tarfile.SYMTYPE: "symlink",
         tarfile.LNKTYPE: "hardlink", tarfile.CHRTYPE: "char", tarfile.BLKTYPE: "block", tarfile.FIFOTYPE: "fifo"}


def members(tar):
    found = []
    with tarfile.open(fileobj=io.BytesIO(tar), errors="surrogateescape") as archive:
        for member in archive:
            seconds, fraction = divmod(float(member.mtime), 1)
            when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
            when += f"{fraction:.9f}".rstrip("0").lstrip("0").rstrip(".") + "Z"
            pax = {key: value for key, value in member.pax_headers.items()}
            kind = TYPES[member.type]
            found.append({
                "name": member.name + ("/" if kind == "dir" else ""), "type": kind, "off": member.offset_data,
                "size": member.size if kind == "reg" else 0, "link": member.linkname, "mode": member.mode,
                "uid": member.uid, "gid": member.gid, "time": when, "major": member.devmajor, "minor": member.devminor,
                "pax": pax})
    return found


def text(value):
    return Bytes(value.encode(errors="surrogateescape"))


def file_table(file):
    records = [Table(text(key), text(value)) for key, value in sorted(file["pax"].items())]
    return Table(text(file["name"]), text(file["type"]), ("q", file["off"]), ("q", file["size"]), text(file["link"]),
                 ("q", file["mode"]), ("I", file["uid"]), ("I", file["gid"]), text(""), text(""), text(file["time"]),
                 ("q", file["major"]), ("q", file["minor"]), Vector(records))


def describe(blob, span_size):
    """What a ztoc of BLOB says, for serialize()."""
    tar = decoded(blob)
    about = {"version": "0.9", "size": len(blob), "tar_size": len(tar), "files": members(tar),
             "span_size": span_size, "headless": False}
    if blob[:2] == b"\x1f\x8b":
        points = checkpoints(blob, span_size)
        starts = [point[0] - bool(point[2]) for point in points]
        ends = [point[0] for point in points[1:]] + [len(blob)]
        about |= {"algorithm": GZIP, "points": points}
    else:
        starts = list(range(0, len(blob), span_size))
        ends = starts[1:] + [len(blob)]
        about |= {"algorithm": PLAIN, "plain_size": len(blob)}
    about["digests"] = [oci.sha256(blob[start:end]) for start, end in zip(starts, ends)]
    about["spans"] = list(zip(starts, ends))
    return about


def serialize(about):
    if about["algorithm"] == GZIP:
        points = pack_checkpoints(about["points"], about["span_size"], about["headless"])
    else:
        points = document(Table(("i", 2), ("q", about["span_size"]), ("q", about["plain_size"])))
    info = Table(("b", about["algorithm"]), ("i", len(about["digests"]) - 1),
                 Vector([Bytes(digest) for digest in about["digests"]]), Bytes(points, align=8))
    toc = Table(Vector([file_table(file) for file in about["files"]]))
    return document(Table(Bytes(about["version"]), Bytes("tests"), ("q", about["size"]), ("q", about["tar_size"]),
                          toc, info))


def build(blob, span_size, change=lambda about: None):
    about = describe(blob, span_size)
    change(about)
    return serialize(about)


# --- an index


def index(ztocs, version=2, subject=None):
    """(manifest, blobs) of an index of (layer blob, ztoc) pairs."""
    layers = [{"mediaType": "application/octet-stream", "digest": oci.sha256(ztoc), "size": len(ztoc),
               "annotations": {LAYER_DIGEST: oci.sha256(blob)}} for blob, ztoc in ztocs]
    manifest = {"schemaVersion": 2, "mediaType": oci.MANIFEST, "layers": layers,
                "config": {"mediaType": TYPE % version, "digest": oci.sha256(b"{}"), "size": 2}}
    if subject:
        manifest["subject"] = subject
    return oci.to_json(manifest), {oci.sha256(data): data for data in [b"{}", *(ztoc for _, ztoc in ztocs)]}


def push_index(registry, repo, ztocs, **options):
    """Pushes it by its digest; gives its descriptor."""
    manifest, blobs = index(ztocs, **options)
    for digest, data in blobs.items():
        oci.push_blob(registry, repo, digest, data)
    oci.push_manifest(registry, repo, oci.sha256(manifest), manifest, oci.MANIFEST)
    return {"mediaType": oci.MANIFEST, "digest": oci.sha256(manifest), "size": len(manifest),
            "artifactType": json.loads(manifest)["config"]["mediaType"]}
