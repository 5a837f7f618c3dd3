# SPDX-License-Identifier: Apache-2.0
"""The ways of registries that cannot be reached from a test, played by badregistry.py: each where its source
says that it behaves so. README's table of registries says what of this is tested."""
import base64
import errno
import json
import os
import pathlib
import re
import tarfile

import lib
import oci
import sample

VERSION = "team/app:1.5/rootfs/app/version"


def play(t, **options):
    """A bad registry with the sample in it, mounted; it begins to count now."""
    registry = t.bad_registry()
    pushed = sample.push_all(registry)
    return registry, pushed, t.mount(registry.host, **{"timeout": 5, "name_timeout": 5, **options})


def refusal(code, message="", **more):
    return {"body": json.dumps({"errors": [{"code": code, "message": message}]}),
            "headers": {"Content-Type": "application/json"}, **more}


def archive(t, image):
    """IMAGE as an OCI archive."""
    layout = t.dir / t.name("layout")
    image.write_layout(layout)
    target = t.dir / t.name("image.tar")
    with tarfile.open(target, "w") as tar:
        for name in os.listdir(layout):
            tar.add(layout / name, name)
    return target


def push(t, mount, image, tag, status=0):
    return t.run("cp", archive(t, image), mount.path(f"team/app/_push/{tag}.tar"), status=status).stderr.decode()


def log_in(t, registry, user, password):
    """As docker login leaves it."""
    folder = t.dir / "home/.docker"
    folder.mkdir(exist_ok=True)
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {registry.host: {"auth": auth}}}))


def no_catalogue(registry, **actions):
    """Repositories are entered by name, and those entered are listed."""
    registry.rule("GET", "/_catalog", **actions)


def check_by_name(mount):
    lib.equal([name for name in os.listdir(mount.point) if not name.startswith("_")], [])
    lib.equal(mount.path(VERSION).read_text(), "1.5")
    lib.equal(sorted(os.listdir(mount.path("team/app/_tags"))), ["1.4", "1.5", "latest"])
    assert "team" in os.listdir(mount.point)
    with lib.fails(errno.ENOENT):
        os.stat(mount.path("team/none/_tags"))


# --- Docker Hub ---


def test_docker_hub(t):
    """No catalogue (401 with a fresh token: docker/hub-feedback#2094), no deletion (#1759); blobs at another host
    (307, signed), which must not see the token."""
    registry, pushed, mount = play(t, allow_delete=True)
    registry.auth = "bearer"
    no_catalogue(registry, status=401, **refusal("UNAUTHORIZED", "authentication required"))
    registry.rule("DELETE", "/manifests/", status=405, **refusal("UNSUPPORTED", "The operation is unsupported."))
    registry.rule("GET", "/blobs/", where="main", skip=1, redirect="{other}{path}?verify=1-x")
    check_by_name(mount)
    away = registry.seen("GET", "verify=1-x", "other")
    assert away and not any("authorization" in request["headers"] for request in away)
    with lib.fails(errno.EOPNOTSUPP):
        os.unlink(mount.path("team/app/_tags/1.4"))
    assert pushed


def test_docker_hub_counts_pulls(t):
    """A pull is a GET of a manifest (docker/hub-feedback#2093), and a HEAD is none (docker/docs#11707).
    Asking again what a tag names costs HEADs alone; one that moved costs a GET."""
    registry, _, mount = play(t, tag_ttl=0)
    path = mount.path("team/app:1.5/digest")
    before = path.read_text()
    pulls = registry.count("GET", "/manifests/")
    lib.equal(pulls, 1)
    for _ in range(3):
        lib.equal(path.read_text(), before)
    os.listdir(mount.path("team/app/_tags"))
    t.run("ls", "-l", mount.path("team/app/_tags"))
    lib.equal(registry.count("GET", "/manifests/"), pulls)
    assert registry.count("HEAD", "/manifests/") > 0
    mount.restart()
    lib.equal(path.read_text(), before)
    lib.equal(registry.count("GET", "/manifests/"), pulls)
    sample.image("1.6").push(registry, "team/app", "1.5")
    assert path.read_text() != before
    lib.equal(registry.count("GET", "/manifests/"), pulls + 1)


