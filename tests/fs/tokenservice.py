# SPDX-License-Identifier: Apache-2.0
"""A token service for docker-registry ("auth: token:"), in this process.

Speaks the GET form (distribution, "Token Authentication Specification") and the POST form ("OAuth2
Token Authentication"), and signs what it gives with a key made by openssl for the test. Who may do
what is a function; all requests are kept. Must not know regfs.
"""
import base64
import http.server
import json
import subprocess
import threading
import time
import urllib.parse
import uuid

SERVICE, ISSUER = "the test's registry", "the test's issuer"


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class TokenService:
    """USERS is {name: password}; MAY(user or None, repository, action) decides."""

    def __init__(self, directory, users, may):
        self.key, self.certificate = directory / "token.key", directory / "token.crt"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=token",
                        "-days", "2", "-keyout", self.key, "-out", self.certificate],
                       check=True, capture_output=True)
        der = subprocess.run(["openssl", "x509", "-in", self.certificate, "-outform", "DER"], check=True,
                             capture_output=True).stdout
        self.header = encode(json.dumps({"typ": "JWT", "alg": "RS256",
                                         "x5c": [base64.b64encode(der).decode()]}).encode())
        self.users, self.may = users, may
        self.identity_tokens = {}  # token: user
        self.expires_in = 300
        self.requests = []  # (method, user or None, scopes, status)
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_GET(self):
                service.get(self)

            def do_POST(self):
                service.post(self)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def realm(self):
        return f"http://127.0.0.1:{self.server.server_address[1]}/token"

    def config(self):
        """What goes into docker-registry's configuration."""
        return {"auth": {"token": {"realm": self.realm, "service": SERVICE, "issuer": ISSUER,
                                   "rootcertbundle": str(self.certificate)}}}

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def count(self, method=None):
        return sum(1 for request in self.requests if method in (None, request[0]))

    # --- requests ---

    def get(self, handler):
        query = urllib.parse.parse_qsl(urllib.parse.urlsplit(handler.path).query)
        scopes = " ".join(value for name, value in query if name == "scope").split()
        user = None
        header = handler.headers.get("Authorization", "")
        if header:
            user, _, password = base64.b64decode(header.removeprefix("Basic ")).decode().partition(":")
            if self.users.get(user) != password:
                self.refuse(handler, "GET", user, scopes)
                return
        self.grant(handler, "GET", user, scopes)

    def post(self, handler):
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        form = dict(urllib.parse.parse_qsl(body.decode()))
        scopes = form.get("scope", "").split()
        user = self.identity_tokens.get(form.get("refresh_token"))
        if form.get("grant_type") != "refresh_token" or form.get("service") != SERVICE or not user:
            self.refuse(handler, "POST", user, scopes)
            return
        self.grant(handler, "POST", user, scopes)

    def refuse(self, handler, method, user, scopes):
        self.requests.append((method, user, scopes, 401))
        self.answer(handler, 401, {"errors": [{"code": "UNAUTHORIZED", "message": "incorrect user or password"}]})

    def grant(self, handler, method, user, scopes):
        self.requests.append((method, user, scopes, 200))
        token = self.token(user, scopes)
        field = "token" if method == "GET" else "access_token"
        self.answer(handler, 200, {field: token, "expires_in": self.expires_in})

    @staticmethod
    def answer(handler, status, document):
        body = json.dumps(document).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    # --- tokens ---

    def token(self, user, scopes):
        """A signed token for what USER may do of SCOPES."""
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            # "push" before "pull", which may hang on it.
            allowed = [action for action in sorted(actions.split(","), reverse=True) if self.may(user, name, action)]
            access.append({"type": kind, "name": name, "actions": allowed})
        now = int(time.time())
        claims = {"iss": ISSUER, "sub": user or "", "aud": SERVICE, "exp": now + max(self.expires_in, 60),
                  "nbf": now - 10, "iat": now, "jti": uuid.uuid4().hex, "access": access}
        signed = f"{self.header}.{encode(json.dumps(claims).encode())}"
        signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", self.key], input=signed.encode(),
                                   check=True, capture_output=True).stdout
        return f"{signed}.{encode(signature)}"
