# SPDX-License-Identifier: Apache-2.0
"""Credentials: regfs login and logout; what docker, podman and helpers have stored; token services; what
is broken in any of them. And that a password goes nowhere else."""
import base64
import errno
import json
import os
import pathlib
import pty
import re
import select
import signal
import stat
import subprocess
import termios

import lib
import oci
import sample
import tokenservice

VERSION = "team/app:1.5/rootfs/app/version"
PASSWORD = "correct horse"


def docker_config():
    return pathlib.Path(os.environ["HOME"]) / ".docker/config.json"


def write_config(document, path=None):
    path = path or docker_config()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def entry(user, password=PASSWORD):
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def login(t, host, *args, user="ann", password=PASSWORD, status=0):
    """regfs login with the password on standard input: (standard output, standard error)."""
    ended = t.run(lib.REGFS, "login", "-u", user, "--password-stdin", *args, host, status=status,
                  input=f"{password}\n".encode())
    words = ended.stderr.decode()
    assert not lib.SANITIZER_WORDS.search(words), words
    return ended.stdout.decode(), words


def closed_registry(t, config):
    """The sample, behind a docker-registry that wants credentials."""
    open_one = t.registry()
    pushed = sample.push_all(open_one)
    open_one.stop()
    return t.registry(open_one.storage, config), pushed


def password_registry(t):
    """Users and passwords by htpasswd."""
    lib.need("htpasswd")
    path = t.dir / "htpasswd"
    path.write_bytes(t.run("htpasswd", "-Bbn", "ann", PASSWORD).stdout)
    return closed_registry(t, {"auth": {"htpasswd": {"realm": "test", "path": str(path)}}})[0]


def allow_all(user, _name, _action):
    return user is not None


def token_registry(t, may=allow_all):
    """A token service: everything for those who log in, unless MAY says otherwise."""
    lib.need("openssl")
    service = tokenservice.TokenService(t.dir, {"ann": PASSWORD, "bob": "bobs"}, may)
    t.stack.callback(service.close)
    return closed_registry(t, service.config())[0], service


def bad_registry(t, auth="bearer", **options):
    """A server that misbehaves, wants credentials, and is mounted."""
    registry = t.bad_registry()
    sample.push_all(registry)
    registry.auth, registry.users, registry.anonymous = auth, {"ann": PASSWORD}, False
    return registry, t.mount(registry.host, **{"timeout": 10, "tag_ttl": 0, **options})


def helper(t, name, script):
    """A credential helper, in PATH of what is started from now on."""
    path = t.dir / "bin" / f"docker-credential-{name}"
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    os.environ["PATH"] = f"{path.parent}:{os.environ['PATH']}"


def version_of(mount, path=VERSION):
    return mount.path(path).read_text()


# --- regfs login ---


def test_login_and_logout(t):
    registry = password_registry(t)
    config = write_config({"auths": {"other.io": {"auth": "b3RoZXI6eA=="}}, "psFormat": "{{.ID}}"})
    _, words = login(t, registry.host, password="wrong", status=1)
    assert "does not accept" in words and "wrong" not in words, words
    assert registry.host not in config.read_text()
    out, _ = login(t, registry.host)
    assert str(config) in out, out
    stored = json.loads(config.read_text())
    lib.equal(stored["auths"], {"other.io": {"auth": "b3RoZXI6eA=="}, registry.host: entry("ann")})
    lib.equal(stored["psFormat"], "{{.ID}}")
    lib.equal(stat.S_IMODE(config.stat().st_mode), 0o600)
    lib.equal(os.listdir(config.parent), [config.name])
    # It is the file that others share.
    t.skopeo("inspect", "--tls-verify=false", f"docker://{registry.host}/team/app:1.5")
    lib.equal(version_of(t.mount(registry.host)), "1.5")
    t.run(lib.REGFS, "logout", registry.host)
    lib.equal(list(json.loads(config.read_text())["auths"]), ["other.io"])
    t.run(lib.REGFS, "logout", registry.host, status=1)


