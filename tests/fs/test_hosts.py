# SPDX-License-Identifier: Apache-2.0
"""How a registry is reached: TLS with a CA of one's own, client certificates, mirrors by
registries.conf and hosts.toml, proxies."""
import base64
import errno
import os
import select
import shutil
import socket
import threading

import lib
import oci
import sample
from certs import Authority
from nginx import start_nginx

FILE = "team/app:1.5/rootfs/app/version"
QUICK = {"timeout": 8, "name_timeout": 8, "tag_ttl": 0}


class TlsRegistry(lib.Registry):
    """A docker-registry that speaks TLS, over the storage of a plain one."""

    def __init__(self, t, pair, storage, **tls):
        self.tls = {"certificate": str(pair[0]), "key": str(pair[1]), **tls}
        super().__init__(t.dir / t.name("tls"), storage, None)
        t.stack.callback(self.stop)

    def start(self):
        config = lib.json.loads(self.config.read_text())
        config["http"]["tls"] = self.tls
        self.config.write_text(lib.json.dumps(config))
        super().start()

    def answers(self):
        if not self.process.running():
            raise AssertionError(f"docker-registry ended:\n{self.process.output()}")
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0


def tls_registry(t, pair, **tls):
    plain = t.registry()
    sample.push_all(plain)
    return TlsRegistry(t, pair, plain.storage, **tls)


def certs_dir(t, host, **files):
    """A certs.d directory: NAME=file for HOST."""
    root = t.dir / t.name("certs.d")
    (root / host).mkdir(parents=True)
    for name, source in files.items():
        shutil.copy(source, root / host / name.replace("_", "."))
    return root


def conf(t, text):
    path = t.dir / t.name("registries.conf")
    path.write_text(text)
    return path


def version(mount):
    return mount.path(FILE).read_text()


def refused(mount, *words):
    with lib.fails(errno.EACCES):
        version(mount)
    log = mount.read_log()
    for word in words:
        assert word in log, (word, log)


# ---- TLS ----

def test_private_ca(t):
    authority = Authority(t, t.dir / "ca")
    registry = tls_registry(t, authority.issue("server"))
    host = f"127.0.0.1:{registry.port}"
    mount = t.mount(f"https://{host}", cacert=authority.cert, **QUICK)
    lib.equal(version(mount), "1.5")
    assert "HTTP/2.0" in registry.process.output()
    mount = t.mount(host, certs_dir=certs_dir(t, host, ca_crt=authority.cert), **QUICK)
    lib.equal(version(mount), "1.5")
    # docker's and containers' own places, below the home directory
    place = t.dir / "home/.config/containers/certs.d" / host
    place.mkdir(parents=True)
    mount = t.mount(host, **QUICK)
    refused(mount, "certificate", "cacert=", f"certs.d/HOST/ca.crt", "insecure=")
    shutil.copy(authority.cert, place / "ca.crt")
    lib.wait_for(lambda: readable(mount), "the CA to be noticed")
    mount = t.mount(host, insecure=host, certs_dir=certs_dir(t, "nobody"), **QUICK)
    lib.equal(version(mount), "1.5")


def readable(mount):
    try:
        return version(mount)
    except OSError:
        return None


def test_bad_certificates(t):
    authority = Authority(t, t.dir / "ca")
    for name, options, words in (("other", {"san": "DNS:other.example"}, "127.0.0.1"),
                                 ("old", {"days": -1}, "expired")):
        registry = tls_registry(t, authority.issue(name, **options))
        mount = t.mount(f"https://127.0.0.1:{registry.port}", cacert=authority.cert, **QUICK)
        refused(mount, words)


def test_client_certificate(t):
    authority = Authority(t, t.dir / "ca")
    cert, key = authority.issue("client")
    registry = tls_registry(t, authority.issue("server"), clientcas=[str(authority.cert)])
    host = f"localhost:{registry.port}"
    root = certs_dir(t, host, ca_crt=authority.cert)
    mount = t.mount(f"https://{host}", certs_dir=root, **QUICK)
    refused(mount, "wants a client certificate", "certs.d/HOST/client.cert")
    # without a remount
    shutil.copy(key, root / host / "client.key")
    (root / host / "client.key").chmod(0o644)
    shutil.copy(cert, root / host / "client.cert")
    lib.wait_for(lambda: "can be read by everybody" in try_and_log(mount), "the key's sentence")
    refused(mount, f"{host}/client.key", "chmod o-r")
    (root / host / "client.key").chmod(0o600)
    lib.wait_for(lambda: readable(mount), "the key to be noticed")


