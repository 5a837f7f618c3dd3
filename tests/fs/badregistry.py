#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""badregistry: a container registry that misbehaves on request.

Serves the distribution protocol (pull, push, lists, deletes) from memory, and breaks it where a
*rule* says so. Tests in Python import it:

    with BadRegistry() as reg:
        digest = reg.add_image("team/app", "1.5", [layer_bytes])
        reg.rule("GET", r"/blobs/", truncate=1000, times=1)
        ...
        assert reg.count("GET", r"/blobs/") == 2

C tests start it as a child; it prints "PORT OTHER_PORT" and obeys /_control (see control()):

    python3 tests/fs/badregistry.py --port 0 [--layout DIR=REPO]... [--tls CERT KEY] [--rule JSON]...

A rule is (method regex, path-with-query regex, actions); the first that matches and is not
used up applies. skip=N lets N matches pass first, times=N uses it up after N, where="other"
or "main" limits it to one of the two ports. Actions:

    status=N, headers={...}, body="..."   a canned answer
    reset=True | close=True               the connection ends before an answer (RST | FIN)
    away=True                             it ends like one that is killed, until come_back()
    stall=SECONDS                         silence before the answer
    drip=SECONDS                          answers of status 102 (RFC 2518, section 10.1), ten a second
    gather=SECONDS                        all answers at once, when nobody has asked for so long
    until=PATH                            silence until something that matches PATH was asked for
    stall_after=N                         silence for good after N bytes of the body
    truncate=N                            N bytes of the body, then the end
    extra=N                               N bytes beyond the Content-Length
    flip=OFF                              one bit of the body is wrong
    slow=BYTES                            bytes of the body a second
    set={...}                             headers of the regular answer (None removes one)
    ignore_range=True, chunked=True       200 (as=N: another status) for a range; no Content-Length
    trailers=N                            with chunked: N kB of fields behind the body
    tunnel=PORT                           of CONNECT: to that port of this machine, whatever was asked for
    redirect=URL                          307; "{other}" and "{path}" are filled in
    lose=True                             the request is carried out, its answer lost
    take=N                                N bytes of the request's body are taken in, then the end
    slow_take=BYTES                       bytes of the request's body taken in a second
    garbage=True                          nonsense before the answer's status line

The second port ("other") serves the same content, without wanting credentials: where
redirects lead. All requests are kept with their headers.
"""
import argparse
import base64
import bisect
import contextlib
import functools
import hashlib
import json
import os
import re
import select
import socket
import ssl
import struct
import sys
import threading
import time
import urllib.parse
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
NAME = r"[a-z0-9._/-]+"


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def same_kind(digest, data):
    """DATA's digest by the algorithm that DIGEST has; sha256 where that is none."""
    return "sha512:" + hashlib.sha512(data).hexdigest() if str(digest).startswith("sha512:") else sha256(data)


@functools.lru_cache(16)
def pattern(size):
    """SIZE bytes in which every position can be told from its neighbours (/raw/SIZE)."""
    words = (size + 3) // 4
    return struct.pack("<%dI" % words, *range(words))[:size]


class Rule:
    def __init__(self, method, path, times=None, skip=0, where=None, **actions):
        self.method, self.path = re.compile(method), re.compile(path)
        self.times, self.skip, self.where, self.actions = times, skip, where, actions

    def take(self, method, path, where):
        if self.times == 0 or not self.method.fullmatch(method) or not self.path.search(path):
            return False
        if self.where and self.where != where:
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times:
            self.times -= 1
        return True


class Dropped(Exception):
    """The connection ends here."""


class Answer:
    def __init__(self, status, body=b"", headers=None, length=None):
        self.status, self.body, self.headers = status, body, dict(headers or {})
        self.length = length  # Content-Length, where the body is not sent (HEAD)