def test_what_podman_stored(t):
    """skopeo login writes podman's file; a login of ours goes where it will be found, and logout is thorough."""
    registry = password_registry(t)
    t.skopeo("login", "--tls-verify=false", "-u", "ann", "-p", PASSWORD, registry.host)
    podmans = pathlib.Path(os.environ["XDG_RUNTIME_DIR"]) / "containers/auth.json"
    assert podmans.exists()
    lib.equal(version_of(t.mount(registry.host)), "1.5")
    out, _ = login(t, registry.host)
    assert str(podmans) in out, out
    assert not docker_config().exists()
    write_config({"auths": {registry.host: entry("ann")}})
    t.run(lib.REGFS, "logout", registry.host)
    assert registry.host not in podmans.read_text() + docker_config().read_text()


def test_login_complaints(t):
    open_one = t.registry()
    web = t.bad_registry()
    web.rule("GET", "/v2/", status=200, body="<html>", headers={"Content-Type": "text/html"})
    for args, status, expected in (
            ([], 2, "which host"), (["nohost"], 2, "nohost"), (["localhost:5000/team"], 2, "path"),
            (["-u", "a:b", "localhost:5000"], 2, "colon"), (["-p", "x", "localhost:5000"], 2, "command line"),
            (["--password=x", "localhost:5000"], 2, "command line"), (["-o", "nonsense", "a.io"], 2, "nonsense"),
            (["--password-stdin", "localhost:5000"], 2, "-u USER"), (["a.io", "b.io"], 2, "b.io")):
        ended = t.run(lib.REGFS, "login", *args, status=status)
        assert expected in ended.stderr.decode(), (args, ended.stderr)
    _, words = login(t, f"localhost:{lib.free_port()}", status=1)
    assert "refused" in words and "nothing was stored" in words, words
    _, words = login(t, web.host, status=1)
    assert "no registry" in words, words
    _, words = login(t, open_one.host, password="", status=1)
    assert "empty" in words, words
    assert not docker_config().exists()
    _, words = login(t, open_one.host)
    assert "not checked" in words, words
    assert open_one.host in docker_config().read_text()
    broken = write_config("{broken")
    _, words = login(t, open_one.host, status=1)
    assert str(broken) in words, words
    lib.equal(broken.read_text(), "{broken")


def test_login_to_a_named_file(t):
    registry = password_registry(t)
    named = t.dir / "new/auth.json"
    login(t, registry.host, "-o", f"authfile={named}")
    assert not docker_config().exists()
    with lib.fails(errno.EACCES):
        version_of(t.mount(registry.host))
    lib.equal(version_of(t.mount(registry.host, authfile=named)), "1.5")
    ended = t.run(lib.REGFS, "-o", f"authfile={t.dir}/missing", t.dir, status=2)
    assert "missing" in ended.stderr.decode(), ended.stderr


def test_login_over_tls(t):
    """As a mount does it: a certificate that nobody vouches for is refused with words."""
    lib.need("openssl")
    key, certificate = t.dir / "tls.key", t.dir / "tls.crt"
    t.run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-addext",
          "subjectAltName=IP:127.0.0.1", "-days", "2", "-keyout", key, "-out", certificate)
    registry = t.bad_registry(tls=(str(certificate), str(key)))
    registry.auth, registry.users, registry.anonymous = "bearer", {"ann": PASSWORD}, False
    _, words = login(t, registry.host, status=1)
    assert "certificate" in words and "cacert" in words and "not be tried" in words, words
    assert "does not accept" not in words, words
    assert not docker_config().exists()
    # A token service without TLS is not told a password.
    registry.realm = registry.url.replace("https", "http") + "/token"
    _, words = login(t, registry.host, "-o", f"cacert={certificate}", status=1)
    assert "not on https" in words and "does not accept" not in words, words
    # Nor one that nobody vouches for, elsewhere than the registry.
    stranger = t.bad_registry(tls=(str(certificate), str(key)))
    plain = t.bad_registry()
    plain.auth, plain.users, plain.anonymous = "bearer", {"ann": PASSWORD}, False
    plain.realm = f"{stranger.url}/token"
    _, words = login(t, plain.host, status=1)
    assert "certificate" in words and "not be tried" in words, words
    lib.equal(stranger.requests, [])
    registry.realm = None
    login(t, registry.host, "-o", f"cacert={certificate}")
    lib.equal(registry.count("GET", "^/token"), 1)


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, t, *argv):
        self.master, slave = pty.openpty()
        self.slave, self.shown = slave, b""
        self.process = subprocess.Popen([str(arg) for arg in argv], stdin=slave, stdout=slave, stderr=slave,
                                        start_new_session=True,
                                        preexec_fn=lambda: __import__("fcntl").ioctl(slave, termios.TIOCSCTTY, 0))
        t.stack.callback(self.close)

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)

    def read(self):
        while select.select([self.master], [], [], 0)[0]:
            self.shown += os.read(self.master, 1000)
        return self.shown

    def expect(self, words):
        lib.wait_for(lambda: words in self.read(), f"{words} in {self.shown}")

    def echoes(self):
        return bool(termios.tcgetattr(self.slave)[3] & termios.ECHO)

    def type(self, text):
        os.write(self.master, text)