def try_and_log(mount):
    readable(mount)
    return mount.read_log()


# ---- mirrors ----

def mirrored(t, origin, mirror, more=""):
    """Mounts ORIGIN with MIRROR by registries.conf."""
    text = f'[[registry]]\nlocation = "{origin.host}"\n[[registry.mirror]]\nlocation = "{mirror.host}"\n{more}'
    return t.mount(origin.host, registries_conf=conf(t, text), certs_dir=certs_dir(t, "nobody"), **QUICK)


def test_pull_through_cache(t):
    origin = t.registry()
    sample.push_all(origin)
    cache = t.registry(config={"proxy": {"remoteurl": f"http://{origin.host}"}})
    mount = mirrored(t, origin, cache)
    lib.equal(sorted(os.listdir(mount.path("team/app/_tags"))), ["1.4", "1.5", "latest"])
    lib.equal(version(mount), "1.5")
    assert cache.count("GET", r"/team/app/manifests/") and cache.count("GET", r"/team/app/blobs/")
    # What is pushed goes to the origin.
    cache.forget()
    sample.image("9").write_layout(t.dir / "layout")
    t.skopeo("copy", f"oci:{t.dir}/layout:latest", f"oci-archive:{t.dir}/9.tar")
    shutil.copy(t.dir / "9.tar", mount.path("team/app/_push/9.tar"))
    lib.equal(origin.request("HEAD", "/v2/team/app/manifests/9", None, {"Accept": oci.MANIFEST})[0], 200)
    lib.equal(cache.count("PUT|POST|PATCH"), 0)
    # With the origin gone the cache serves what it has, lists too.
    origin.stop()
    mount.stop()
    mount.options["cache_dir"] = t.dir / "another"
    mount.start()
    t.stack.callback(mount.stop)
    lib.equal(version(mount), "1.5")
    assert "1.5" in os.listdir(mount.path("team/app/_tags"))


def test_hosts_toml(t):
    origin, mirror = t.bad_registry(), t.bad_registry()
    for registry in origin, mirror:
        sample.push_all(registry)
    root = certs_dir(t, "hub.example")
    (root / "hub.example/hosts.toml").write_text(
        f'server = "http://{origin.host}"\n[host."http://{mirror.host}"]\ncapabilities = ["pull"]\n')
    mount = t.mount("hub.example", certs_dir=root, registries_conf=conf(t, ""), **QUICK)
    lib.equal(version(mount), "1.5")
    # docs/hosts.md: only who has "resolve" is asked for tags; ns= names the registry.
    asked = [entry["path"] for entry in mirror.requests if "/team/app/" in entry["path"]]
    assert asked and all(path.endswith("?ns=hub.example") for path in asked), asked
    assert not any("manifests/1.5" in path for path in asked), asked
    assert any("blobs" in path for path in asked), asked
    assert any("manifests/1.5" in entry["path"] for entry in origin.requests)
    assert not any("blobs" in entry["path"] for entry in origin.requests)


def test_wrong_bytes_from_a_mirror(t):
    origin, mirror = t.bad_registry(), t.bad_registry()
    for registry in origin, mirror:
        sample.push_all(registry)
    mirror.rule("GET", "/blobs/", flip=100)
    mount = mirrored(t, origin, mirror)
    lib.equal(version(mount), "1.5")
    lib.equal(mount.path("team/app:1.5/rootfs/noise").read_bytes(), sample.NOISE)
    assert "came wrong from the mirror" in mount.read_log(), mount.read_log()
    # Config and layers of an image never seen: none of them wrong.
    mirror.rules.clear()
    mirror.rule("GET", "/blobs/", truncate=50)
    lib.equal(mount.path("solo:1/rootfs/app/version").read_text(), "solo")


def test_mirror_down_and_back(t):
    origin, mirror = t.registry(), t.registry()
    for registry in origin, mirror:
        sample.push_all(registry)
    mirror.stop()
    mount = mirrored(t, origin, mirror)
    lib.equal(version(mount), "1.5")
    assert "left aside" in mount.read_log()
    mirror.start()
    lib.wait_for(lambda: version(mount) and mirror.count(path="/team/"), "the mirror to be asked again")


