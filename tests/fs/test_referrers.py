# SPDX-License-Identifier: Apache-2.0
"""referrers/ and files/: signatures, SBOMs, attestations and other artifacts."""
import errno
import json
import os
import pathlib

import lib
import oci
import sample

SBOM = "application/spdx+json"
SIGNATURE = "application/vnd.dev.cosign.artifact.sig.v1+json"


def dashed(digest):
    return digest.replace(":", "-")


def signed(registry, repo="app", tag="1"):
    """An image and two artifacts about it, pushed by digest."""
    image = sample.image("1").push(registry, repo, tag)
    sbom = oci.push_artifact(registry, repo, None, [("sbom.json", b'{"spdx": 1}')], artifact_type=SBOM,
                             subject=image.descriptor())
    signature = oci.push_artifact(registry, repo, None, [(None, b"signature")], artifact_type=SIGNATURE,
                                  subject=image.descriptor())
    return image, sbom, signature


def push_fallback_index(registry, repo, subject, descriptors):
    """What clients write where there is no API (distribution-spec, "Pushing Manifests with Subject")."""
    index = oci.to_json({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": descriptors})
    oci.push_manifest(registry, repo, dashed(subject), index, oci.INDEX)
    return index


def names(*descriptors):
    return sorted(dashed(descriptor["digest"]) for descriptor in descriptors)


def check_both(image_dir, sbom, signature):
    where = image_dir / "referrers"
    lib.equal(sorted(os.listdir(where)), names(sbom, signature))
    for name in (sbom["digest"], dashed(sbom["digest"])):
        lib.equal((where / name / "digest").read_text(), sbom["digest"] + "\n")
        lib.equal((where / name / "files/sbom.json").read_bytes(), b'{"spdx": 1}')
        lib.equal(os.getxattr(where / name, "user.regfs.artifact_type"), SBOM.encode())
    lib.equal(os.listdir(where / dashed(signature["digest"]) / "files"), [dashed(oci.sha256(b"signature"))])
    with lib.fails(errno.ENOENT):
        os.stat(where / ("sha256-" + "0" * 64))
    with lib.fails(errno.ENOENT):
        os.stat(where / dashed(oci.sha256(b"signature")))


def test_refusal_leaves_its_connection_to_the_tag(t):
    registry = t.bad_registry()
    image, sbom, signature = signed(registry)
    push_fallback_index(registry, "app", image.digest, [sbom, signature])
    registry.forget()
    registry.rule("GET", "/referrers/", status=404, body="no such page" * 10, slow=1000)
    lib.equal(sorted(os.listdir(t.mount(registry.host).path("app:1/referrers"))), names(sbom, signature))
    [refused], [tag] = registry.seen("GET", "/referrers/"), registry.seen("GET", "/manifests/sha256-")
    lib.equal(tag["client"], refused["client"])


# --- by the API ---


def test_referrers_by_the_api(t):
    registry = t.bad_registry()
    registry.referrers_api = True
    _, sbom, signature = signed(registry)
    mount = t.mount(registry.host)
    t.run("ls", "-l", mount.path("app:1"))
    lib.equal(registry.count("GET", "/referrers/"), 0, "nobody asked")
    check_both(mount.path("app:1"), sbom, signature)
    lib.equal(registry.count("GET", "/referrers/"), 1)
    lib.equal(registry.count("GET", "/manifests/sha256-"), 0)
    # What refers to a referrer is looked for in the same way.
    lib.equal(os.listdir(mount.path("app:1/referrers", dashed(sbom["digest"]), "referrers")), [])


def test_referrers_in_pages(t):
    registry = t.bad_registry()
    registry.referrers_api, registry.page_size = True, 3
    image = sample.image("1").push(registry, "app", "1")
    pushed = [oci.push_artifact(registry, "app", None, [("n", str(n).encode())], subject=image.descriptor())
              for n in range(8)]
    mount = t.mount(registry.host)
    lib.equal(sorted(os.listdir(mount.path("app:1/referrers"))), names(*pushed))
    lib.equal(registry.count("GET", "/referrers/"), 3)


def test_new_referrers_are_seen(t):
    registry = t.bad_registry()
    registry.referrers_api = True
    image, sbom, signature = signed(registry)
    mount = t.mount(registry.host, tag_ttl=1)
    where = mount.path("app:1/referrers")
    lib.equal(sorted(os.listdir(where)), names(sbom, signature))
    more = oci.push_artifact(registry, "app", None, [("x", b"x")], subject=image.descriptor())
    lib.wait_for(lambda: sorted(os.listdir(where)) == names(sbom, signature, more), "the new one")


# --- by the tag ---


def test_referrers_by_the_tag(t):
    """docker-registry 2.8 has no referrers API."""
    registry = t.registry()
    image, sbom, signature = signed(registry)
    mount = t.mount(registry.host, tag_ttl=0)
    lib.equal(os.listdir(mount.path("app:1/referrers")), [])
    push_fallback_index(registry, "app", image.digest, [sbom, signature])
    registry.forget()
    lib.equal(sorted(os.listdir(mount.path("app:1/referrers"))), names(sbom, signature))
    assert registry.count(path="/referrers/") <= registry.count(path="/manifests/sha256-"), registry.requests()
    check_both(mount.path("app:1"), sbom, signature)


def test_bad_answers_lead_to_the_tag(t):
    """What registries without the API are known to answer."""
    registry = t.bad_registry()
    image, sbom, signature = signed(registry)
    push_fallback_index(registry, "app", image.digest, [sbom, signature])
    index = json.dumps({"schemaVersion": 2, "manifests": []})
    known = {
        "404": {"status": 404},
        "400": {"status": 400},
        "405": {"status": 405},
        "406": {"status": 406},
        "401": {"status": 401},
        # GHCR: the redirect leads to what then answers 429.
        "303": {"status": 303, "headers": {"Location": registry.other_url + "/limited"}},
        # Artifact Registry: to a web page.
        "302": {"status": 302, "headers": {"Location": registry.other_url + "/page.html"}},
        "HTML": {"status": 200, "body": "<html>", "headers": {"Content-Type": "text/html"}},
        # GitLab (oras-project/oras-go#1396).
        "the subject": {"status": 200, "body": image.manifest.decode(), "headers": {"Content-Type": oci.MANIFEST}},
        "the subject as an index": {"status": 200, "body": image.manifest.decode(),
                                    "headers": {"Content-Type": oci.INDEX}},
        "another type": {"status": 200, "body": index, "headers": {"Content-Type": "application/json"}},
        "no JSON": {"status": 200, "body": "yes", "headers": {"Content-Type": oci.INDEX}},
    }
    for what, answer in known.items():
        print(what)
        registry.clear()
        registry.rule("GET", "/referrers/", **answer)
        registry.rule("GET", "/limited", status=429, headers={"Retry-After": "3600"})
        mount = t.mount(registry.host, cache_dir=t.dir / f"cache {what}")
        lib.equal(sorted(os.listdir(mount.path("app:1/referrers"))), names(sbom, signature), what)
        lib.equal(registry.count("GET", "/referrers/"), 1, what)
        lib.equal(registry.count("GET", "/manifests/sha256-"), 1, what)
        lib.equal(registry.count("GET", "", "other"), 0, what)
        mount.stop()


def test_referrers_of_a_registry_that_fails(t):
    """A failure is not a list without entries; and the last known list serves."""
    registry = t.bad_registry()
    registry.referrers_api = True
    _, sbom, signature = signed(registry)
    registry.rule("GET", "/referrers/", status=500)
    mount = t.mount(registry.host, tag_ttl=0, name_timeout=3)
    with lib.fails(errno.EIO):
        os.listdir(mount.path("app:1/referrers"))
    registry.clear()
    check_both(mount.path("app:1"), sbom, signature)
    registry.rule("GET", "/(referrers|manifests)/", status=500)
    lib.equal(sorted(os.listdir(mount.path("app:1/referrers"))), names(sbom, signature))
    mount.stop()
    mount = t.mount(registry.host, offline=True)
    lib.equal(sorted(os.listdir(mount.path("app:1/referrers"))), names(sbom, signature))


# --- in an index, in a layout ---


def test_attestations_of_an_index(t):
    """buildkit's: children of the platform unknown/unknown that name the image they are about."""
    registry = t.registry()
    images = {arch: oci.Image([oci.Layer(sample.top_tar(arch))], {"architecture": arch}) for arch in ("amd64", "arm64")}
    notes = {arch: oci.Image([oci.Layer(sample.top_tar(f"about {arch}"))]) for arch in images}
    entries = []
    for arch, image in images.items():
        image.push(registry, "multi")
        entries.append({**image.descriptor(), "platform": {"os": "linux", "architecture": arch}})
    for arch, note in notes.items():
        note.push(registry, "multi")
        entries.append({**note.descriptor(), "platform": {"os": "unknown", "architecture": "unknown"},
                        "annotations": {"vnd.docker.reference.type": "attestation-manifest",
                                        "vnd.docker.reference.digest": images[arch].digest}})
    index = oci.to_json({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": entries})
    oci.push_manifest(registry, "multi", "1", index, oci.INDEX)
    here = t.mount(registry.host, platform="linux/amd64").path("multi:1")
    lib.equal(sorted(os.listdir(here / "platforms")), ["linux-amd64", "linux-arm64"])
    lib.equal(sorted(os.listdir(here / "referrers")), names(*(note.descriptor() for note in notes.values())))
    for arch, note in notes.items():
        where = here / f"platforms/linux-{arch}/referrers"
        lib.equal(os.listdir(where), [dashed(note.digest)])
        lib.equal((where / dashed(note.digest) / "manifest.json").read_bytes(), note.manifest)


def test_referrers_in_the_local_store(t):
    image = sample.image("1")
    store = t.dir / "store/app"
    image.write_layout(store, "1")
    about = {"subject": image.descriptor()}
    manifests = [oci.artifact([("a", b"a")], artifact_type=SBOM, **about),
                 oci.artifact([("b", b"b")], artifact_type=SIGNATURE, **about)]
    for manifest, blobs in manifests:
        for digest, data in {**blobs, oci.sha256(manifest): manifest}.items():
            (store / "blobs/sha256" / digest[7:]).write_bytes(data)
    sbom, signature = ({"mediaType": oci.MANIFEST, "digest": oci.sha256(manifest), "size": len(manifest)}
                       for manifest, _ in manifests)
    fallback = oci.to_json({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [signature]})
    (store / "blobs/sha256" / oci.sha256(fallback)[7:]).write_bytes(fallback)
    tagged = {"mediaType": oci.INDEX, "digest": oci.sha256(fallback), "size": len(fallback),
              "annotations": {"org.opencontainers.image.ref.name": dashed(image.digest)}}
    mount = t.mount("local")
    lib.equal(os.listdir(mount.path("app:1/referrers")), [])
    index = json.loads((store / "index.json").read_bytes())
    index["manifests"] += [sbom, tagged]
    (store / "index.json").write_bytes(oci.to_json(index))
    lib.equal(sorted(os.listdir(mount.path("app:1/referrers"))), names(sbom, signature))
    lib.equal(mount.path("app:1/referrers", dashed(signature["digest"]), "files/b").read_bytes(), b"b")


# --- files/ ---


def test_files_of_an_artifact(t):
    registry = t.registry()
    contents = [("chart.tgz", b"chart"), ("docs/readme.md", b"read me"), ("docs/more/notes", b"notes"), (None, b"untitled"),
                ("big", os.urandom(3 << 20))]
    oci.push_artifact(registry, "art", "1", contents)
    mount = t.mount(registry.host)
    here = mount.path("art:1")
    lib.equal(sorted(os.listdir(here)), ["config.json", "digest", "files", "image.tar", "manifest.json", "oci",
                                         "referrers"])
    files = here / "files"
    lib.equal(sorted(os.listdir(files)), ["big", "chart.tgz", "docs", dashed(oci.sha256(b"untitled"))])
    lib.equal(sorted(os.listdir(files / "docs")), ["more", "readme.md"])
    for title, data in contents:
        path = files / (title or dashed(oci.sha256(data)))
        lib.equal(path.stat().st_size, len(data))
        lib.equal(path.read_bytes(), data)
        lib.equal(os.getxattr(path, "user.regfs.digest").decode(), oci.sha256(data))
        lib.equal(os.getxattr(path, "user.regfs.media_type"), b"text/plain")
    lib.equal((here / "config.json").read_bytes(), b"{}")
    t.run("cp", "-r", files, t.dir / "copy")
    lib.equal((t.dir / "copy/docs/more/notes").read_bytes(), b"notes")
    for path in ("none", "docs/none", "docs/readme.md/x", "doc"):
        with lib.fails(errno.ENOENT, errno.ENOTDIR):
            os.stat(files / path)


def test_titles_with_tricks(t):
    """Whatever a title says, a file stays below files/, and each blob is there."""
    registry = t.registry()
    titles = ["../up", "/etc/passwd", "a//b", "a/./b", "..", ".", "", "x\ny", "a" * 256, "d/" * 40 + "deep", "/",
              "same", "same", "same/below", "dir/x", "dir", "\u00fcn\u00efcode", "-n"]
    contents = [(title, f"{number}".encode()) for number, title in enumerate(titles)]
    oci.push_artifact(registry, "art", "1", contents)
    files = t.mount(registry.host).path("art:1/files")
    found = {}
    for top, _, below in os.walk(files):
        for name in below:
            path = pathlib.Path(top, name)
            found[str(path.relative_to(files))] = path.read_bytes()
    lib.equal(sorted(found.values()), sorted(data for _, data in contents))
    by_name = {name for name in found if not name.startswith("sha256-")}
    lib.equal(by_name, {"same", "dir/x", "\u00fcn\u00efcode", "-n"})
    lib.equal(found["same"], str(titles.index("same")).encode())


def test_a_wrong_file(t):
    """Bytes that are not what the manifest says end in EIO before their last one (SPEC 3)."""
    registry = t.bad_registry()
    oci.push_artifact(registry, "art", "1", [("f", b"right")])
    registry.rule("GET", f"/blobs/{oci.sha256(b'right')}", status=200, body="wrong")
    mount = t.mount(registry.host)
    with lib.fails(errno.EIO):
        mount.path("art:1/files/f").read_bytes()
    assert oci.sha256(b"wrong") in mount.read_log(), mount.read_log()