def test_password_on_the_terminal(t):
    registry = password_registry(t)
    terminal = Terminal(t, lib.REGFS, "login", registry.host)
    terminal.expect(b"Username: ")
    assert terminal.echoes()
    terminal.type(b"ann\n")
    terminal.expect(b"Password: ")
    assert not terminal.echoes()
    terminal.type(PASSWORD.encode() + b"\n")
    terminal.expect(b"logged in")
    lib.equal(terminal.process.wait(lib.PATIENCE_S), 0)
    assert PASSWORD.encode() not in terminal.read(), terminal.shown
    assert terminal.echoes()


def test_interrupted_at_the_password(t):
    """The terminal is left as it was, also while the program is stopped."""
    terminal = Terminal(t, lib.REGFS, "login", "-u", "ann", "localhost:5000")
    terminal.expect(b"Password: ")
    terminal.process.send_signal(signal.SIGSTOP)  # cannot be held back
    terminal.process.send_signal(signal.SIGCONT)
    assert not terminal.echoes()
    terminal.type(b"\x03")
    lib.equal(terminal.process.wait(lib.PATIENCE_S), -signal.SIGINT)
    assert terminal.echoes()


def test_login_through_a_helper(t):
    """As docker does it: the helper keeps the secret, the file an empty entry."""
    registry = password_registry(t)
    helper(t, "kept", f'cd "{t.dir}"; case $1 in store) cat >kept;; get) cat >asked; cat kept;; erase) cat >gone;; esac')
    config = write_config({"credsStore": "kept"})
    out, _ = login(t, registry.host)
    assert "docker-credential-kept" in out, out
    lib.equal(json.loads((t.dir / "kept").read_text()),
              {"ServerURL": registry.host, "Username": "ann", "Secret": PASSWORD})
    lib.equal(json.loads(config.read_text()), {"credsStore": "kept", "auths": {registry.host: {}}})
    lib.equal(version_of(t.mount(registry.host)), "1.5")
    lib.equal((t.dir / "asked").read_text(), registry.host)
    t.run(lib.REGFS, "logout", registry.host)
    lib.equal((t.dir / "gone").read_text(), registry.host)


# --- mounts ---


def test_root_lists_hosts_with_credentials(t):
    registry = password_registry(t)
    mount = t.mount()
    before = set(os.listdir(mount.point))
    assert registry.host not in before
    login(t, registry.host)
    config = docker_config()
    document = json.loads(config.read_text())
    document["auths"]["https://index.docker.io/v1/"] = entry("ann")
    document["auths"]["quay.example/team"] = entry("ann")
    document["credHelpers"] = {"1.dkr.ecr.example": "ecr-login"}
    write_config(document)
    lib.equal(set(os.listdir(mount.point)) - before, {registry.host, "quay.example", "1.dkr.ecr.example"})
    # Entering one that does not answer waits for nobody.
    os.stat(mount.path("quay.example"))
    lib.equal(version_of(mount, f"{registry.host}/{VERSION}"), "1.5")


def check_changes(t, auth):
    """Logged in, password changed, logged out: without a remount."""
    registry, mount = bad_registry(t, auth)
    with lib.fails(errno.EACCES):
        version_of(mount)
    login(t, registry.host)
    lib.equal(version_of(mount), "1.5")
    registry.users["ann"] = "changed"
    registry.tokens.clear()
    with lib.fails(errno.EACCES):
        os.stat(mount.path("team/app:1.4"))
    login(t, registry.host, password="changed")
    lib.equal(version_of(mount, "team/app:1.4/rootfs/app/version"), "1.4")
    t.run(lib.REGFS, "logout", registry.host)
    registry.users["ann"] = "changed again"
    registry.tokens.clear()
    with lib.fails(errno.EACCES):
        os.stat(mount.path("team/app:latest"))