def error(status, code, message="on request", headers=None):
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    return Answer(status, body, {"Content-Type": "application/json", **(headers or {})})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    def handle(self):
        state = self.server.state
        with state.lock:
            state.open_now += 1
            state.open_most = max(state.open_most, state.open_now)
            state.connections.add(self.connection)
        try:
            super().handle()
        except (Dropped, OSError):
            self.close_connection = True
        finally:
            with state.lock:
                state.open_now -= 1
                state.connections.discard(self.connection)

    def __getattr__(self, name):
        if name.startswith("do_"):
            return lambda: self.serve(name[3:])
        raise AttributeError(name)

    # ---- one request ----

    def serve(self, method):
        state = self.server.state
        if self.path.startswith("/_control"):
            return self.send(Answer(200, self.control(method).encode()), {}, method)
        entry = {"method": method, "path": self.path, "where": self.server.where,
                 "headers": {k.lower(): v for k, v in self.headers.items()},
                 "client": self.client_address[1], "certificate": self.certificate()}
        with state.lock:
            state.requests.append(entry)
            rule = next((r for r in state.rules
                         if r.take(method, self.path, self.server.where)), None)
            act = rule.actions if rule else {}
        self.before(act)
        if "tunnel" in act:
            self.tunnel(act["tunnel"])
        answer = self.canned(act)
        if answer:
            self.drain()
        else:
            answer = self.regular(method, act)
        if act.get("lose"):
            self.drop()
        self.send(answer, act, method)

    def certificate(self):
        """What the client showed, where the server asks for it."""
        return self.connection.getpeercert() if isinstance(self.connection, ssl.SSLSocket) else None

    def before(self, act):
        if "stall" in act:
            self.silence(act["stall"])
        for _ in range(int(act.get("drip", 0) * 10)):
            self.wfile.write(b"HTTP/1.1 102 Processing\r\n\r\n")
            self.silence(0.1)
        if "gather" in act:
            self.gather(act["gather"])
        while "until" in act and not self.server.state.seen("GET", act["until"]):
            self.silence(0.02)
        if act.get("reset"):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            raise Dropped
        if act.get("away"):
            self.server.state.go_away()
        if act.get("close"):
            self.drop()

    def silence(self, seconds):
        """Until SECONDS are over (None: never), the client is gone, or the registry ends."""
        end = time.monotonic() + (seconds or 1e9)
        gone = select.poll()
        gone.register(self.connection, select.POLLRDHUP)
        while time.monotonic() < end and not self.server.state.ended.is_set():
            if gone.poll(min(end - time.monotonic(), 0.1) * 1000):
                raise Dropped

    def tunnel(self, port):
        """Passes bytes on, both ways, until one side has no more."""
        with socket.create_connection(("127.0.0.1", port)) as there:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            ways = {there: self.connection, self.connection: there}
            while not self.server.state.ended.is_set():
                for side in select.select(ways, [], [], 0.1)[0]:
                    data = side.recv(65536)
                    if not data:
                        self.drop()
                    ways[side].sendall(data)
        raise Dropped

    def gather(self, seconds):
        """So a client's requests come in rounds, as they do where the way is long."""
        state = self.server.state
        with state.lock:
            mine, state.gathered = state.rounds, time.monotonic()
        while not state.ended.is_set():
            with state.lock:
                quiet = time.monotonic() - state.gathered >= seconds
                state.rounds += quiet and state.rounds == mine
                if state.rounds != mine:
                    return
            time.sleep(seconds / 10)

    def drop(self):
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.close_connection = True
        raise Dropped

    def canned(self, act):
        if "redirect" in act:
            url = act["redirect"].replace("{other}", self.server.state.other_url)
            return Answer(act.get("status", 307), b"", {"Location": url.replace("{path}", self.path)})
        if "status" not in act:
            return None
        return Answer(act["status"], act.get("body", "").encode(), act.get("headers"))

    def request_body(self, rate=None):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            data = b""
            while True:
                size = int(self.rfile.readline().strip() or b"0", 16)
                data += self.rfile.read(size)
                self.rfile.readline()
                if not size:
                    return data
        left = int(self.headers.get("Content-Length", 0))
        if not rate:
            return self.rfile.read(left)
        data = bytearray()
        while left > len(data):
            data += self.rfile.read(min(rate // 20, left - len(data)))
            self.silence(0.05)
        return bytes(data)

    def drain(self):
        if not getattr(self, "taken", False):
            self.request_body()

    # ---- what a registry does ----

    def regular(self, method, act):
        state = self.server.state
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        if act.get("take") is not None and method in ("PUT", "PATCH", "POST"):
            return self.half_upload(url.path, act["take"])
        body = self.request_body(act.get("slow_take"))
        if url.path.startswith("/raw/"):
            return self.ranged(pattern(int(url.path[5:])), act, {})
        if url.path in state.foreign:
            return self.ranged(state.foreign[url.path], act, {})
        if url.path == "/token":
            return state.token(method, url.query, body, self.headers)
        if not url.path.startswith("/v2/"):
            return Answer(404, b"<html>not here</html>", {"Content-Type": "text/html"})
        if self.server.where == "main":
            refusal = state.refuse(method, url.path, self.headers)
            if refusal:
                return refusal
        for pat, fn in ROUTES:
            m = re.fullmatch(pat, url.path)
            if m:
                with state.lock:
                    return fn(self, method, m.groups(), query, body, act)
        return error(404, "NAME_UNKNOWN")

    def root(self, method, names, query, body, act):
        return Answer(200, b"{}", {"Docker-Distribution-Api-Version": "registry/2.0",
                                   "Content-Type": "application/json"})

    def page(self, field, names, query, path):
        state = self.server.state
        if "token" in query:  # opaque
            query = dict(urllib.parse.parse_qsl(base64.urlsafe_b64decode(query["token"]).decode()))
        n = int(query.get("n", state.page_size or 100))
        if state.n_max and n > state.n_max:
            return error(400, "UNSUPPORTED", "n is too large")
        n = min(n, state.page_size or n)
        last = query.get("last", "")
        if last and last not in names and state.unknown_last == "refuse":
            return error(400, "PAGINATION_NUMBER_INVALID")
        if last and last not in names and state.unknown_last == "ignore":
            last = ""
        found, more = state.names_after(names, last, n)
        headers = {"Content-Type": "application/json"}
        if more:
            link = "%s?last=%s&n=%d" % (path, urllib.parse.quote(found[-1]), n)
            if state.link_style == "absolute":
                link = state.url + link
            elif state.link_style == "other":
                link = state.other_url + link
            elif state.link_style == "same":
                link = self.path
            elif state.link_style == "opaque":
                query = link.partition("?")[2].encode()
                link = path + "?token=" + base64.urlsafe_b64encode(query).decode()
            elif state.link_style == "prefixed":
                link = state.url + "/repository/hosted" + link
            elif state.link_style == "scheme":
                link = state.url.replace("http:", "https:") + link
            headers["Link"] = '<%s>; rel="next"' % link
        if state.link_style == "empty":
            found = []
            headers["Link"] = '<%s?last=%s>; rel="next"' % (path, uuid.uuid4().hex)
        return Answer(200, json.dumps({field: found}).encode(), headers)

    def catalog(self, method, names, query, body, act):
        return self.page("repositories", self.server.state.repos, query, "/v2/_catalog")

    def tags(self, method, names, query, body, act):
        repo = self.server.state.repos.get(names[0])
        if repo is None:
            return error(404, "NAME_UNKNOWN", "repository name not known to registry")
        return self.page("tags", repo["tags"], query, "/v2/%s/tags/list" % names[0])

    def manifests(self, method, names, query, body, act):
        state, (name, ref) = self.server.state, names
        if method == "PUT":
            digest = state.add_manifest(name, ref, body, self.headers.get("Content-Type", ""))
            headers = {"Docker-Content-Digest": digest, "Location": self.path}
            subject = json.loads(body).get("subject")
            if subject and state.referrers_api:
                headers["OCI-Subject"] = subject["digest"]
            return Answer(201, b"", headers)
        repo = state.repos.get(name)
        digest = repo and (repo["tags"].get(ref) or ref)
        if not repo or digest not in repo["manifests"]:
            return error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        if method == "DELETE":
            if ref in repo["tags"]:
                if not state.tag_delete:
                    return error(400, "UNSUPPORTED", "The operation is unsupported.")
                del repo["tags"][ref]
            else:
                del repo["manifests"][digest]
                repo["tags"] = {t: d for t, d in repo["tags"].items() if d != digest}
            return Answer(202)
        kind, data = repo["manifests"][digest]
        headers = {"Content-Type": kind, "Docker-Content-Digest": digest}
        if state.etag:
            headers["ETag"] = state.etag.replace("%s", digest[-8:])
            if self.headers.get("If-None-Match") == headers["ETag"]:
                return Answer(304, b"", headers)
        if method == "HEAD":
            return Answer(200, b"", headers, length=len(data))
        return Answer(200, data, headers)

    def referrers(self, method, names, query, body, act):
        """distribution-spec, "Listing Referrers"; in pages of page_size."""
        state, (name, subject) = self.server.state, names
        if not state.referrers_api:
            return error(404, "NOT_FOUND", "page not found")
        found = []
        for digest, (kind, data) in sorted(state.repo(name)["manifests"].items()):
            document = json.loads(data)
            if (document.get("subject") or {}).get("digest") == subject:
                # "If the artifactType is empty or missing in the image manifest, the value of artifactType MUST
                # be set to the config descriptor mediaType value"
                config_type = (document.get("config") or {}).get("mediaType", "")
                found.append({"mediaType": kind, "digest": digest, "size": len(data),
                              "artifactType": document.get("artifactType") or config_type,
                              "annotations": document.get("annotations", {})})
        first, size = int(query.get("from", 0)), state.page_size or len(found) or 1
        headers = {"Content-Type": OCI_INDEX}
        if first + size < len(found):
            headers["Link"] = '<%s?from=%d>; rel="next"' % (self.path.split("?")[0], first + size)
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found[first:first + size]}
        return Answer(200, json.dumps(index).encode(), headers)

    def blobs(self, method, names, query, body, act):
        state, (name, digest) = self.server.state, names
        repo = state.repos.get(name)
        if not repo or digest not in repo["blobs"]:
            return error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        data = state.blobs[digest]
        headers = {"Content-Type": "application/octet-stream", "Docker-Content-Digest": digest}
        if method == "HEAD":
            return Answer(200, b"", headers, length=len(data))
        return self.ranged(data, act, headers)

    def ranged(self, data, act, headers):
        m = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not m or act.get("ignore_range"):
            return Answer(act.get("as", 200), data, headers)
        first, last = int(m[1]), min(int(m[2] or len(data)), len(data) - 1)
        if first > last:
            return Answer(416, b"", {"Content-Range": "bytes */%d" % len(data)})
        headers["Content-Range"] = "bytes %d-%d/%d" % (first, last, len(data))
        return Answer(206, data[first:last + 1], headers)

    # ---- uploads ----

    def uploads(self, method, names, query, body, act):
        state, name = self.server.state, names[0]
        repo = state.repo(name)
        source = state.repos.get(query.get("from", ""))
        if source and query.get("mount") in source["blobs"]:
            repo["blobs"].add(query["mount"])
            return Answer(201, b"", {"Docker-Content-Digest": query["mount"]})
        ident = uuid.uuid4().hex
        state.uploads[ident] = bytearray()
        return self.upload_state(name, ident, 202)

    def upload_state(self, name, ident, status):
        size = len(self.server.state.uploads[ident])
        return Answer(status, b"", {
            "Location": "/v2/%s/blobs/uploads/%s?_state=a%%2Bb" % (name, ident),
            "Range": "0-%d" % max(size - 1, 0), "Docker-Upload-UUID": ident})

    def half_upload(self, path, size):
        upload = self.server.state.uploads.get(path.rsplit("/", 1)[-1])
        # Never all of it: what is not sent would be waited for.
        length = int(self.headers.get("Content-Length") or 0)
        data = self.rfile.read(min(size, max(length - 1, 0)))
        if upload is not None:
            upload += data
        self.drop()

    def upload(self, method, names, query, body, act):
        state, (name, ident) = self.server.state, names
        if ident not in state.uploads:
            return error(404, "BLOB_UPLOAD_UNKNOWN")
        if query.get("_state") != "a+b":
            return error(400, "BLOB_UPLOAD_INVALID", "the state was lost")
        data = state.uploads[ident]
        if method == "GET":
            return self.upload_state(name, ident, 204)
        if method == "DELETE":
            del state.uploads[ident]
            return Answer(204)
        m = re.fullmatch(r"(?:bytes )?(\d+)-(\d+)", self.headers.get("Content-Range", ""))
        if m and int(m[1]) != len(data):
            return error(416, "RANGE_INVALID")
        data += body
        if method == "PATCH":
            return self.upload_state(name, ident, 202)
        del state.uploads[ident]
        if same_kind(query.get("digest"), data) != query.get("digest"):
            return error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        state.add_blob(name, bytes(data), query["digest"])
        return Answer(201, b"", {"Docker-Content-Digest": query["digest"]})

    # ---- the answer ----

    def send(self, answer, act, method):
        body, headers = answer.body, answer.headers
        if "flip" in act and body:
            at = act["flip"] % len(body)
            body = body[:at] + bytes([body[at] ^ 1]) + body[at + 1:]
        chunked = act.get("chunked")
        if answer.status >= 200 and answer.status != 204:
            length = len(body) if answer.length is None else answer.length
            headers.setdefault("Content-Length", str(length))
        if chunked:
            headers.pop("Content-Length", None)
            headers["Transfer-Encoding"] = "chunked"
        for name, value in act.get("set", {}).items():
            headers.pop(name, None)
            if value is not None:
                headers[name] = value
        if act.get("garbage"):
            self.wfile.write(b"left over from before\r\n")
        self.send_response(answer.status)
        for name, value in headers.items():
            for one in value if isinstance(value, list) else [value]:
                self.send_header(name, one)
        self.end_headers()
        if method == "HEAD":
            return
        if chunked and body:
            trailers = b"x-t: %s\r\n" % (b"t" * 1000) * act.get("trailers", 0)
            body = b"%x\r\n%s\r\n0\r\n%s\r\n" % (len(body), body, trailers)
        self.send_body(body + b"x" * act.get("extra", 0), act)

    def send_body(self, body, act):
        for word in ("truncate", "stall_after"):
            if word in act:
                self.wfile.write(body[:act[word]])
                self.wfile.flush()
                if word == "stall_after":
                    self.silence(None)
                self.drop()
        if "slow" in act:
            step = max(act["slow"] // 20, 1)
            for at in range(0, len(body), step):
                self.wfile.write(body[at:at + step])
                self.silence(0.05)
        else:
            self.wfile.write(body)

    # ---- the C tests' remote control ----

    def control(self, method):
        """POST JSON {"rule": {...}} | {"set": {attribute: value}} | {"clear": true};
        GET ?count=REGEX ("GET /v2/.*") the number of such requests; ?header=NAME&of=REGEX the
        header of the last such request ("-" if it had none); ?clients=REGEX the connections they
        came on; ?rounds=1 how often answers were given together."""
        state = self.server.state
        body = self.request_body()
        with state.lock:
            if method == "POST":
                return state.obey(json.loads(body))
            query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
            if "rounds" in query:
                return str(state.rounds)
            found = [r for r in state.requests
                     if re.search(query.get("of") or query.get("clients") or query.get("count", ""),
                                  "%s %s %s" % (r["where"], r["method"], r["path"]))]
            if "clients" in query:
                return str(len({r["client"] for r in found}))
            if "header" in query:
                return found[-1]["headers"].get(query["header"].lower(), "-") if found else "?"
            return str(len(found))


ROUTES = [
    (r"/v2/", Handler.root),
    (r"/v2/_catalog", Handler.catalog),
    (r"/v2/(%s)/tags/list" % NAME, Handler.tags),
    (r"/v2/(%s)/manifests/([^/]+)" % NAME, Handler.manifests),
    (r"/v2/(%s)/referrers/([^/]+)" % NAME, Handler.referrers),
    (r"/v2/(%s)/blobs/uploads/" % NAME, Handler.uploads),
    (r"/v2/(%s)/blobs/uploads/([^/]+)" % NAME, Handler.upload),
    (r"/v2/(%s)/blobs/([^/]+:[^/]+)" % NAME, Handler.blobs),
]


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def handle_error(self, request, address):
        pass


class BadRegistry:
    def __init__(self, port=0, tls=None, clients_ca=None):
        self.clients_ca = clients_ca
        self.lock = threading.RLock()
        self.ended = threading.Event()
        self.rules, self.requests = [], []
        self.repos, self.blobs, self.uploads = {}, {}, {}
        self.open_now = self.open_most = 0
        self.connections = set()
        self.rounds, self.gathered = 0, 0.0  # answers that were given together; the last request for one
        self.sorted = {}          # the long list that was last asked for
        # ways of a server; tests set them
        self.page_size, self.n_max, self.link_style = None, None, "relative"
        self.sort = "bytes"       # "path" ('/' before all, as distribution does) or "hash"
        self.unknown_last = None  # of a page behind a name that is none: "refuse", "ignore"
        self.tag_delete = True
        self.referrers_api = False
        self.etag = None  # "%s" in it: of what is served
        self.foreign = {}         # path: bytes served there, of no repository
        self.auth = None          # None, "basic", "bearer"
        self.users = {}           # name: password
        self.expired = None       # an Authorization header that earns a 403 without a challenge
        self.anonymous = True     # the token service serves pulls to anybody
        self.identity_token = None
        self.expires_in, self.token_field = 300, "token"
        self.realm = None         # None: the token service of this server
        self.tokens = {}          # token: (scopes, valid until)
        scheme = "https" if tls else "http"
        self.tls = tls
        self.servers = [self.listen(port, "main", tls), self.listen(0, "other", tls)]
        self.port, self.other_port = (s.server_address[1] for s in self.servers)
        self.host = "127.0.0.1:%d" % self.port
        self.url = "%s://127.0.0.1:%d" % (scheme, self.port)
        self.other_url = "%s://127.0.0.1:%d" % (scheme, self.other_port)

    def listen(self, port, where, tls):
        server = Server(("127.0.0.1", port), Handler)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            if self.clients_ca:
                context.verify_mode = ssl.CERT_OPTIONAL
                context.load_verify_locations(self.clients_ca)
            server.socket = context.wrap_socket(server.socket, server_side=True,
                                                do_handshake_on_connect=False)
        server.state, server.where = self, where
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server

    def go_away(self):
        """Its port is closed, and all connections end; what it holds it keeps."""
        self.servers[0].shutdown()
        self.servers[0].server_close()
        with self.lock:
            for connection in self.connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        raise Dropped

    def come_back(self):
        self.servers[0] = self.listen(self.port, "main", self.tls)

    def close(self):
        self.ended.set()
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # ---- what tests ask and say ----

    def rule(self, method, path, **actions):
        with self.lock:
            self.rules.append(Rule(method, path, **actions))

    def names_after(self, names, last, n):
        """At most N of NAMES behind LAST, and whether there are more."""
        key = {"bytes": str, "path": lambda name: name.replace("/", "\0"),
               "hash": lambda name: hashlib.md5(name.encode()).hexdigest()}[self.sort]
        which = (id(names), len(names), self.sort)
        if which not in self.sorted or len(names) < 1000:
            self.sorted = {which: (names, sorted((key(name), name) for name in names))}
        order = self.sorted[which][1]
        first = bisect.bisect_right(order, (key(last), last)) if last else 0
        return [name for _, name in order[first:first + n]], first + n < len(order)

    def clear(self):
        with self.lock:
            self.rules.clear()
            self.requests.clear()
            self.rounds = 0
            self.open_most = self.open_now

    def count(self, method, path, where=None):
        return len(self.seen(method, path, where))

    def seen(self, method, path, where=None):
        with self.lock:
            return [r for r in self.requests if re.fullmatch(method, r["method"])
                    and re.search(path, r["path"]) and where in (None, r["where"])]

    def obey(self, order):
        if "rule" in order:
            self.rule(**order["rule"])
        for name, value in order.get("set", {}).items():
            setattr(self, name, value)
        if order.get("clear"):
            self.clear()
        if "many" in order:
            self.add_many(order["many"], order["names"], order.get("repo"))
        if "blob" in order:
            return self.add_blob(order["repo"], pattern(order["blob"]))
        if "manifest" in order:
            return self.add_manifest(order["repo"], order.get("tag"), order["manifest"].encode(),
                                     order.get("type", OCI_MANIFEST))
        return "ok"

    # ---- content ----

    def add_many(self, count, names, repo=None):
        """COUNT tags of REPO, or repositories, whose NAMES are a format of a number {n} and its hash {h}."""
        with self.lock:
            where, what = (self.repo(repo)["tags"], "x") if repo else (self.repos, self.repo("empty"))
            where.update({names.format(n=n, h=hashlib.md5(b"%d" % n).hexdigest()): what for n in range(count)})

    def repo(self, name):
        return self.repos.setdefault(name, {"tags": {}, "manifests": {}, "blobs": set()})

    def add_blob(self, name, data, like=None):
        digest = same_kind(like, data)
        with self.lock:
            self.blobs[digest] = data
            self.repo(name)["blobs"].add(digest)
        return digest

    def add_manifest(self, name, ref, data, kind=OCI_MANIFEST):
        """Stores a manifest; REF is a tag, a digest or None."""
        digest = same_kind(ref, data)
        with self.lock:
            repo = self.repo(name)
            repo["manifests"][digest] = (kind, data)
            if ref and ":" not in ref:
                repo["tags"][ref] = digest
        return digest

    def add_image(self, name, tag, layers, config=None, kind=OCI_LAYER_GZIP):
        """An image of LAYERS (bytes as stored); returns its digest."""
        config = json.dumps(config or {"os": "linux", "architecture": "amd64"}).encode()
        manifest = {
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "size": len(config),
                       "digest": self.add_blob(name, config)},
            "layers": [{"mediaType": kind, "size": len(data), "digest": self.add_blob(name, data)}
                       for data in layers]}
        return self.add_manifest(name, tag, json.dumps(manifest).encode())

    def add_layout(self, path, name):
        """All images of an OCI layout, under their ref names, into repository NAME."""
        def blob(digest):
            with open(os.path.join(path, "blobs", *digest.split(":")), "rb") as f:
                return f.read()

        def add(descriptor, tag):
            data = blob(descriptor["digest"])
            document = json.loads(data)
            self.add_manifest(name, tag, data, descriptor["mediaType"])
            for child in document.get("manifests", []):
                add(child, None)
            for part in [document["config"]] * ("config" in document) + document.get("layers", []):
                self.add_blob(name, blob(part["digest"]))

        with open(os.path.join(path, "index.json"), "rb") as f:
            for descriptor in json.load(f)["manifests"]:
                notes = descriptor.get("annotations", {})
                add(descriptor, notes.get("org.opencontainers.image.ref.name"))

    # ---- credentials ----

    def refuse(self, method, path, headers):
        """The answer for a request without sufficient credentials, or None."""
        got = headers.get("Authorization", "")
        if self.expired and got == self.expired:
            return error(403, "DENIED", "Your authorization token has expired. Reauthenticate and try again.")
        if self.auth == "basic":
            if got.startswith("Basic ") and self.known_user(got[6:]):
                return None
            return error(401, "UNAUTHORIZED", "authentication required",
                         {"WWW-Authenticate": 'Basic realm="the test\'s"'})
        if self.auth != "bearer":
            return None
        m = re.fullmatch(r"/v2/(%s)/(?:manifests|blobs|tags|referrers)/.*" % NAME, path)
        action = {"GET": "pull", "HEAD": "pull", "DELETE": "delete"}.get(method, "push")
        need = "repository:%s:%s" % (m[1], action) if m else None
        if path == "/v2/_catalog":
            need = "registry:catalog:*"
        scopes, until = self.tokens.get(got[7:], ((), 0))
        if time.time() < until and (not need or self.covers(scopes, need)):
            return None
        realm = self.realm or self.url + "/token"
        challenge = 'Bearer realm="%s",service="test, \\"quoted\\""' % realm
        if need:
            challenge += ',scope="%s"' % need
        if got:
            challenge += ',error="invalid_token"'
        return error(401, "UNAUTHORIZED", "authentication required",
                     {"WWW-Authenticate": ['Negotiate', challenge]})

    @staticmethod
    def covers(scopes, need):
        kind, name, action = need.split(":")
        return any(s.startswith("%s:%s:" % (kind, name)) and action in s.split(":")[2].split(",")
                   for s in scopes)

    def known_user(self, basic):
        user, _, password = base64.b64decode(basic).decode().partition(":")
        return self.users.get(user) == password

    def token(self, method, query, body, headers):
        scopes = []
        if method == "POST":
            form = dict(urllib.parse.parse_qsl(body.decode()))
            if not self.identity_token or form.get("refresh_token") != self.identity_token:
                return error(401, "UNAUTHORIZED", "no such refresh token")
            scopes = form.get("scope", "").split()
        else:
            scopes = [v for k, v in urllib.parse.parse_qsl(query) if k == "scope"]
            basic = headers.get("Authorization", "")
            known = basic.startswith("Basic ") and self.known_user(basic[6:])
            if not known and (basic or not self.anonymous):
                return error(401, "UNAUTHORIZED", "incorrect username or password")
            if not known:
                scopes = [s for s in scopes if s.endswith(":pull")]
        token = uuid.uuid4().hex
        with self.lock:
            self.tokens[token] = (scopes, time.time() + self.expires_in)
        answer = {self.token_field: token, "expires_in": self.expires_in}
        return Answer(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--layout", action="append", default=[], metavar="DIR=REPO")
    parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"))
    parser.add_argument("--rule", action="append", default=[], metavar="JSON")
    args = parser.parse_args()
    registry = BadRegistry(args.port, args.tls)
    for rule in args.rule:
        registry.rule(**json.loads(rule))
    for layout in args.layout:
        registry.add_layout(*layout.rsplit("=", 1))
    print("%d %d" % (registry.port, registry.other_port), flush=True)
    # A test that dies closes the pipe: nothing of it stays behind.
    sys.stdin.read()
    registry.close()


if __name__ == "__main__":
    main()