def test_docker_hub_limit(t):
    """429 for manifests alone, with just these words (containers/image#1078): what is cached stays, by HEAD."""
    registry, _, mount = play(t, tag_ttl=0)
    lib.equal(mount.path(VERSION).read_text(), "1.5")
    registry.rule("GET", "/manifests/", status=429, **refusal(
        "TOOMANYREQUESTS", "You have reached your pull rate limit."))
    lib.equal(mount.path(VERSION).read_text(), "1.5")
    with lib.fails(errno.EBUSY):
        os.stat(mount.path("team/app:1.4"))
    assert "pull rate limit" in mount.read_log(), mount.read_log()
    # And if HEAD were limited as well, the last known image is shown.
    registry.rule("HEAD", "/manifests/", status=429, headers={"Retry-After": "3600"})
    lib.equal(mount.path(VERSION).read_text(), "1.5")


# --- ECR ---


def test_ecr(t):
    """Basic credentials AWS:token; pages of more than 1000 refused (go-containerregistry#681); tokens as Links
    (ECR Public: drydock#927); no digest in the answer to HEAD."""
    registry = t.bad_registry()
    sample.push_all(registry)
    registry.auth, registry.users = "basic", {"AWS": "token"}
    log_in(t, registry, "AWS", "token")
    names = registry.repos["team/app"]["tags"]
    names.update({f"v{number:04}": names["1.5"] for number in range(2500)})
    registry.n_max, registry.link_style = 1000, "opaque"
    registry.rule("HEAD", "/manifests/", set={"Docker-Content-Digest": None})
    mount = t.mount(registry.host, tag_ttl=0)
    lib.equal(len(os.listdir(mount.path("team/app/_tags"))), 2503)
    lib.equal(mount.path(VERSION).read_text(), "1.5")
    lib.equal(mount.path(VERSION).read_text(), "1.5")


def test_ecr_expired_url(t):
    """Layers are in S3, whose signed URLs expire: 400 ExpiredToken ("Amazon S3 API Reference", Error Responses), 403."""
    registry, _, mount = play(t)
    registry.rule("GET", "/blobs/", where="main", times=1, redirect="{other}{path}?X-Amz-Expires=1")
    registry.rule("GET", "/blobs/", where="main", redirect="{other}{path}?X-Amz-Expires=2")
    registry.rule("GET", "X-Amz-Expires=1", status=400, body="<Error><Code>ExpiredToken</Code></Error>")
    lib.equal(mount.path(VERSION).read_text(), "1.5")
    assert registry.count("GET", "X-Amz-Expires=2", "other") > 0


IMMUTABLE = "The image tag '1.5' already exists in the 'app' repository and cannot be overwritten because the " \
            "repository is immutable."


def test_ecr_immutable_tag(t):
    """400 TAG_INVALID (moby/buildkit#3776), of the same image as well: that one is there, as cp was to do."""
    registry, pushed, mount = play(t)
    registry.rule("PUT", "/manifests/1.5", status=400, **refusal("TAG_INVALID", IMMUTABLE))
    assert "File exists" in push(t, mount, sample.image("1.6"), "1.5", status=1)
    assert "is immutable" in mount.read_log(), mount.read_log()
    push(t, mount, sample.image("1.5"), "1.5")
    push(t, mount, sample.image("1.6"), "1.6")
    lib.equal(mount.path(VERSION).read_text(), "1.5")
    assert pushed


# --- GHCR ---


