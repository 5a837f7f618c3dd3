# SPDX-License-Identifier: Apache-2.0
"""Manifests as registries have them: old, odd and large ones, other digests, content of their own."""
import base64
import errno
import hashlib
import json
import os

import lib
import oci
import sample

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"


def sha512(data):
    return "sha512:" + hashlib.sha512(data).hexdigest()


# --- what it says it is ---


def test_schema_1(t):
    registry = t.bad_registry()
    old = {"schemaVersion": 1, "name": "old", "tag": "1", "fsLayers": [], "history": []}
    registry.add_manifest("old", "1", json.dumps(old).encode(), DOCKER_SCHEMA1)
    # Also where the server does not say so.
    registry.add_manifest("old", "2", json.dumps({**old, "tag": "2"}).encode(), "application/json")
    mount = t.mount(registry.host)
    for tag in ("1", "2"):
        with lib.fails(errno.EOPNOTSUPP):
            os.listdir(mount.path(f"old:{tag}"))
    lib.equal(mount.read_log().count("schema 1"), 2)


def test_docker_types(t):
    registry = t.registry()
    image = oci.Image([oci.Layer(sample.top_tar("1"), media_type="application/vnd.docker.image.rootfs.diff.tar.gzip")])
    manifest = json.loads(image.manifest)
    manifest["mediaType"] = DOCKER_MANIFEST
    manifest["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json"
    image.manifest = oci.to_json(manifest)
    for digest, data in image.blobs().items():
        oci.push_blob(registry, "app", digest, data)
    oci.push_manifest(registry, "app", "1", image.manifest, DOCKER_MANIFEST)
    entry = {"mediaType": DOCKER_MANIFEST, "digest": image.digest, "size": len(image.manifest),
             "platform": {"os": "linux", "architecture": "amd64"}}
    index = oci.to_json({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [entry]})
    oci.push_manifest(registry, "app", "list", index, DOCKER_LIST)
    mount = t.mount(registry.host, platform="linux/amd64")
    for name in ("app:1", "app:list", "app:list/platforms/linux-amd64"):
        lib.equal(mount.path(name, "rootfs/app/version").read_text(), "1")
    lib.equal(os.getxattr(mount.path("app:list"), "user.regfs.media_type").decode(), DOCKER_LIST)


def test_lists_in_lists(t):
    registry = t.bad_registry()
    images = {arch: oci.Image([oci.Layer(sample.top_tar(arch))], {"architecture": arch}) for arch in ("amd64", "s390x")}
    inner = oci.make_index([(image, {"os": "linux", "architecture": arch}) for arch, image in images.items()],
                           registry, "app")
    other = oci.make_index([(images["amd64"], {"os": "linux", "architecture": "amd64"})], registry, "app")
    outer = oci.to_json({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [
        {"mediaType": oci.INDEX, "digest": oci.sha256(data), "size": len(data)} for data in (inner, other)]})
    oci.push_manifest(registry, "app", "1", outer, oci.INDEX)
    here = t.mount(registry.host, platform="linux/s390x").path("app:1")
    lib.equal((here / "rootfs/app/version").read_text(), "s390x")
    names = [oci.sha256(data).replace(":", "-") for data in (inner, other)]
    lib.equal(sorted(os.listdir(here / "platforms")), sorted(names))
    lib.equal((here / "platforms" / names[0] / "platforms/linux-amd64/rootfs/app/version").read_text(), "amd64")
    lib.equal((here / "platforms" / names[1] / "manifest.json").read_bytes(), other)


def test_two_children_of_one_platform(t):
    registry = t.registry()
    images = [oci.Image([oci.Layer(sample.top_tar(which))]) for which in ("first", "second")]
    oci.make_index([(image, {"os": "linux", "architecture": "amd64"}) for image in images], registry, "app", "1")
    platforms = t.mount(registry.host).path("app:1/platforms")
    second = images[1].digest.replace(":", "-")
    lib.equal(sorted(os.listdir(platforms)), ["linux-amd64", second])
    lib.equal((platforms / "linux-amd64/rootfs/app/version").read_text(), "first")
    lib.equal((platforms / second / "rootfs/app/version").read_text(), "second")


def test_types_nobody_knows(t):
    """What has an index's or a manifest's fields is an artifact, whatever it calls itself."""
    registry = t.bad_registry()
    data = b"some bytes"
    blob = {"mediaType": "a/b", "digest": registry.add_blob("art", data), "size": len(data)}
    # The artifact manifest of OCI's 1.1 drafts.
    draft = {"mediaType": "application/vnd.oci.artifact.manifest.v1+json", "artifactType": "a/b", "blobs": [blob]}
    odd = {"schemaVersion": 2, "mediaType": "application/vnd.example.thing+json", "layers": [blob], "config": blob}
    for tag, document in (("draft", draft), ("odd", odd)):
        registry.add_manifest("art", tag, oci.to_json(document), document["mediaType"])
    mount = t.mount(registry.host)
    for tag, document in (("draft", draft), ("odd", odd)):
        here = mount.path(f"art:{tag}")
        lib.equal((here / "manifest.json").read_bytes(), oci.to_json(document))
        lib.equal((here / "files" / blob["digest"].replace(":", "-")).read_bytes(), data)
        lib.equal((here / "config.json").exists(), tag == "odd")
        lib.equal((here / "rootfs").exists(), False)
        t.run("tar", "tf", here / "image.tar")
    # A registry that looks at what is accepted gives them out too.
    assert registry.seen("GET", "/manifests/")[0]["headers"]["accept"].endswith("*/*")


# --- digests ---


def test_digest_headers(t):
    """The digest is that of the bytes: a header that is missing costs nothing, one that lies is told."""
    registry = t.bad_registry()
    image = sample.image("1").push(registry, "app", "1")
    registry.rule("GET|HEAD", "/manifests/1$", set={"Docker-Content-Digest": None})
    mount = t.mount(registry.host)
    lib.equal(mount.path("app:1/digest").read_text().strip(), image.digest)
    mount.stop()
    registry.clear()
    other = oci.sha256(b"other")
    # By digest, bytes that are others: both digests are told.
    registry.rule("GET", f"/manifests/{image.digest}", status=200, body="{}", headers={"Content-Type": oci.MANIFEST})
    mount = t.mount(registry.host, cache_dir=t.dir / "cache2")
    with lib.fails(errno.EIO):
        os.listdir(mount.path(f"app@{image.digest}"))
    log = mount.read_log()
    assert image.digest in log and oci.sha256(b"{}") in log, log
    # By tag, bytes that are not those of the header, and that the registry does not vouch for.
    registry.rule("GET", "/manifests/1$", set={"Docker-Content-Digest": other})
    with lib.fails(errno.EIO):
        os.listdir(mount.path("app:1"))
    log = mount.read_log()
    assert other in log, log


class Image512(oci.Image):
    """An image all of whose digests are sha512."""

    def __init__(self, layers):
        super().__init__(layers)
        config = json.loads(self.config)
        config["rootfs"]["diff_ids"] = [sha512(layer.tar) for layer in layers]
        self.config = oci.to_json(config)
        self.manifest = oci.to_json({
            "schemaVersion": 2, "mediaType": oci.MANIFEST,
            "config": {"mediaType": oci.CONFIG, "digest": sha512(self.config), "size": len(self.config)},
            "layers": [{**layer.descriptor(), "digest": sha512(layer.blob)} for layer in layers]})

    @property
    def digest(self):
        return sha512(self.manifest)

    def blobs(self):
        return {sha512(data): data for data in [self.config, *(layer.blob for layer in self.layers)]}


def check_512(mount, repo, image):
    dashed = image.digest.replace(":", "-")
    for name in (f"{repo}@{image.digest}", f"{repo}/_digests/{dashed}"):
        here = mount.path(name)
        lib.equal((here / "digest").read_text().strip(), image.digest)
        lib.equal((here / "manifest.json").read_bytes(), image.manifest)
        lib.equal((here / "rootfs/app/version").read_text(), "512")
        lib.equal((here / "rootfs/noise").read_bytes(), sample.NOISE)
        lib.equal((here / "layers/01.tar.gz").read_bytes(), image.layers[0].blob)
        lib.equal((here / "oci/blobs/sha512" / image.digest[7:]).read_bytes(), image.manifest)
        lib.equal(os.getxattr(here / "rootfs/noise", "user.regfs.layer_digest").decode(), sha512(image.layers[0].blob))
    lib.equal(mount.path(repo, "_blobs/sha512", sha512(image.config)[7:]).read_bytes(), image.config)
    assert dashed in os.listdir(mount.path(repo, "_digests"))


def image_512():
    return Image512([oci.Layer(sample.base_tar()), oci.Layer(sample.top_tar("512"))])


def test_sha512(t):
    registry = t.bad_registry()
    image = image_512()
    for digest, data in image.blobs().items():
        oci.push_blob(registry, "app", digest, data)
    oci.push_manifest(registry, "app", image.digest, image.manifest, oci.MANIFEST)
    mount = t.mount(registry.host)
    check_512(mount, "app", image)
    mount.stop()
    # All of it is verified and kept by its digest.
    requests = registry.count("GET", "/(blobs|manifests)/sha512:")
    assert requests >= 4, registry.requests
    mount = t.mount(registry.host, offline=True)
    lib.equal(mount.path(f"app@{image.digest}/rootfs/noise").read_bytes(), sample.NOISE)
    mount.stop()
    registry.rule("GET", f"/blobs/{sha512(image.layers[1].blob)}", flip=100)
    mount = t.mount(registry.host, cache_dir=t.dir / "cache2")
    with lib.fails(errno.EIO):
        mount.path(f"app@{image.digest}/rootfs/app/version").read_bytes()
    assert sha512(image.layers[1].blob) in mount.read_log(), mount.read_log()


def test_sha512_in_the_local_store(t):
    image = image_512()
    store = t.dir / "store/app"
    (store / "blobs/sha512").mkdir(parents=True)
    for digest, data in {**image.blobs(), image.digest: image.manifest}.items():
        (store / "blobs/sha512" / digest[7:]).write_bytes(data)
    (store / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (store / "index.json").write_bytes(oci.to_json({"schemaVersion": 2, "manifests": [image.descriptor("1")]}))
    mount = t.mount("local")
    lib.equal(mount.path("app:1/rootfs/app/version").read_text(), "512")
    check_512(mount, "app", image)


def test_sha512_is_pushed(t):
    """A platform that an index names by its sha512: into a registry, promoted there, and into the store."""
    registry = t.bad_registry()
    image = image_512()
    index = oci.to_json({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [
        image.descriptor() | {"platform": {"os": "linux", "architecture": "amd64"}}]})
    layout = t.dir / "layout"
    for digest, data in {**image.blobs(), image.digest: image.manifest, oci.sha256(index): index}.items():
        path = layout / "blobs" / digest.replace(":", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (layout / "index.json").write_bytes(oci.to_json({"schemaVersion": 2, "manifests": [
        {"mediaType": oci.INDEX, "digest": oci.sha256(index), "size": len(index)}]}))
    t.run("tar", "-C", layout, "-cf", t.dir / "archive.tar", "blobs", "oci-layout", "index.json")
    mount = t.mount(None, registry=registry.host, platform="linux/amd64")
    for root in (mount.path(registry.host), mount.path("local")):
        (root / "app").mkdir()
        (root / "other").mkdir()
        t.run("cp", "-r", layout, root / "app/_push/1")
        t.run("cp", t.dir / "archive.tar", root / "app/_push/2")
        os.symlink("../../app:1", root / "other/_tags/1")
        for name in ("app:1", "app:2", "other:1"):
            lib.equal((root / name / "digest").read_text().strip(), oci.sha256(index))
            lib.equal((root / name / "platforms/linux-amd64/digest").read_text().strip(), image.digest)
            lib.equal((root / name / "rootfs/app/version").read_text(), "512")


# --- content in the descriptor ---


def test_inline_data(t):
    """image-spec, descriptor.md, "Embedded Content": no request for what the manifest holds; a lie is passed over."""
    registry = t.bad_registry()
    image = sample.image("1").push(registry, "app", "plain")
    manifest = json.loads(image.manifest)
    blobs = image.blobs()
    for part in [manifest["config"], *manifest["layers"]]:
        part["data"] = base64.b64encode(blobs[part["digest"]]).decode()
    inlined = oci.to_json(manifest)
    entry = {"mediaType": oci.MANIFEST, "digest": oci.sha256(inlined), "size": len(inlined),
             "data": base64.b64encode(inlined).decode(), "platform": {"os": "linux", "architecture": "amd64"}}
    index = oci.to_json({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [entry]})
    oci.push_manifest(registry, "app", "inline", index, oci.INDEX)
    for digest in blobs:
        registry.rule("GET|HEAD", f"/blobs/{digest}", status=404)
    registry.forget()
    mount = t.mount(registry.host, platform="linux/amd64")
    here = mount.path("app:inline")
    lib.equal((here / "rootfs/app/version").read_text(), "1")
    lib.equal((here / "rootfs/noise").read_bytes(), sample.NOISE)
    lib.equal((here / "config.json").read_bytes(), image.config)
    lib.equal((here / "layers/01.tar.gz").read_bytes(), image.layers[0].blob)
    t.run("tar", "xf", here / "image.tar", "-C", t.dir)
    lib.equal(registry.count("GET|HEAD", "/blobs/"), 0)
    lib.equal(registry.count("GET|HEAD", "/manifests/sha256:"), 0)
    mount.stop()
    # Data that is not what the digest says is as good as none.
    registry.clear()
    manifest["config"]["data"] = base64.b64encode(image.config.replace(b"amd64", b"amd65")).decode()
    oci.push_manifest(registry, "app", "lie", oci.to_json(manifest), oci.MANIFEST)
    registry.forget()
    mount = t.mount(registry.host, cache_dir=t.dir / "cache2")
    lib.equal(mount.path("app:lie/config.json").read_bytes(), image.config)
    lib.equal(registry.count("GET", "/blobs/"), 1)


# --- layers that lie elsewhere ---


def foreign_image(registry, urls):
    """An image whose lower layer the registry does not hold, and the layer."""
    image = oci.Image([oci.Layer(sample.base_tar()), oci.Layer(sample.top_tar("1"))])
    manifest = json.loads(image.manifest)
    manifest["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    manifest["layers"][0]["urls"] = urls
    for data in (image.config, image.layers[1].blob):
        oci.push_blob(registry, "app", oci.sha256(data), data)
    oci.push_manifest(registry, "app", "1", oci.to_json(manifest), oci.MANIFEST)
    return image.layers[0].blob


def test_foreign_layers(t):
    """image-spec, descriptor.md, "urls": asked only where the registry lacks the layer, and without credentials."""
    registry = t.bad_registry()
    where = registry.other_url + "/elsewhere/layer"
    layer = foreign_image(registry, ["ftp://example.org/layer", registry.other_url + "/none", where])
    registry.foreign["/elsewhere/layer"] = layer
    registry.auth, registry.users = "basic", {"me": "secret"}
    config = t.dir / "auth.json"
    config.write_text(json.dumps({"auths": {registry.host: {"auth": base64.b64encode(b"me:secret").decode()}}}))
    config.chmod(0o600)
    mount = t.mount(registry.host, authfile=config)
    lib.equal(mount.path("app:1/rootfs/noise").read_bytes(), sample.NOISE)
    lib.equal(mount.path("app:1/layers/01.tar.gz").read_bytes(), layer)
    asked = registry.seen("GET", "/elsewhere/layer")
    assert asked and not any("authorization" in request["headers"] for request in asked), asked
    assert all("authorization" in request["headers"] for request in registry.seen("GET", "/blobs/")[-1:])
    assert "no http or https URL" in mount.read_log(), mount.read_log()


def test_foreign_layers_that_are_wrong(t):
    registry = t.bad_registry()
    foreign_image(registry, [registry.other_url + "/elsewhere/layer"])
    registry.foreign["/elsewhere/layer"] = b"something else"
    mount = t.mount(registry.host)
    with lib.fails(errno.EIO):
        mount.path("app:1/rootfs/noise").read_bytes()
    lib.equal(mount.path("app:1/layers/02/app/version").read_text(), "1")


def test_foreign_layers_are_nowhere(t):
    registry = t.bad_registry()
    foreign_image(registry, [registry.other_url + "/none"])
    mount = t.mount(registry.host)
    with lib.fails(errno.ENOENT, errno.EIO):
        mount.path("app:1/rootfs/noise").read_bytes()
    lib.equal(registry.count("GET", "/none"), 1)