def test_changes_are_noticed(t):
    check_changes(t, "basic")


def test_changes_are_noticed_by_tokens(t):
    check_changes(t, "bearer")


def test_token_service(t):
    """Pull, list, push and a mount across repositories, each with a token for just that."""
    registry, service = token_registry(t)
    login(t, registry.host)
    mount = t.mount(registry.host, allow_delete=True)
    lib.equal(version_of(mount), "1.5")
    assert "solo" in os.listdir(mount.point)
    lib.equal(os.listdir(mount.path("solo/_tags")), ["1"])
    image = sample.image("3.0")
    image.write_layout(t.dir / "layout", "3.0")
    t.skopeo("copy", f"oci:{t.dir}/layout:3.0", f"oci-archive:{t.dir}/image.tar:3.0")
    t.run("cp", t.dir / "image.tar", mount.path("team/app/_push/3.0.tar"))
    lib.equal(version_of(mount, "team/app:3.0/rootfs/app/version"), "3.0")
    os.mkdir(mount.path("prod"))
    os.symlink("../../team/app:3.0", mount.path("prod/_tags/3.0"))
    lib.equal(version_of(mount, "prod:3.0/rootfs/app/version"), "3.0")
    os.rmdir(mount.path(f"prod@{image.digest}"))
    asked = [set(scopes) for _, user, scopes, _ in service.requests if user == "ann"]
    for scopes in ({"repository:team/app:pull"}, {"repository:team/app:pull,push"}, {"registry:catalog:*"},
                   {"repository:prod:pull,push", "repository:team/app:pull"}, {"repository:prod:delete"}):
        assert scopes in asked, (scopes, asked)
    # Nothing was asked for with rights that it does not need.
    assert not any("delete" in scope and "prod" not in scope for scopes in asked for scope in scopes), asked


def test_a_repository_that_comes_with_its_first_push(t):
    """quay/quay (endpoints/v2/v2auth.py): who asks for leave to push makes the repository; before that nobody may
    pull from it, and a HEAD for a blob is refused."""
    made = {"team/app", "catalog"}

    def may(user, name, action):
        if action == "push":
            made.add(name)
        return user is not None and name in made

    registry, _ = token_registry(t, may)
    login(t, registry.host)
    m = t.mount(registry.host, name_timeout=10)
    archive = t.dir / "1.5.tar"
    archive.write_bytes(m.path("team/app:1.5/image.tar").read_bytes())
    t.run("cp", archive, m.path("team/new/_push/1.5.tar"))
    lib.equal(version_of(m, "team/new:1.5/rootfs/app/version"), "1.5")


def test_a_denied_request_costs_one_token(t):
    """One that was refused is renewed once, and one that was just made is not."""
    registry, service = token_registry(t, lambda user, name, _: user and name != "solo")
    login(t, registry.host)
    service.requests.clear()
    mount = t.mount(registry.host, tag_ttl=0)
    with lib.fails(errno.EACCES):
        os.stat(mount.path("solo:1"))
    lib.equal(service.requests, [("GET", "ann", ["repository:solo:pull"], 200)])
    service.requests.clear()
    with lib.fails(errno.EACCES):
        os.stat(mount.path("solo:1"))
    lib.equal(service.requests, [("GET", "ann", ["repository:solo:pull"], 200)])


def test_requests_of_a_cold_cat(t):
    """What a file in the top layer costs behind a token service: a challenge, a token, the manifest, the
    config if need be, the layer; and no HEAD that buys nothing."""
    registry, service = token_registry(t)
    write_config({"auths": {registry.host: entry("ann")}})
    mount = t.mount(registry.host)
    registry.forget()
    lib.equal(version_of(mount, "solo:1/rootfs/app/version"), "solo")
    served = [(method, re.sub(r"sha256:\w+", "DIGEST", path), status)
              for method, path, status, _ in registry.requests()]
    lib.equal([line for line in served if line[2] == 401], [("GET", "/v2/", 401)], served)
    good = [line[:2] for line in served if line[2] == 200]
    manifest, blob = ("GET", "/v2/solo/manifests/1"), ("GET", "/v2/solo/blobs/DIGEST")
    assert good in ([manifest, blob], [manifest, blob, blob]), served
    lib.equal(len(good) + 1, len(served), served)
    lib.equal(service.requests, [("GET", "ann", ["repository:solo:pull"], 200)])