def test_ghcr(t):
    """No catalogue (portainer#6914); anonymous tokens for what is public; DELETE is 405 (skopeo#1880); signed URLs
    that expire with 403 and refuse HEAD (stargz-snapshotter#167)."""
    registry, _, mount = play(t, allow_delete=True)
    registry.auth = "bearer"
    no_catalogue(registry, status=404, **refusal("NAME_UNKNOWN"))
    registry.rule("DELETE", "/manifests/", status=405, **refusal("UNSUPPORTED", "The operation is unsupported."))
    registry.rule("GET", "/blobs/", where="main", skip=1, times=1, redirect="{other}{path}?X-Amz-Signature=1")
    registry.rule("GET", "/blobs/", where="main", skip=1, redirect="{other}{path}?X-Amz-Signature=2")
    registry.rule("HEAD|GET", "X-Amz-Signature=1", status=403)
    registry.rule("HEAD", "X-Amz-Signature", status=403)
    check_by_name(mount)
    with lib.fails(errno.EOPNOTSUPP):
        os.unlink(mount.path("team/app/_tags/1.4"))
    assert "1.4" in os.listdir(mount.path("team/app/_tags"))


# --- GCR and Artifact Registry ---


def test_artifact_registry(t):
    """Lists tell more than names (go-containerregistry#1297); the catalogue refused with 403."""
    registry, _, mount = play(t)
    tags = json.dumps({"name": "team/app", "child": ["web"], "tags": ["1.4", "1.5", "latest"],
                       "manifest": {"sha256:" + "0" * 64: {"tag": ["1.4"], "mediaType": oci.MANIFEST}}})
    registry.rule("GET", "/team/app/tags/list", status=200, body=tags, headers={"Content-Type": "application/json"})
    no_catalogue(registry, status=403, **refusal("DENIED"))
    check_by_name(mount)


# --- Quay ---


def test_quay(t):
    """Pages by an opaque token (node-docker-registry-client#12); a mount without "from" is refused (quay#899): ours
    has one."""
    registry = t.bad_registry()
    sample.push_all(registry)
    registry.page_size, registry.link_style = 1, "opaque"
    mount = t.mount(registry.host)
    lib.equal(sorted(os.listdir(mount.path("team/app/_tags"))), ["1.4", "1.5", "latest"])
    lib.equal(sorted(name for name in os.listdir(mount.point) if name[0] != "_"), ["solo", "team"])
    push(t, mount, sample.image("1.6"), "1.6")
    lib.equal([request["path"] for request in registry.seen("POST", "mount=") if "from=" not in request["path"]], [])
    lib.equal(mount.path("team/app:1.6/rootfs/app/version").read_text(), "1.6")


# --- Harbor ---


def test_harbor(t):
    """UNKNOWN "not found" for what is absent; 412 for an immutable tag (harbor#9427), DENIED for a quota (#17390),
    401 for a mount it cannot do (#17097); and where a token has expired, a Basic challenge (nydus,
    storage/src/backend/registry.rs)."""
    registry, _, mount = play(t)
    registry.auth = "bearer"
    lib.equal(sorted(os.listdir(mount.path("team/app/_tags"))), ["1.4", "1.5", "latest"])
    registry.rule("GET", "/manifests/1.5", times=1, status=401, **refusal(
        "UNAUTHORIZED", headers={"WWW-Authenticate": 'Basic realm="harbor"'}))
    lib.equal(mount.path(VERSION).read_text(), "1.5")
    # The token, nothing, and a new token.
    lib.equal(registry.count("GET", "/manifests/1.5"), 3)
    registry.users = {"ann": "secret"}
    log_in(t, registry, "ann", "secret")
    registry.rule("GET|HEAD", "/team/app/manifests/none", status=404, **refusal("UNKNOWN", "artifact not found"))
    with lib.fails(errno.ENOENT):
        os.stat(mount.path("team/app:none"))
    registry.rule("POST", "mount=", status=401, **refusal("UNAUTHORIZED", "project team not found"))
    registry.rule("PUT", "/manifests/1.5", status=412, **refusal(
        "PRECONDITION", "Failed to process request due to 'app:1.5' configured as immutable."))
    assert "File exists" in push(t, mount, sample.image("1.6"), "1.5", status=1)
    registry.rule("POST|PUT", "/blobs/uploads/", status=403, **refusal(
        "DENIED", "adding 1.0 MiB of storage resource, which when updated to current usage of 9.5 MiB will exceed "
        "the configured upper limit of 10.0 MiB."))
    assert "Disk quota exceeded" in push(t, mount, sample.image("1.7"), "1.7", status=1)


