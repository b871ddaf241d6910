"""Starts nginx, workerd and `wasmtime serve` with the settings the figures are quoted for.

Owns: their configuration files and command lines.
Must not: measure, or tune a peer differently from what README.md says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from install import Tool
from processes import Process, free_port, pinned, start, wait_until_listening
from server import GREETING, KILOBYTE, Endpoint, Place, Server

_NGINX = """
daemon off;
worker_processes {workers};
pid {folder}/nginx.pid;
error_log stderr error;
worker_rlimit_nofile 65536;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  client_header_timeout 600s;
  upstream origin {{ server 127.0.0.1:{origin}; keepalive 64; keepalive_requests 1000000000; }}
  ssl_certificate {certificate};
  ssl_certificate_key {key};
  ssl_protocols TLSv1.3;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{plain} reuseport;
    listen 127.0.0.1:{tls} ssl reuseport;
    location / {{ default_type text/plain; return 200 "{body}"; }}
    location /proxy {{
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
    }}
  }}
}}
"""

_ORIGIN = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location / {{ default_type text/plain; return 200 "{body}"; }}
  }}
}}
"""

_WORKERD = """
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = .worker)],
  sockets = [(name = "http", address = "127.0.0.1:{port}", http = (), service = "main")]
);
const worker :Workerd.Worker = (
  modules = [(name = "worker.mjs", esModule = embed "worker.mjs")],
  compatibilityDate = "2026-11-01",
);
"""
_WORKER = """export default {{
  fetch() {{
    return new Response({body}, {{ headers: {{ "content-type": "text/plain" }} }});
  }},
}};
"""

WASMTIME_TUNING = (
    "-Opooling-allocator=y",
    "-Opooling-memory-keep-resident=1048576",
    "-Opooling-table-keep-resident=65536",
    "-Opooling-pagemap-scan=yes",
    "-Scli=y",
)


def origin(tool: Tool, place: Place) -> Server:
    """The service behind the servers: nginx on the load's core, 1,024 bytes, plain HTTP/1.1."""
    return _behind("origin", tool, place, place.origin, place.mode.load_cores)


def service(tool: Tool, place: Place) -> Server:
    """The same behind the sidecars, on the server's core: the load spins on its own."""
    return _behind("service", tool, place, place.service, place.mode.server_cores)


def _behind(name: str, tool: Tool, place: Place, port: int, cores: Sequence[int]) -> Server:
    config = place.folder / "nginx.conf"
    body = KILOBYTE.replace("\n", "\\n")
    config.write_text(_ORIGIN.format(folder=place.folder, port=port, body=body))
    command = [str(tool.path), "-p", str(place.folder), "-c", str(config), "-e", "stderr"]
    process = start(name, pinned(command, cores), place.folder, tool.environment)
    wait_until_listening(process, port)
    endpoints = {"plain": Endpoint(f"http://127.0.0.1:{port}/", body=KILOBYTE)}
    return served(name, tool, process, place, endpoints)


def nginx(tool: Tool, place: Place) -> Server:
    """`return 200`, plain and over TLS 1.3, and a proxy; no access log, connections never recycled."""
    plain, tls = free_port(), free_port()
    config = place.folder / "nginx.conf"
    config.write_text(
        _NGINX.format(
            workers=place.workers,
            folder=place.folder,
            certificate=place.credentials.certificate,
            key=place.credentials.key,
            plain=plain,
            tls=tls,
            origin=place.origin,
            body=GREETING.replace("\n", "\\n"),
        )
    )
    command = [str(tool.path), "-p", str(place.folder), "-c", str(config), "-e", "stderr"]
    process = _start("nginx", tool, command, place, tls)
    endpoints = {
        "plain": Endpoint(f"http://127.0.0.1:{plain}/"),
        "tls": Endpoint(f"https://localhost:{tls}/"),
        "proxy": Endpoint(f"https://localhost:{tls}/proxy", body=KILOBYTE),
    }
    return served("nginx", tool, process, place, endpoints)


def workerd(tool: Tool, place: Place) -> Server:
    """The JavaScript hello of workerd's documentation, plain HTTP; its isolate is reused."""
    port = free_port()
    config = place.folder / "config.capnp"
    config.write_text(_WORKERD.format(port=port))
    body = '"' + GREETING.replace("\n", "\\n") + '"'
    (place.folder / "worker.mjs").write_text(_WORKER.format(body=body))
    process = _start("workerd", tool, [str(tool.path), "serve", str(config)], place, port)
    endpoints = {"plain": Endpoint(f"http://127.0.0.1:{port}/")}
    return served("workerd", tool, process, place, endpoints)


def wasmtime(tool: Tool, place: Place) -> Server:
    """The hello component, tuned as in the field notes: a fresh instance a request, pooled."""
    port = free_port()
    command = [str(tool.path), "serve", *WASMTIME_TUNING, "--addr", f"127.0.0.1:{port}"]
    process = _start("wasmtime", tool, [*command, str(place.component)], place, port)
    endpoints = {"plain": Endpoint(f"http://127.0.0.1:{port}/")}
    return served("wasmtime", tool, process, place, endpoints)


def _start(name: str, tool: Tool, command: list[str], place: Place, port: int) -> Process:
    line = pinned(command, place.mode.server_cores)
    process = start(name, line, place.folder, tool.environment)
    wait_until_listening(process, port)
    return process


def served(
    name: str, tool: Tool, process: Process, place: Place, endpoints: Mapping[str, Endpoint]
) -> Server:
    """The running peer, with its command as RESULTS.md may show it: no path of this machine."""
    return Server(
        name=name,
        version=tool.version,
        command=without_paths(process.command, place),
        endpoints=endpoints,
        roots=lambda: (process.pid,),
        stop=process.stop,
    )


def without_paths(command: tuple[str, ...], place: Place) -> str:
    """The command line with the run's folder and the cache named, not spelled."""
    line = " ".join(command)
    for folder, word in ((place.folder, "$RUN"), (place.cache, "$CACHE"), (Path.home(), "~")):
        line = line.replace(str(folder), word)
    return line