def test_digest_only_mirror(t):
    origin, mirror = t.bad_registry(), t.bad_registry()
    pushed = sample.push_all(origin)
    pushed["1.4"].push(mirror, "team/app", "1.5")  # it has an older image under that name
    pushed["1.5"].push(mirror, "team/app", "other")
    mount = mirrored(t, origin, mirror, 'pull-from-mirror = "digest-only"\n')
    lib.equal(version(mount), "1.5")
    asked = [entry["path"] for entry in mirror.requests if entry["method"] == "GET"]
    assert not any("manifests/1.5" in path for path in asked)


def test_blocked(t):
    registry = t.registry()
    sample.push_all(registry)
    path = conf(t, f'[[registry]]\nlocation = "{registry.host}/team"\nblocked = true\n')
    mount = t.mount(registry.host, registries_conf=path, **QUICK)
    refused(mount, f"{path}, line 1, blocks {registry.host}/team")
    lib.equal(registry.count(path="/team/"), 0)
    lib.equal(mount.path("solo:1/rootfs/app/version").read_text(), "solo")
    # What is not understood unblocks nothing.
    path.write_text("[[registry]\n")
    lib.wait_for(lambda: "line 1: a table's name" in try_and_log(mount), "the file to be refused")
    refused(mount)
    path.write_text("")
    lib.wait_for(lambda: readable(mount), "the file to be mended")


def test_moved_by_location(t):
    registry = t.registry()
    sample.push_all(registry)
    path = conf(t, f'[[registry]]\nprefix = "names.example/here"\nlocation = "{registry.host}/team"\ninsecure = true\n')
    mount = t.mount("names.example", registries_conf=path, **QUICK)
    lib.equal(mount.path("here/app:1.5/rootfs/app/version").read_text(), "1.5")
    # as others read the same file
    raw = t.skopeo("--registries-conf", path, "inspect", "--raw", "docker://names.example/here/app:1.5")
    lib.equal(mount.path("here/app:1.5/manifest.json").read_text(), raw)


def test_short_name_alias(t):
    registry = t.registry()
    sample.push_all(registry)
    text = f'[aliases]\n"app" = "{registry.host}/team/app"\n'
    mount = t.mount("app:1.4", registries_conf=conf(t, text), **QUICK)
    lib.equal(mount.path("rootfs/app/version").read_text(), "1.4")


def test_streams_of_one_connection(t):
    """Over HTTP/2 requests about names do not wait for each other, and take one connection: nginx in front says which."""
    authority = Authority(t, t.dir / "ca")
    registry, port = t.bad_registry(), lib.free_port()
    sample.push_all(registry)
    tags = registry.repos["team/app"]["tags"]
    tags.update({f"v{number}": tags["1.5"] for number in range(8)})
    cert, key = authority.issue("server")
    _, asked = start_nginx(t, t.dir, f"""
        listen 127.0.0.1:{port} ssl http2; ssl_certificate {cert}; ssl_certificate_key {key};
        location / {{ proxy_pass {registry.url}; }}""")
    mount = t.mount(f"https://127.0.0.1:{port}", cacert=authority.cert, **QUICK)
    os.listdir(mount.path("team/app"))
    registry.clear()
    registry.rule("GET|HEAD", "/manifests/v", gather=0.3)
    for reader in [t.start("stat", mount.path(f"team/app:v{number}/digest")) for number in range(8)]:
        lib.equal(reader.wait(), 0)
    # nginx has a connection of its own for each request that it passes on.
    assert registry.open_most >= 4, registry.open_most
    lines = [line for line in asked.read_text().splitlines() if "/manifests/v" in line]
    lib.equal({line.split(" protocol=")[1] for line in lines}, {lines[0].split(" protocol=")[1]})
    assert len(lines) >= 8 and "HTTP/2.0" in lines[0], lines