# --- GitLab ---


def test_gitlab(t):
    """No catalogue without an administrator's rights; tags are deleted by themselves (werf#2603)."""
    registry, _, mount = play(t, allow_delete=True)
    no_catalogue(registry, status=401, **refusal("UNAUTHORIZED"))
    check_by_name(mount)
    os.unlink(mount.path("team/app/_tags/1.4"))
    lib.equal(mount.path(VERSION).read_text(), "1.5")
    assert "1.4" not in os.listdir(mount.path("team/app/_tags"))


# --- Artifactory ---


def test_artifactory(t):
    """Digests among the tags (open-component-model/ocm#278): they cannot be entered and are left out."""
    registry, _, mount = play(t)
    names = ["1.4", "1.5", "latest", "sha256:" + "0" * 64, "sha256__" + "0" * 64]
    registry.rule("GET", "/team/app/tags/list", status=200, body=json.dumps({"name": "x", "tags": names}),
                  headers={"Content-Type": "application/json"})
    listed = os.listdir(mount.path("team/app/_tags"))
    assert names[3] not in listed and set(names[:3]) <= set(listed), listed
    lib.equal(mount.path(VERSION).read_text(), "1.5")


# --- Nexus ---


def test_nexus(t):
    """Null for no tags; Link with its inner path (nexus-public#1011); Content-Range without "bytes" (#24)."""
    registry = t.bad_registry()
    pushed = sample.push_all(registry)
    registry.page_size, registry.link_style = 2, "prefixed"
    registry.rule("GET", "/solo/tags/list", status=200, body='{"name": "solo", "tags": null}',
                  headers={"Content-Type": "application/json"})
    mount = t.mount(registry.host)
    lib.equal(sorted(os.listdir(mount.path("team/app/_tags"))), ["1.4", "1.5", "latest"])
    lib.equal(os.listdir(mount.path("solo/_tags")), [])
    base = pushed["1.5"].layers[0].blob
    digest = oci.sha256(base)
    registry.rule("GET", f"/blobs/{digest}", times=1, truncate=300_000)
    registry.rule("GET", f"/blobs/{digest}", set={"Content-Range": f"300000-{len(base) - 1}/{len(base)}"})
    lib.equal(mount.path("team/app:1.5/layers/01.tar.gz").read_bytes(), base)


# --- zot ---


def test_zot(t):
    """An upload that breaks off, and whose Range is stale: not believed twice (regclient#961)."""
    registry, _, mount = play(t)
    registry.rule("PUT", "/blobs/uploads/", times=1, take=1000)
    registry.rule("GET", "/blobs/uploads/", times=1, set={"Range": "0-0"})
    push(t, mount, sample.image("1.6"), "1.6")
    lib.equal(mount.path("team/app:1.6/rootfs/app/version").read_text(), "1.6")
    lib.equal(mount.path("team/app:1.6/rootfs/noise").read_bytes(), sample.NOISE)


# --- lists of all of them ---


def test_a_repository_newer_than_the_list(t):
    """It is found by its name, without the whole list being read again."""
    registry, _, mount = play(t, tag_ttl=3600)
    os.listdir(mount.point)
    sample.image("1").push(registry, "late/comer", "1")
    sample.image("1").push(registry, "later", "1")
    lists = registry.count("GET", "/_catalog")
    lib.equal(os.listdir(mount.path("later/_tags")), ["1"])
    lib.equal(registry.count("GET", "/_catalog"), lists)
    # A path that is no repository itself is known from the list alone.
    lib.wait_for(lambda: os.path.isdir(mount.path("late/comer/_tags")), "the repository below a new path")


