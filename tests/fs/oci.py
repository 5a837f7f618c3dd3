# SPDX-License-Identifier: Apache-2.0
"""Images as values: layers, config, manifest; written as an OCI layout or pushed by plain HTTP.

Knows image-spec and the push part of distribution-spec. Must not know regfs.
"""
import gzip
import hashlib
import http.client
import json
import pathlib
import subprocess
import urllib.parse

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
CREATED = "2024-05-06T07:08:09Z"
CREATED_NS = 1714979289 * 10**9


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def to_json(value):
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def zstd(data, level=3):
    return subprocess.run(["zstd", "-q", "-c", f"-{level}"], input=data, check=True,
                          capture_output=True).stdout


class Layer:
    """A layer's tar and how it is stored: "gzip", "zstd", "none", or bytes that stand for it."""

    def __init__(self, tar, compression="gzip", blob=None, media_type=None):
        self.tar = tar
        if blob is not None:
            self.blob = blob
        elif compression == "gzip":
            self.blob = gzip.compress(tar, 6, mtime=0)
        elif compression == "zstd":
            self.blob = zstd(tar)
        else:
            self.blob = tar
        suffix = {"gzip": "+gzip", "zstd": "+zstd", "none": ""}[compression]
        self.media_type = media_type or LAYER + suffix

    @property
    def diff_id(self):
        return sha256(self.tar)

    def descriptor(self):
        return {"mediaType": self.media_type, "digest": sha256(self.blob), "size": len(self.blob)}


class Image:
    """An image of these layers, bottom first. CONFIG is merged into its configuration."""

    def __init__(self, layers, config=None, annotations=None):
        self.layers = layers
        self.config = to_json({
            "architecture": "amd64", "os": "linux", "created": CREATED, "config": {},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
            "history": [{"created": CREATED, "created_by": f"step {number}"}
                        for number in range(1, len(layers) + 1)],
            **(config or {}),
        })
        manifest = {
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": sha256(self.config), "size": len(self.config)},
            "layers": [layer.descriptor() for layer in layers],
        }
        if annotations:
            manifest["annotations"] = annotations
        self.manifest = to_json(manifest)

    @property
    def digest(self):
        return sha256(self.manifest)

    def blobs(self):
        return {sha256(data): data for data in [self.config, *(layer.blob for layer in self.layers)]}

    def descriptor(self, tag=None):
        found = {"mediaType": MANIFEST, "digest": self.digest, "size": len(self.manifest)}
        if tag:
            found["annotations"] = {"org.opencontainers.image.ref.name": tag}
        return found

    def write_layout(self, directory, tag="latest"):
        """Makes DIRECTORY an OCI layout of this image."""
        blobs = pathlib.Path(directory) / "blobs/sha256"
        blobs.mkdir(parents=True)
        for digest, data in {**self.blobs(), self.digest: self.manifest}.items():
            (blobs / digest.removeprefix("sha256:")).write_bytes(data)
        (blobs.parent.parent / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
        index = {"schemaVersion": 2, "manifests": [self.descriptor(tag)]}
        (blobs.parent.parent / "index.json").write_bytes(to_json(index))

    def push(self, registry, repo, tag=None):
        """Pushes to a server with a port on the loopback; by its digest only where there is no TAG."""
        for digest, data in self.blobs().items():
            push_blob(registry, repo, digest, data)
        push_manifest(registry, repo, tag or self.digest, self.manifest, MANIFEST)
        return self


def artifact(files, artifact_type="application/vnd.test.sbom", subject=None, annotations=None):
    """An artifact of (title or None, bytes) pairs: its manifest, and its blobs by digest. SUBJECT is a descriptor."""
    empty = b"{}"
    layers = []
    for title, data in files:
        layer = {"mediaType": "text/plain", "digest": sha256(data), "size": len(data)}
        if title is not None:
            layer["annotations"] = {"org.opencontainers.image.title": title}
        layers.append(layer)
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": artifact_type,
                "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(empty), "size": 2},
                "layers": layers}
    if subject:
        manifest["subject"] = subject
    if annotations:
        manifest["annotations"] = annotations
    return to_json(manifest), {sha256(data): data for data in [empty, *(data for _, data in files)]}


def push_artifact(registry, repo, reference, files, **options):
    """Pushes it, by its digest where REFERENCE is None, and gives its descriptor."""
    manifest, blobs = artifact(files, **options)
    for digest, data in blobs.items():
        push_blob(registry, repo, digest, data)
    push_manifest(registry, repo, reference or sha256(manifest), manifest, MANIFEST)
    return {"mediaType": MANIFEST, "digest": sha256(manifest), "size": len(manifest),
            "artifactType": json.loads(manifest)["artifactType"]}


def make_index(images, registry=None, repo=None, tag=None):
    """The bytes of an index of (image, platform) pairs; pushed, with its images, where asked for."""
    entries = [{**image.descriptor(), "platform": platform} for image, platform in images]
    data = to_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
    if registry:
        for image, _ in images:
            image.push(registry, repo)
        push_manifest(registry, repo, tag or sha256(data), data, INDEX)
    return data


def request(registry, method, path, body=None, headers=None):
    """One request: (status, headers, body)."""
    address = getattr(registry, "address", "127.0.0.1")
    connection = http.client.HTTPConnection(address, registry.port, timeout=60)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def push_blob(registry, repo, digest, data):
    if request(registry, "HEAD", f"/v2/{repo}/blobs/{digest}")[0] == 200:
        return
    status, headers, body = request(registry, "POST", f"/v2/{repo}/blobs/uploads/", b"")
    assert status == 202, (status, body)
    where = urllib.parse.urlsplit(headers["Location"])
    query = "&".join(filter(None, [where.query, urllib.parse.urlencode({"digest": digest})]))
    status, _, body = request(registry, "PUT", f"{where.path}?{query}", data,
                              {"Content-Type": "application/octet-stream"})
    assert status == 201, (status, body)


def push_manifest(registry, repo, reference, data, media_type):
    status, _, body = request(registry, "PUT", f"/v2/{repo}/manifests/{reference}", data,
                              {"Content-Type": media_type})
    assert status == 201, (status, body)
