# SPDX-License-Identifier: Apache-2.0
"""nginx, as the host that blobs are redirected to or as what ends TLS in front of a registry.

Knows its configuration. Must not know what is asked.
"""
import os

import lib

NGINX = """
daemon off;
pid {dir}/pid;
error_log {dir}/errors;
worker_processes 1;
events {{ worker_connections 64; }}
http {{
    log_format asked '$request_method $uri $status auth=$http_authorization range=$http_range '
                     'protocol=$server_protocol connection=$connection';
    access_log {dir}/asked asked;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {root};
        {extra}
    }}
}}
"""


def start_nginx(t, root, extra=""):
    """nginx over the directory ROOT: its port, and where it logs what was asked."""
    lib.need("nginx")
    port, home = lib.free_port(), t.dir / t.name("nginx")
    home.mkdir()
    # Its workers may be of another user.
    os.chmod(t.dir, 0o755)
    config = home / "nginx.conf"
    config.write_text(NGINX.format(dir=home, port=port, root=root, extra=extra))
    process = t.start("nginx", "-p", home, "-c", config)
    lib.wait_for(lambda: (home / "pid").exists() or not process.running(), "nginx")
    assert process.running(), process.output()
    return port, home / "asked"
