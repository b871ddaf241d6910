"""Starts two Envoys as a client's and a service's sidecar, with SPIFFE authentication of both.

Owns: their configuration. Outbound: plain HTTP/1.1 on loopback, `service.mesh` to the other over TLS 1.3, whose SPIFFE
ID must be the service's. Inbound: a client certificate is required, its SPIFFE ID must be the client's (in the
handshake, and by RBAC for each request), then the service in plain HTTP/1.1. Connections are kept on all three ways.
Must not: give Envoy work that README.md does not name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import svids
from install import Tool
from peers import without_paths
from processes import Process, free_port, pinned, start, stop_all, wait_until_listening
from server import KILOBYTE, MESH_NAME, Endpoint, Place, Server
from svids import Svid

Config = dict[str, Any]
_TYPE = "type.googleapis.com/envoy.extensions"
_TLS = f"{_TYPE}.transport_sockets.tls.v3"
_OPTIONS = f"{_TYPE}.upstreams.http.v3.HttpProtocolOptions"
_FIELDS = {
    "time": "%START_TIME%",
    "requestId": "%REQ(X-REQUEST-ID)%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "principal": "%DOWNSTREAM_PEER_URI_SAN%",
    "method": "%REQ(:METHOD)%",
    "host": "%REQ(:AUTHORITY)%",
    "path": "%REQ(:PATH)%",
    "endpoint": "%UPSTREAM_HOST%",
    "status": "%RESPONSE_CODE%",
    "detail": "%RESPONSE_CODE_DETAILS%",
    "bytesIn": "%BYTES_RECEIVED%",
    "bytesOut": "%BYTES_SENT%",
    "totalMs": "%DURATION%",
}


def envoy_pair(tool: Tool, place: Place, *, logged: bool, http2: bool = False) -> Server:
    """Both with `--concurrency 1`. `logged`: each writes a JSON line a request to a file; `http2` between the two."""
    folder = place.folder
    client = svids.make(folder, "a.bench.test", "client")
    service = svids.make(folder, "b.bench.test", "service")
    inbound, outbound = free_port(), free_port()
    configs = {
        inbound: _inbound(inbound, place.service, (service, client)),
        outbound: _outbound(outbound, inbound, (client, service), http2),
    }
    processes: list[Process] = []
    try:
        for port, config in configs.items():
            if logged:
                _log(config, folder / f"{port}.jsonl")
            processes.append(_start(tool, port, config, place))
    except BaseException:
        stop_all(processes)
        raise
    fields = {"Host": MESH_NAME}
    return Server(
        name="envoy-pair-logged" if logged else "envoy-pair",
        version=tool.version,
        command="; ".join(without_paths(each.command, place) for each in processes),
        endpoints={
            "mesh": Endpoint(f"http://127.0.0.1:{outbound}/", body=KILOBYTE, fields=fields),
            "inbound": Endpoint(f"https://127.0.0.1:{inbound}/", fields=fields),
        },
        roots=lambda: tuple(process.pid for process in processes),
        stop=lambda: stop_all(processes),
    )


def _start(tool: Tool, port: int, config: Config, place: Place) -> Process:
    file = place.folder / f"{port}.json"
    file.write_text(json.dumps(config))
    command = [str(tool.path), "-c", str(file), "--concurrency", "1"]
    line = pinned([*command, "--disable-hot-restart", "-l", "error"], place.mode.server_cores)
    process = start(f"envoy-{port}", line, place.folder, tool.environment)
    wait_until_listening(process, port)
    return process


def _inbound(port: int, service: int, sides: tuple[Svid, Svid]) -> Config:
    own, other = sides
    context = {
        "@type": f"{_TLS}.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": _common(own, other, ["h2", "http/1.1"]),
    }
    listener = _listener(port, [_rbac(other)], "service")
    listener["filter_chains"][0]["transport_socket"] = _socket(context)
    return _config(listener, _cluster("service", service))


def _outbound(port: int, inbound: int, sides: tuple[Svid, Svid], http2: bool) -> Config:
    own, other = sides
    protocol = "h2" if http2 else "http/1.1"
    context = {
        "@type": f"{_TLS}.UpstreamTlsContext",
        "sni": MESH_NAME,
        "common_tls_context": _common(own, other, [protocol]),
    }
    cluster = _cluster("service", inbound)
    cluster["transport_socket"] = _socket(context)
    if http2:
        explicit: Config = {"explicit_http_config": {"http2_protocol_options": {}}}
        options = {_OPTIONS.removeprefix("type.googleapis.com/"): {"@type": _OPTIONS, **explicit}}
        cluster["typed_extension_protocol_options"] = options
    return _config(_listener(port, [], "service"), cluster)


def _common(own: Svid, other: Svid, protocols: list[str]) -> Config:
    """This side's SVID, and the one SPIFFE ID that the other may show."""
    name = {"san_type": "URI", "matcher": {"exact": other.spiffe_id}}
    return {
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3",
            "tls_maximum_protocol_version": "TLSv1_3",
        },
        "tls_certificates": [
            {
                "certificate_chain": {"filename": str(own.certificate)},
                "private_key": {"filename": str(own.key)},
            }
        ],
        "validation_context": {
            "trusted_ca": {"filename": str(other.authority)},
            "match_typed_subject_alt_names": [name],
        },
        "alpn_protocols": protocols,
    }


def _socket(context: Config) -> Config:
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def _rbac(caller: Svid) -> Config:
    """Allows this principal GET; everybody else is denied."""
    method = {"header": {"name": ":method", "string_match": {"exact": "GET"}}}
    principal = {"authenticated": {"principal_name": {"exact": caller.spiffe_id}}}
    policy = {"permissions": [method], "principals": [principal]}
    return {
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": f"{_TYPE}.filters.http.rbac.v3.RBAC",
            "rules": {"action": "ALLOW", "policies": {"callers": policy}},
        },
    }


def _listener(port: int, stages: list[Config], cluster: str) -> Config:
    route = {"match": {"prefix": "/"}, "route": {"cluster": cluster}}
    host = {"name": "service", "domains": [MESH_NAME], "routes": [route]}
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{_TYPE}.filters.http.router.v3.Router"},
    }
    manager = {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "mesh",
        "route_config": {"virtual_hosts": [host]},
        "http_filters": [*stages, router],
    }
    chain = {
        "filters": [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
        ]
    }
    return {
        "name": "mesh",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [chain],
    }


def _cluster(name: str, port: int) -> Config:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    assignment = {"cluster_name": name, "endpoints": endpoints}
    return {"name": name, "type": "STATIC", "load_assignment": assignment}


def _config(listener: Config, cluster: Config) -> Config:
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _log(config: Config, file: Path) -> None:
    listener = config["static_resources"]["listeners"][0]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    log = {
        "@type": f"{_TYPE}.access_loggers.file.v3.FileAccessLog",
        "path": str(file),
        "log_format": {"json_format": _FIELDS},
    }
    manager["access_log"] = [{"name": "envoy.access_loggers.file", "typed_config": log}]
