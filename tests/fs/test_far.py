# SPDX-License-Identifier: Apache-2.0
"""The first look into a layer over a long way: in parts, over several connections. Counted in requests; the registry
answers all that has been asked when nobody has asked for a while, as if it were far."""
import contextlib
import errno
import random
import re

import lib
import oci
import tarfiles

PART = 4 << 20
WHILE = 0.05
NOISE = random.Random(7).randbytes(2 * PART + 300_000)
LAYER = oci.Layer(tarfiles.Tar().file("noise", NOISE).end(), "none")
BLOB = f"/blobs/{LAYER.descriptor()['digest']}"
SIZE = len(LAYER.blob)


def far(t, *faults):
    """A far registry, with FAULTS in what comes of the layer, and its mount."""
    registry = t.bad_registry()
    oci.Image([LAYER]).push(registry, "app", "1")
    registry.clear()
    for fault in faults:
        registry.rule("GET", BLOB, gather=WHILE, **fault)
    registry.rule("GET", "", gather=WHILE)
    return registry, t.mount(registry.host, log="error", cache_dir=t.dir / t.name("cache"))


def read(mount):
    return mount.path("app:1/rootfs/noise").read_bytes()


def ranges(registry):
    return [request["headers"].get("range") for request in registry.seen("GET", BLOB)]


def part(number):
    return f"bytes={number * PART}-{min((number + 1) * PART, SIZE) - 1}"


def test_first_look_comes_in_parts(t):
    registry, mount = far(t)
    assert read(mount) == NOISE
    lib.equal(sorted(ranges(registry)), sorted(part(number) for number in range(3)))
    # The first one alone; the others when it was seen that this registry has ranges: on connections of their own.
    lib.equal(len({request["client"] for request in registry.seen("GET", BLOB)[1:]}), 2)
    assert mount.stats()["http_bytes_in"] < SIZE + 2000


def test_no_ranges_after_all(t):
    """200 with all of it (RFC 9110, section 14.2: a server may ignore the field); and another range than was asked
    for, or a range without saying which."""
    for fault in ({"ignore_range": True}, {"set": {"Content-Range": "bytes 0-5/6"}}, {"set": {"Content-Range": None}}):
        registry, mount = far(t, fault)
        assert read(mount) == NOISE, fault
        asked = ranges(registry)
        assert len(asked) <= 4 and asked[-1] is None, asked
        mount.stop()


def test_one_part_breaks_off(t):
    registry, mount = far(t, {"skip": 1, "times": 1, "truncate": 100_000})
    assert read(mount) == NOISE
    asked = ranges(registry)
    assert len(asked) == 4, asked
    assert asked[3] in [part(number).replace(str(number * PART), str(number * PART + 100_000)) for number in (1, 2)]


def test_one_part_is_refused(t):
    """The rest comes by one stream, from there on."""
    registry, mount = far(t, {"skip": 1, "times": 1, "status": 400})
    assert read(mount) == NOISE
    refused = re.match(r"bytes=(\d+)-", ranges(registry)[1])[1]
    lib.equal(ranges(registry)[3:], [f"bytes={refused}-"])


def test_one_part_is_wrong(t):
    """Nothing is shown of it; the next one who looks gets it by one stream."""
    registry, mount = far(t, {"skip": 2, "times": 1, "flip": 1000})
    with lib.fails(errno.EIO):
        read(mount)
    lib.equal(len(ranges(registry)), 3)
    assert LAYER.descriptor()["digest"] in mount.read_log()

    def comes():
        with contextlib.suppress(OSError):
            return read(mount) == NOISE

    lib.wait_for(comes, "the layer")
    lib.equal(ranges(registry)[3:], [None])


def test_bytes_follow_the_manifest_on_its_connection(t):
    """Which saves them the trips that one of their own takes."""
    registry, mount = far(t)
    lib.equal(read(mount), NOISE)
    [manifest] = registry.seen("GET", "/manifests/1$")
    lib.equal(registry.seen("GET", "/blobs/")[0]["client"], manifest["client"])
