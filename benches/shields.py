"""Starts servers with a web application firewall in them: nginx with libmodsecurity, and Coraza's own server.

Owns: their configuration, and the request that all rows of the firewall are asked: a browser's, its arguments
different each time. Each server answers the same file or text at one address without and at one with its rules.
Must not: measure, or give a peer other rules than `firewall.settled` does.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import debian
import firewall
import install
from install import Say, Tool
from peers import served
from processes import BenchError, free_port, pinned, start, wait_until_listening
from server import GREETING, Endpoint, Place, Server

LEVEL = 1
PATHS = 20_000
"""More than a worker of ours knows (4,096): none comes back while it is known."""
BROWSER = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language": "en-GB,en;q=0.5",
    "Accept-Encoding": "gzip, deflate, br",
    "Referer": "https://shop.example.com/articles",
    "Cache-Control": "max-age=0",
    "Cookie": "session=9b2f51c4e8a70001; theme=dark",
}
"""The fields of a browser's request, those of `crates/waf/examples/cost.rs`."""

_MODULE = "ngx_http_modsecurity_module.so"
_NGINX = """
load_module {module};
daemon off;
worker_processes {workers};
pid {folder}/nginx.pid;
error_log stderr crit;
worker_rlimit_nofile 65536;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  default_type text/plain;
  keepalive_requests 1000000000;
  open_file_cache max=16;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  modsecurity_rules_file {rules};
  server {{
    listen 127.0.0.1:{port} reuseport;
    root {folder}/files;
    location / {{ try_files /hello =404; }}
    location /judged/ {{ modsecurity on; try_files /hello =404; }}
  }}
}}
"""


def queries(path: str) -> tuple[str, ...]:
    """A browser's requests for `path`, with arguments that no other has."""
    return tuple(
        f"{path}?category=garden{number}&page={number}&sort=price_{number}"
        for number in range(PATHS)
    )


def nginx_module(say: Say) -> Tool:
    """Debian's nginx with its ModSecurity module: `environment` has the module's path."""
    package = "libnginx-mod-http-modsecurity"
    root = debian.unpack(package, install.cache_folder() / "debian", say)
    module = next(root.glob(f"usr/**/{_MODULE}"), None)
    if module is None:
        raise BenchError(f"the Debian package {package} holds no {_MODULE}")
    inside = next((path for path in debian.programs(root) if path.name == "nginx"), None)
    nginx = install.debian_tool("nginx", "nginx", ["-v"], say)
    environment = {**debian.library_environment(root), "MODULE": str(module)}
    return Tool(inside or nginx.path, nginx.version, environment)


def nginx_modsecurity(tool: Tool, rules: list[Path], place: Place) -> Server:
    """A small file, with and without libmodsecurity, in one server."""
    port, files = free_port(), place.folder / "files"
    files.mkdir()
    (files / "hello").write_text(GREETING)
    includes = place.folder / "rules.conf"
    settled = firewall.settled(rules, LEVEL, place.folder / "rules")
    includes.write_text("".join(f"Include {file}\n" for file in settled))
    environment = dict(tool.environment or {})
    config = place.folder / "nginx.conf"
    config.write_text(
        _NGINX.format(
            module=environment.pop("MODULE"),
            workers=place.workers,
            folder=place.folder,
            rules=includes,
            port=port,
        )
    )
    command = [str(tool.path), "-p", str(place.folder), "-c", str(config), "-e", "stderr"]
    line = pinned(command, place.mode.server_cores)
    process = start("nginx-modsecurity", line, place.folder, environment)
    wait_until_listening(process, port)
    return served("nginx-modsecurity", tool, process, place, _endpoints(port))


def coraza(tool: Tool, rules: list[Path], place: Place) -> Server:
    """Go's own server, with and without Coraza before the same answer."""
    port = free_port()
    settled = firewall.settled(rules, LEVEL, place.folder / "rules")
    command = [str(tool.path), "serve", f"127.0.0.1:{port}", *map(str, settled)]
    line = pinned(command, place.mode.server_cores)
    process = start("coraza", line, place.folder)
    wait_until_listening(process, port)
    return served("coraza", tool, process, place, _endpoints(port))


def _endpoints(port: int) -> dict[str, Endpoint]:
    url = f"http://localhost:{port}"
    return {"open": asked(f"{url}/", judged=False), "judged": asked(f"{url}/judged/", judged=True)}


def asked(url: str, *, judged: bool, tokens: tuple[str, ...] = (), again: bool = False) -> Endpoint:
    """An address as a browser asks it, or polls it with the same request `again` and again; that it is judged,
    or is not, is checked with an attack.
    """
    paths = queries(urlsplit(url).path)
    return Endpoint(url, tokens, paths[:1] if again else paths, fields=BROWSER, judged=judged)