def test_a_repository_newer_than_the_last_mount(t):
    """What the catalogue of an earlier mount does not name is asked for; a listing is always as new as it can be."""
    registry, _, mount = play(t, cache_dir=t.dir / "kept")
    assert "solo" in os.listdir(mount.point)
    mount.stop()
    sample.image("1").push(registry, "later", "1")
    del registry.repos["solo"]
    mount = t.mount(registry.host, cache_dir=t.dir / "kept")
    assert os.path.isdir(mount.path("solo"))
    lib.equal(registry.count("GET", "/_catalog"), 1)
    assert os.path.isdir(mount.path("later"))
    names = os.listdir(mount.point)
    assert "later" in names and "solo" not in names, names


@lib.slow
def test_lists_that_are_long(t):
    """A catalogue of 100,000 repositories and a repository of 50,000 tags, as ECR gives them out: 1,000 names a page."""
    registry = t.bad_registry()
    sample.push_all(registry)
    names = registry.repos["team/app"]["tags"]
    names.update({f"v{number:05}": names["1.5"] for number in range(50_000)})
    many = [f"group{number // 100:04}/image{number:06}" for number in range(100_000)]
    registry.repos.update({name: registry.repos["solo"] for name in many})
    registry.n_max = 1000
    registry.rule("GET", "/_catalog|/tags/list", gather=0.05)
    mount = t.mount(registry.host)
    lib.equal(len([name for name in os.listdir(mount.point) if name[0] != "_"]), 1002)
    lib.equal(len(os.listdir(mount.path("group0999"))), 100)
    lib.equal(len(os.listdir(mount.path("team/app/_tags"))), 50_003)
    # One asks for more than 1,000 and is refused. Several places are read at a time (registry_list_ahead.c), some in vain.
    assert registry.count("GET", "/_catalog") <= 145, registry.count("GET", "/_catalog")
    assert registry.count("GET", "/tags/list") <= 80, registry.count("GET", "/tags/list")
    assert registry.rounds <= 60, registry.rounds
    kib = re.search(r"RssAnon:\s+(\d+) kB", pathlib.Path(f"/proc/{mount.process.pid}/status").read_text())[1]
    assert int(kib) < 64 * 1024, f"{kib} KiB"


def test_lists_that_are_not_so_long(t):
    """Of a list that ends on its third page nothing is asked for in vain; of one that ends on its fourth, little."""
    registry = t.bad_registry()
    sample.push_all(registry)
    registry.n_max = 1000
    mount = t.mount(registry.host)
    # One asks for more than 1,000 and is refused.
    for repo, count, most in (("team/app", 2100, 4), ("solo", 3100, 6)):
        names = registry.repos[repo]["tags"]
        names.update({f"v{number:05}": next(iter(names.values())) for number in range(count)})
        lib.equal(len(os.listdir(mount.path(repo, "_tags"))), len(names))
        asked = registry.count("GET", f"/{repo}/tags/list")
        assert asked <= most, (count, asked)


def test_a_catalogue_that_hides_repositories(t):
    """docker-registry as a pull-through cache lists what it has fetched alone; others list what the user may see of
    theirs. What is below a path that is not listed is reached by naming the path: mkdir, which asks nothing."""
    origin = t.registry()
    sample.push_all(origin)
    cache = t.registry(config={"proxy": {"remoteurl": f"http://{origin.host}"}})
    mount = t.mount(cache.host, tag_ttl=0)
    lib.equal([name for name in os.listdir(mount.point) if name[0] != "_"], [])
    # A repository that is no path is known by its tags.
    lib.equal(mount.path("solo:1/rootfs/app/version").read_text(), "solo")
    lib.equal(os.listdir(mount.path("solo/_tags")), ["1"])
    with lib.fails(errno.ENOENT):
        os.stat(mount.path("team"))
    os.mkdir(mount.path("team"))
    lib.equal(mount.path(VERSION).read_text(), "1.5")
    lib.equal(sorted(os.listdir(mount.path("team/app/_tags"))), ["1.4", "1.5", "latest"])