class Way:
    """Passes connections on to a port of this machine, until those there are go dead: open, and without a sign."""

    def __init__(self, t, to):
        self.to, self.ended, self.dead, self.pairs = to, threading.Event(), set(), []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        thread = threading.Thread(target=self.run)
        thread.start()
        t.stack.callback(thread.join)
        t.stack.callback(self.ended.set)

    def run(self):
        while not self.ended.is_set():
            ways = {here: there for pair in self.pairs for here, there in (pair, pair[::-1]) if here not in self.dead}
            for ready in select.select([self.socket, *ways], [], [], 0.05)[0]:
                if ready is self.socket:
                    self.pairs.append((self.socket.accept()[0], socket.create_connection(("127.0.0.1", self.to))))
                elif data := ready.recv(65536):
                    ways[ready].sendall(data)
                else:
                    self.dead.update((ready, ways[ready]))
        for pair in self.pairs:
            for sock in pair:
                sock.close()

    def go_dead(self):
        self.dead.update(sock for pair in self.pairs for sock in pair)


def test_a_dead_connection_is_left(t):
    """What lies between acknowledges what is sent and passes nothing on, as balancers and tunnels do that forgot the
    connection: over HTTP/2 each new request would go into it."""
    authority = Authority(t, t.dir / "ca")
    registry, port = t.bad_registry(), lib.free_port()
    sample.push_all(registry)
    tags = registry.repos["team/app"]["tags"]
    tags.update({f"v{number}": tags["1.5"] for number in range(3)})
    cert, key = authority.issue("server")
    start_nginx(t, t.dir, f"""
        listen 127.0.0.1:{port} ssl http2; ssl_certificate {cert}; ssl_certificate_key {key};
        location / {{ proxy_pass {registry.url}; }}""")
    way = Way(t, port)
    mount = t.mount(f"https://127.0.0.1:{way.port}", cacert=authority.cert, name_timeout=3)
    os.stat(mount.path("team/app:v0/digest"))
    lib.equal(len(way.pairs), 1)
    way.go_dead()
    with lib.fails(errno.ETIMEDOUT):
        os.stat(mount.path("team/app:v1/digest"))
    os.stat(mount.path("team/app:v2/digest"))


# ---- proxies ----

def test_proxy(t):
    proxy, local = t.bad_registry(), t.bad_registry()
    for registry in proxy, local:
        sample.push_all(registry)
    os.environ["http_proxy"] = proxy.url
    mount = t.mount("http://registry.invalid:5000", **QUICK)
    lib.equal(version(mount), "1.5")
    assert any(entry["path"].startswith("http://registry.invalid:5000/v2/") or
               entry["headers"]["host"] == "registry.invalid:5000" for entry in proxy.requests)
    # Never for this machine.
    proxy.forget()
    mount = t.mount(local.host, **QUICK)
    lib.equal(version(mount), "1.5")
    lib.equal(proxy.requests, [])
    os.environ["NO_PROXY"] = "registry.invalid"
    mount = t.mount("http://registry.invalid:5000", cache_dir=t.dir / "none", **QUICK)
    with lib.fails(errno.EHOSTUNREACH):
        version(mount)
    lib.equal(proxy.requests, [])


def test_proxy_for_https(t):
    """A tunnel, by CONNECT: the proxy sees names and no credentials. NO_PROXY counts."""
    authority = Authority(t, t.dir / "ca")
    registry = tls_registry(t, authority.issue("server", "DNS:registry.invalid"))
    proxy = t.bad_registry()
    proxy.rule("CONNECT", r"^registry.invalid:5000$", tunnel=registry.port)
    os.environ["https_proxy"] = proxy.url
    options = {"cacert": authority.cert, **QUICK}
    lib.equal(version(t.mount("https://registry.invalid:5000", **options)), "1.5")
    lib.equal({entry["method"] for entry in proxy.requests}, {"CONNECT"})
    proxy.forget()
    os.environ["NO_PROXY"] = "elsewhere.invalid,registry.invalid"
    mount = t.mount("https://registry.invalid:5000", cache_dir=t.dir / "none", **options)
    with lib.fails(errno.EHOSTUNREACH):
        version(mount)
    lib.equal(proxy.requests, [])