def test_requests_of_a_cold_cat_below_a_path(t):
    """`team` of team/app:1.5 is looked up in the last catalogue, of an earlier mount: it costs nothing. What that does
    not name is asked for."""
    registry, service = token_registry(t)
    write_config({"auths": {registry.host: entry("ann")}})
    mount = t.mount(registry.host, cache_dir=t.dir / "kept")
    assert "team" in os.listdir(mount.point)
    mount.stop()
    mount = t.mount(registry.host, cache_dir=t.dir / "kept")
    registry.forget()
    service.requests.clear()
    lib.equal(version_of(mount, "team/app:1.5/rootfs/app/version"), "1.5")
    served = [(method, re.sub(r"sha256:\w+", "DIGEST", path), status)
              for method, path, status, _ in registry.requests()]
    manifest, blob = ("GET", "/v2/team/app/manifests/1.5"), ("GET", "/v2/team/app/blobs/DIGEST")
    assert [line[:2] for line in served if line[2] == 200] in ([manifest, blob], [manifest, blob, blob]), served
    lib.equal([line for line in served if line[2] != 200], [("GET", "/v2/", 401)], served)
    lib.equal(service.requests, [("GET", "ann", ["repository:team/app:pull"], 200)])
    with lib.fails(errno.ENOENT):
        os.stat(mount.path("nobody"))
    os.mkdir(mount.path("nobody"))


def test_a_refused_catalogue_is_asked_for_once(t):
    """By who enters names; a mount later, too. Who lists asks again."""
    registry, mount = bad_registry(t, cache_dir=t.dir / "kept", tag_ttl=30)
    write_config({"auths": {registry.host: entry("ann")}})
    registry.rule("GET", "/_catalog", status=403)
    os.stat(mount.path("team/app:1.5"))
    lib.equal(registry.count("GET", "/_catalog"), 1)
    mount.stop()
    mount = t.mount(registry.host, cache_dir=t.dir / "kept")
    lib.equal(version_of(mount), "1.5")
    lib.equal(registry.count("GET", "/_catalog"), 1)
    os.listdir(mount.point)
    lib.equal(registry.count("GET", "/_catalog"), 2)


def listed(mount):
    """The repositories, or None where it is not allowed to say."""
    try:
        return sorted(name for name in os.listdir(mount.point) if name[0] != "_")
    except PermissionError:
        return None


def test_listing_without_a_password(t):
    """It says that nobody is let in as he is; and what it is, once he is let in as somebody."""
    registry = password_registry(t)
    mount = t.mount(registry.host, tag_ttl=0)
    for config in ({}, {"auths": {registry.host: entry("ann", "wrong")}}):
        write_config(config)
        assert "Permission denied" in t.run("ls", mount.point, status=2).stderr.decode()
    assert "authentication required" in mount.read_log(), mount.read_log()
    write_config({"auths": {registry.host: entry("ann")}})
    lib.equal(lib.wait_for(lambda: listed(mount), "the listing"), ["solo", "team"])


def test_listing_with_a_wrong_password_for_tokens(t):
    """Who asks as nobody sees nothing, and is not told why: others show the rest to everybody."""
    registry, _ = token_registry(t)
    mount = t.mount(registry.host)
    for auths, want in (({}, []), ({registry.host: entry("ann", "wrong")}, None),
                        ({registry.host: entry("ann")}, ["solo", "team"])):
        write_config({"auths": auths})
        mount.restart()
        lib.equal(listed(mount), want)


def test_listing_of_a_catalogue_that_nobody_may_see(t):
    """ECR, Docker Hub: who is let in sees an empty one."""
    for auth in ("basic", "bearer"):
        for status in (401, 403):
            registry, mount = bad_registry(t, auth=auth)
            write_config({"auths": {registry.host: entry("ann")}})
            registry.rule("GET", "/_catalog", status=status)
            lib.equal(listed(mount), [])


def test_identity_token(t):
    registry, service = token_registry(t)
    service.identity_tokens["id+1"] = "ann"
    write_config({"auths": {registry.host: {"identitytoken": "id+1"}}})
    lib.equal(version_of(t.mount(registry.host)), "1.5")
    lib.equal(service.count("GET"), 0)
    assert service.count("POST") > 0


