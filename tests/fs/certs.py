# SPDX-License-Identifier: Apache-2.0
"""A CA of the tests' own, and certificates by it, made with openssl.

Knows openssl. Must not know who uses them.
"""
import pathlib

import lib

NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


class Authority:
    """A CA in DIRECTORY: .cert is its own."""

    def __init__(self, t, directory):
        lib.need("openssl")
        self.t, self.dir = t, pathlib.Path(directory)
        self.dir.mkdir()
        self.cert, self.key = self.dir / "ca.crt", self.dir / "ca.key"
        t.run("openssl", "req", "-x509", *NEW_KEY, "-subj", "/CN=a CA of the tests", "-days", "2",
              "-keyout", self.key, "-out", self.cert)

    def issue(self, name, san="IP:127.0.0.1,DNS:localhost", days=2):
        """(certificate, key) for SAN; expired with negative DAYS."""
        cert, key = self.dir / f"{name}.cert", self.dir / f"{name}.key"
        request, extensions = self.dir / f"{name}.csr", self.dir / f"{name}.ext"
        extensions.write_text(f"subjectAltName={san}\n")
        self.t.run("openssl", "req", *NEW_KEY, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        self.t.run("openssl", "x509", "-req", "-in", request, "-CA", self.cert, "-CAkey", self.key,
                   "-CAcreateserial", "-days", str(days), "-extfile", extensions, "-out", cert)
        key.chmod(0o600)
        return cert, key