def test_a_token_service_elsewhere(t):
    """The registry names it: the client certificate and the carelessness that are for the registry are not for any other
    host, which has settings of its own. The registry's CA counts there too, as it does where a registry redirects to."""
    authority = Authority(t, t.dir / "authority")
    plain, registry = t.bad_registry(), t.bad_registry(tls=authority.issue("server"), clients_ca=authority.cert)
    sample.push_all(plain)
    registry.repos, registry.blobs = plain.repos, plain.blobs
    registry.auth, elsewhere = "bearer", f"localhost:{registry.other_port}"
    registry.realm = f"https://{elsewhere}/token"
    host, (cert, key) = f"127.0.0.1:{registry.port}", authority.issue("client")
    root = certs_dir(t, host, ca_crt=authority.cert, client_cert=cert, client_key=key)
    lib.equal(version(t.mount(f"https://{host}", certs_dir=root, **QUICK)), "1.5")
    assert registry.seen("GET", "/v2/", "main")[-1]["certificate"]
    lib.equal({repr(asked["certificate"]) for asked in registry.seen("GET", "/token", "other")}, {"None"})
    # It has one of its own.
    shutil.copytree(root / host, root / elsewhere)
    registry.forget()
    lib.equal(version(t.mount(f"https://{host}", certs_dir=root, **QUICK)), "1.5")
    assert registry.seen("GET", "/token", "other")[-1]["certificate"]
    # Nobody verifies the registry; the service is another matter.
    nobody = certs_dir(t, "nobody")
    refused(t.mount(f"https://{host}", insecure=host, certs_dir=nobody, **QUICK), "certificate", elsewhere)
    lib.equal(version(t.mount(f"https://{host}", "-o", f"insecure={elsewhere}", insecure=host, certs_dir=nobody, **QUICK)), "1.5")


def test_plain_http_only_where_insecure(t):
    """A name that nobody resolves: our server stands in for it as the proxy, which refuses to pass TLS on."""
    proxy = t.bad_registry()
    sample.push_all(proxy)
    os.environ.update(http_proxy=proxy.url, https_proxy=proxy.url)
    mount = t.mount("registry.invalid:5000", **QUICK)
    with lib.fails(errno.EIO):
        version(mount)
    lib.equal({entry["method"] for entry in proxy.requests}, {"CONNECT"})
    proxy.forget()
    mount = t.mount("registry.invalid:5000", insecure="registry.invalid:5000", **QUICK)
    lib.equal(version(mount), "1.5")
    assert proxy.seen("CONNECT", ""), "TLS is tried too"


def test_insecure_host_is_asked_in_both_ways_at_once(t):
    """TLS and plain HTTP do not wait for each other: a greeting is only hung up on when the other has come."""
    registry = t.bad_registry()
    sample.push_all(registry)
    registry.forget()
    listener = t.stack.enter_context(socket.create_server(("0.0.0.0", 0)))
    plain, greeted = threading.Event(), threading.Event()

    def relay(source, sink):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)

    def serve(client):
        with client:
            if client.recv(1, socket.MSG_PEEK) == b"\x16":
                greeted.set()
                plain.wait(60)
                return
            plain.set()
            greeted.wait(60)
            with socket.create_connection(("127.0.0.1", registry.port)) as server:
                back = threading.Thread(target=relay, args=(server, client), daemon=True)
                back.start()
                relay(client, server)
                back.join()

    def accept():
        while True:
            try:
                client = listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    host = f"0.0.0.0:{listener.getsockname()[1]}"  # no name of this machine's, by its spelling
    lib.equal(version(t.mount(host, insecure=host, **QUICK)), "1.5")
    lib.equal((registry.count("GET", "/v2/$"), registry.count("GET", "/manifests/1.5$")), (0, 1))
    listener.shutdown(socket.SHUT_RDWR)


def test_first_question_finds_the_scheme_without_credentials(t):
    """At an insecure host it is what is wanted anyway, and not /v2/ before it."""
    registry = t.bad_registry()
    sample.push_all(registry)
    registry.auth, registry.users = "basic", {"ann": "secret"}
    registry.forget()
    host = f"0.0.0.0:{registry.port}"  # no name of this machine's, by its spelling
    authfile = t.dir / "auth.json"
    authfile.write_text(lib.json.dumps({"auths": {host: {"auth": base64.b64encode(b"ann:secret").decode()}}}))
    lib.equal(version(t.mount(host, insecure=host, authfile=authfile, **QUICK)), "1.5")
    asked = [(entry["path"], "authorization" in entry["headers"]) for entry in registry.seen("GET", "^/v2/")]
    (first, with_one), (second, with_another), *rest = asked
    lib.equal((first, with_one), (second, not with_another))
    assert all(with_any for _, with_any in rest) and "/v2/" not in dict(asked), asked