def test_registry_token(t):
    """It goes to the registry as it is."""
    registry, service = token_registry(t)
    token = service.token("ann", ["repository:team/app:pull"])
    write_config({"auths": {registry.host: {"registrytoken": token}}})
    lib.equal(version_of(t.mount(registry.host)), "1.5")
    lib.equal(service.count(), 0)


def test_credentials_of_a_namespace(t):
    """The most specific entry serves (containers-auth.json(5))."""
    registry, service = token_registry(t, lambda user, name, _: user == ("ann" if name.startswith("team/") else "bob"))
    path = pathlib.Path(os.environ["XDG_RUNTIME_DIR"]) / "containers/auth.json"
    write_config({"auths": {registry.host: entry("bob", "bobs"), f"{registry.host}/team": entry("ann")}}, path)
    mount = t.mount(registry.host)
    lib.equal(version_of(mount), "1.5")
    lib.equal(version_of(mount, "solo:1/rootfs/app/version"), "solo")
    lib.equal({user for _, user, _, _ in service.requests}, {"ann", "bob"})


def test_many_readers_cost_one_token(t):
    registry, mount = bad_registry(t)
    write_config({"auths": {registry.host: entry("ann")}})
    readers = [t.start("cat", mount.path(f"team/app:{tag}/rootfs/app/version")) for tag in ("1.4", "1.5") * 8]
    for reader in readers:
        lib.equal(reader.wait(), 0)
    lib.equal(registry.count("GET", r"^/token.*repository"), 1)
    # It is taken back: one more.
    registry.tokens.clear()
    os.stat(mount.path("team/app:1.5"))
    lib.equal(registry.count("GET", r"^/token.*repository"), 2)


def test_expired_helper_password(t):
    """ECR's expire after 12 hours, and the answer is a 403 without a challenge ("Your authorization token has
    expired. Reauthenticate and try again."): the helper is asked again."""
    answer = t.dir / "answer"
    helper(t, "ecr-login", f'echo . >>{t.dir}/runs; cat "{answer}"')
    registry, mount = bad_registry(t, "basic")
    answer.write_text(json.dumps({"Username": "AWS", "Secret": "first"}))
    write_config({"credHelpers": {registry.host: "ecr-login"}})
    registry.users = {"AWS": "first"}
    lib.equal(version_of(mount), "1.5")
    lib.equal((t.dir / "runs").read_text(), ".\n")
    registry.users = {"AWS": "second"}
    answer.write_text(json.dumps({"Username": "AWS", "Secret": "second"}))
    first = base64.b64encode(b"AWS:first").decode()
    registry.expired = f"Basic {first}"
    # What the helper said a moment ago is not asked for again.
    lib.wait_for(lambda: stat_or_none(mount.path("team/app:1.4")), "the new password")
    lib.equal((t.dir / "runs").read_text(), ".\n.\n")


def stat_or_none(path):
    try:
        return os.stat(path)
    except OSError:
        return None


# --- bad input ---


def check_refused(mount, mend, *words, number=errno.EACCES):
    """Reading fails, the log says why; the mount lives, and once mended all is well."""
    with lib.fails(number):
        version_of(mount)
    log = mount.read_log()
    for word in words:
        assert word in log, log
    mend()
    lib.wait_for(lambda: stat_or_none(mount.path(VERSION)), "a mount that works again")
    lib.equal(version_of(mount), "1.5")


def test_auth_file_is_not_json(t):
    registry, mount = bad_registry(t)
    config = write_config("not json {")
    check_refused(mount, lambda: write_config({"auths": {registry.host: entry("ann")}}), str(config), "JSON")


def test_auth_file_nested_too_deep(t):
    registry, mount = bad_registry(t)
    write_config('{"auths": ' * 100_000)
    check_refused(mount, lambda: write_config({"auths": {registry.host: entry("ann")}}), "nested deeper")


