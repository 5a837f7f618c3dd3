# SPDX-License-Identifier: Apache-2.0
"""image.tar and oci/ as other tools take them, and as the way between two registries."""
import errno
import json
import os

import lib
import oci
import sample

PLATFORMS = ("amd64", "arm64", "s390x")


def multi(registry, repo, tag):
    """An image for several platforms at a registry: its digest, and the images by architecture."""
    images = {name: oci.Image([oci.Layer(sample.base_tar()), oci.Layer(sample.top_tar(name))],
                              {"architecture": name}) for name in PLATFORMS}
    index = oci.make_index([(image, {"os": "linux", "architecture": name}) for name, image in images.items()],
                           registry, repo, tag)
    return oci.sha256(index), images


def podman(t, *args):
    lib.need_root()
    lib.need("podman")
    # vfs: overlay may not be mounted where the tests' directory lies
    return t.output("podman", "--root", t.dir / "podman", "--runroot", t.dir / "podman-run",
                    "--storage-driver", "vfs", *args)


def test_podman_loads_it(t):
    registry = t.registry()
    pushed = sample.push_all(registry)
    mount = t.mount(registry.host)
    said = podman(t, "load", "-i", mount.path("team/app/_tags/1.5/image.tar"))
    assert f"{registry.host}/team/app:1.5" in said, said
    found = json.loads(podman(t, "inspect", "--type", "image", f"{registry.host}/team/app:1.5"))[0]
    lib.equal(found["Id"], oci.sha256(pushed["1.5"].config)[7:])
    lib.equal(found["RootFS"]["Layers"], [oci.sha256(layer.tar) for layer in pushed["1.5"].layers])


def test_platform_of_the_mount_is_loaded(t):
    registry = t.registry()
    _, images = multi(registry, "team/multi", "1")
    mount = t.mount(registry.host, platform="linux/s390x")
    where = mount.path("team/multi/_tags/1/image.tar")
    got = json.loads(t.skopeo("inspect", "--config", f"docker-archive:{where}"))
    lib.equal(got["architecture"], "s390x")
    lib.equal(got["rootfs"]["diff_ids"], [oci.sha256(layer.tar) for layer in images["s390x"].layers])


def test_every_transport_of_skopeo(t):
    registry = t.registry()
    want, _ = multi(registry, "team/multi", "1")
    mount = t.mount(registry.host)
    here = mount.path("team/multi/_tags/1")
    for number, source in enumerate((f"oci:{here}/oci", f"oci:{here}/oci:1", f"oci-archive:{here}/image.tar")):
        target = t.dir / f"out{number}"
        t.skopeo("copy", "--all", "--preserve-digests", source, f"dir:{target}")
        lib.equal(oci.sha256((target / "manifest.json").read_bytes()), want, source)
        lib.equal(len(list(target.glob("*.manifest.json"))), len(PLATFORMS), source)
    t.skopeo("copy", f"docker-archive:{here}/image.tar", f"dir:{t.dir}/docker")


def test_docker_finds_its_names(t):
    """docker load (moby: image/tarexport/load.go) reads manifest.json: Config, RepoTags and Layers are
    members of the archive; with containerd's store, index.json and its annotations."""
    registry = t.registry()
    pushed = sample.push_all(registry)
    mount = t.mount(registry.host)
    t.run("tar", "-xf", mount.path("team/app:1.5/image.tar"), "-C", t.dir)
    entry, = json.loads((t.dir / "manifest.json").read_text())
    lib.equal(entry["RepoTags"], [f"{registry.host}/team/app:1.5"])
    lib.equal((t.dir / entry["Config"]).read_bytes(), pushed["1.5"].config)
    lib.equal([(t.dir / name).read_bytes() for name in entry["Layers"]],
              [layer.blob for layer in pushed["1.5"].layers])
    named, = json.loads((t.dir / "index.json").read_text())["manifests"]
    lib.equal(named["digest"], pushed["1.5"].digest)
    lib.equal(named["annotations"]["io.containerd.image.name"], f"{registry.host}/team/app:1.5")
    lib.equal(named["annotations"]["org.opencontainers.image.ref.name"], "1.5")