def test_helper_hangs(t):
    """Others are not kept waiting, and who waits can be interrupted."""
    helper(t, "hangs", f"echo $$ >{t.dir}/pid; sleep 1000")
    registry, mount = bad_registry(t, name_timeout=2)
    write_config({"credsStore": "hangs"})
    reader = t.start("stat", mount.path("team/app:1.4"))
    lib.wait_for((t.dir / "pid").exists, "the helper")
    os.listdir(mount.path("_regfs"))
    reader.signal(signal.SIGINT)
    lib.equal(reader.wait(), -signal.SIGINT)
    check_refused(mount, lambda: write_config({"auths": {registry.host: entry("ann")}}),
                  "docker-credential-hangs", "no answer within 1.5 s")
    assert not pathlib.Path("/proc", (t.dir / "pid").read_text().strip()).exists()


def test_helper_prints_garbage(t):
    helper(t, "garbage", "echo hidden garbage")
    registry, mount = bad_registry(t)
    write_config({"credHelpers": {registry.host: "garbage"}})
    check_refused(mount, lambda: write_config({"auths": {registry.host: entry("ann")}}), "docker-credential-garbage")
    assert "hidden" not in mount.read_log()


def test_helper_is_missing(t):
    registry, mount = bad_registry(t)
    write_config({"credsStore": "missing"})
    check_refused(mount, lambda: write_config({"auths": {registry.host: entry("ann")}}),
                  "docker-credential-missing", "PATH")


def test_realm_is_no_url(t):
    registry, mount = bad_registry(t)
    write_config({"auths": {registry.host: entry("ann")}})
    registry.realm = "not a URL"
    check_refused(mount, lambda: setattr(registry, "realm", None), "not a URL", "address")


def test_token_answer_of_100_megabytes(t):
    registry, mount = bad_registry(t)
    write_config({"auths": {registry.host: entry("ann")}})
    registry.rule("GET", "^/token", status=200, body="x" * (2 << 20), set={"Content-Length": "100000000"})
    check_refused(mount, registry.rules.clear, "larger than 1 MiB", number=errno.EIO)


def test_token_answer_nested_too_deep(t):
    registry, mount = bad_registry(t)
    write_config({"auths": {registry.host: entry("ann")}})
    registry.rule("GET", "^/token", status=200, body='{"token":' * 100_000)
    check_refused(mount, registry.rules.clear, "no token", number=errno.EIO)


# --- where a secret must not be ---


def written(path):
    """What a file holds; not its holes, which may be large."""
    data, end = b"", 0
    with open(path, "rb", buffering=0) as file:
        while True:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:
                return data
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            data += os.pread(file.fileno(), end - start, start)


def test_secrets_stay_where_they_belong(t):
    registry, mount = bad_registry(t, log="debug")
    write_config({"auths": {registry.host: entry("ann")}})
    lib.equal(version_of(mount), "1.5")
    token = next(iter(registry.tokens))
    registry.users["ann"] = "changed"
    registry.tokens.clear()
    with lib.fails(errno.EACCES):
        os.stat(mount.path("team/app:1.4"))
    text = mount.output() + "".join(path.read_text() for path in mount.path("_regfs").iterdir() if path.is_file())
    assert "incorrect username or password" in text, text
    process = pathlib.Path("/proc", str(mount.process.pid))
    places = {"the log": text.encode(), "argv": (process / "cmdline").read_bytes(),
              "the environment": (process / "environ").read_bytes()}
    places.update({str(path): written(path) for path in mount.options["cache_dir"].rglob("*") if path.is_file()})
    assert any(b'"layers"' in data for data in places.values()), list(places)
    for place, data in places.items():
        for secret in (PASSWORD, "correct%20horse", "correct+horse", entry("ann")["auth"], token):
            assert secret.encode() not in data, (secret, place)
    # The password went to the token service alone.
    for request in registry.seen(".*", "/v2/"):
        assert "Basic" not in request["headers"].get("authorization", ""), request


def test_no_core_file(t):
    """What the kernel keeps to itself of a process belongs to root in /proc (proc_pid(5), "dumpable")."""
    lib.need_root()
    lib.need("setpriv")
    argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", lib.REGFS, "login", "-u", "ann",
            "--password-stdin", "localhost:5000"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        t.stack.callback(process.kill)
        proc = pathlib.Path(f"/proc/{process.pid}")
        lib.wait_for(lambda: (proc / "comm").read_text() == "regfs\n", "regfs")
        lib.wait_for(lambda: (proc / "environ").stat().st_uid == 0, "it to say so")
        process.stdin.close()