def test_between_two_registries(t):
    """cp keeps the digest, of an image and of one with several platforms, all of them included."""
    first, second = t.registry(), t.registry()
    images = sample.push_all(first)
    index, _ = multi(first, "team/multi", "1")
    mount = t.mount(None, registry=first.host)
    source, target = mount.path(first.host), mount.path(second.host)
    for repo, tag, want in (("team/app", "1.5", images["1.5"].digest), ("team/multi", "1", index)):
        os.makedirs(target / repo)
        t.run("cp", source / f"{repo}:{tag}/image.tar", target / repo / f"_push/{tag}.tar")
        for registry in (first, second):
            raw = t.skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{registry.host}/{repo}:{tag}")
            lib.equal(oci.sha256(raw.encode()), want, repo)
    got = t.dir / "all"
    t.skopeo("copy", "--all", "--src-tls-verify=false", f"docker://{second.host}/team/multi:1", f"dir:{got}")
    lib.equal(len(list(got.glob("*.manifest.json"))), len(PLATFORMS))
    # The same between a registry and the store, and the other way round.
    local = mount.path("local")
    os.makedirs(local / "team/multi")
    t.run("cp", target / "team/multi:1/image.tar", local / "team/multi/_push/1.tar")
    lib.equal((local / "team/multi:1/digest").read_text().strip(), index)
    t.run("cp", local / "team/multi:1/image.tar", target / "team/multi/_push/2.tar")
    lib.equal((target / "team/multi:2/digest").read_text().strip(), index)


def wrap(registry, repo, tag, digest, *others):
    """Pushes an index of the index DIGEST and OTHERS, and gives its digest."""
    inner = oci.request(registry, "GET", f"/v2/{repo}/manifests/{digest}", None, {"Accept": oci.INDEX})[2]
    lib.equal(oci.sha256(inner), digest)
    data = oci.to_json({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [
        {"mediaType": oci.INDEX, "digest": digest, "size": len(inner)}, *others]})
    oci.push_manifest(registry, repo, tag, data, oci.INDEX)
    return oci.sha256(data)


def test_indexes_in_indexes(t):
    """All of them go along, with their images (image-spec, "image-index.md": a manifest of an index may be one)."""
    first, second = t.registry(), t.registry()
    inner, images = multi(first, "team/multi", "inner")
    own = oci.Image([oci.Layer(sample.base_tar())], {"architecture": "riscv64"}).push(first, "team/multi")
    outer = wrap(first, "team/multi", "outer", inner, own.descriptor())
    mount = t.mount(None, registry=first.host)
    source, target = mount.path(first.host, "team/multi:outer"), mount.path(second.host, "team/multi")
    held = {f"sha256:{name}" for name in os.listdir(source / "oci/blobs/sha256")}
    want = {outer, inner, own.digest, *own.blobs()}.union(*({image.digest, *image.blobs()} for image in images.values()))
    lib.equal(held, want)
    os.makedirs(target)
    t.run("cp", source / "image.tar", target / "_push/archive.tar")
    t.run("cp", "-r", source / "oci", target / "_push/layout")
    for tag in ("archive", "layout"):
        lib.equal((mount.path(second.host, f"team/multi:{tag}") / "digest").read_text().strip(), outer)
    got = t.skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{second.host}/team/multi@{images['arm64'].digest}")
    lib.equal(oci.sha256(got.encode()), images["arm64"].digest)

    at = outer
    for depth in range(2, 5):
        at = wrap(first, "team/multi", f"deep{depth}", at)
    assert (mount.path(first.host, "team/multi:deep3") / "image.tar").stat().st_size > 0
    with lib.fails(errno.EINVAL):
        (mount.path(first.host, "team/multi:deep4") / "image.tar").stat()
    assert "nested too deep" in mount.read_log(), mount.read_log()


def test_containerd_imports_it(t):
    """What docker load does where docker keeps its images in containerd's store."""
    lib.need_root()
    lib.need("containerd", "ctr")
    registry = t.registry()
    images = sample.push_all(registry)
    index, _ = multi(registry, "team/multi", "1")
    mount = t.mount(registry.host)
    config = t.dir / "containerd.toml"
    config.write_text(f'version = 2\nroot = "{t.dir}/containerd"\nstate = "{t.dir}/containerd-run"\n'
                      'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]\n'
                      f'[grpc]\naddress = "{t.dir}/c.sock"\n[ttrpc]\naddress = "{t.dir}/t.sock"\n')
    daemon = t.start("containerd", "-c", config)
    ctr = ("ctr", "-a", t.dir / "c.sock", "images")
    lib.wait_for(lambda: not daemon.running() or t.run(*ctr, "ls", status=None).returncode == 0, "containerd")
    if not daemon.running():
        raise lib.Skip("containerd does not run here")
    for name in ("team/app:1.5", "team/multi:1"):
        t.run(*ctr, "import", "--all-platforms", "--no-unpack", mount.path(name, "image.tar"))
    listed = {line.split()[0]: line.split()[2] for line in t.output(*ctr, "ls").splitlines()[1:]}
    lib.equal(listed, {f"{registry.host}/team/app:1.5": images["1.5"].digest,
                       f"{registry.host}/team/multi:1": index})
