"""Starts Envoy as an answering edge: direct responses behind what our own path does.

Owns: its configuration. One process, one listener for each endpoint: plain, tls, full (TLS, a
cached ES256 JWT, RBAC, local rate limit), logged (full, RBAC asking for the caller's claim too,
and a JSON access log to a file) and proxy (TLS, the service behind). `full` is the cheapest form of
its words on purpose: we are judged against it.
Must not: give Envoy work that README.md does not name.
"""

from __future__ import annotations

import json
from typing import Any

from credentials import AUDIENCE, ISSUER
from install import Tool
from peers import served
from processes import free_port, pinned, start, wait_until_listening
from server import GREETING, KILOBYTE, Endpoint, Place, Server

Config = dict[str, Any]
_TYPE = "type.googleapis.com/envoy.extensions"
_HTTP = f"{_TYPE}.filters.http"
_ANYBODY: Config = {"any": True}


def envoy(tool: Tool, place: Place) -> Server:
    """`--concurrency` 1 when pinned, one for each core when cores are shared."""
    ports = {name: free_port() for name in ("plain", "tls", "full", "logged", "proxy")}
    config = place.folder / "envoy.json"
    config.write_text(json.dumps(_bootstrap(ports, place)))
    command = [str(tool.path), "-c", str(config), "--concurrency", str(place.workers)]
    line = pinned([*command, "--disable-hot-restart", "-l", "error"], place.mode.server_cores)
    process = start("envoy", line, place.folder, tool.environment)
    for port in ports.values():
        wait_until_listening(process, port)
    tokens = (place.credentials.token,)
    endpoints = {
        "plain": Endpoint(f"http://127.0.0.1:{ports['plain']}/"),
        "tls": Endpoint(f"https://localhost:{ports['tls']}/"),
        "full": Endpoint(f"https://localhost:{ports['full']}/", tokens),
        "logged": Endpoint(f"https://localhost:{ports['logged']}/", tokens),
        "proxy": Endpoint(f"https://localhost:{ports['proxy']}/", body=KILOBYTE),
    }
    return served("envoy", tool, process, place, endpoints)


def _bootstrap(ports: dict[str, int], place: Place) -> Config:
    full = [_jwt(place, claims=False), _rbac(_ANYBODY), _rate_limit()]
    logged = [_jwt(place, claims=True), _rbac(_caller()), _rate_limit()]
    listeners = [
        _listener("plain", ports["plain"], place, tls=False, stages=[]),
        _listener("tls", ports["tls"], place, tls=True, stages=[]),
        _listener("full", ports["full"], place, tls=True, stages=full),
        _listener("logged", ports["logged"], place, tls=True, stages=logged, log=True),
        _listener("proxy", ports["proxy"], place, tls=True, stages=[], proxy=True),
    ]
    return {"static_resources": {"listeners": listeners, "clusters": [_origin(place.origin)]}}


def _origin(port: int) -> Config:
    """The service behind, with connections never recycled."""
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    endpoint = {"endpoint": {"address": address}}
    return {
        "name": "origin",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "origin",
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
    }


def _listener(
    name: str,
    port: int,
    place: Place,
    *,
    tls: bool,
    stages: list[Config],
    log: bool = False,
    proxy: bool = False,
) -> Config:
    chain: Config = {"filters": [_connection_manager(name, place, stages, log, proxy)]}
    if tls:
        chain["transport_socket"] = _tls(place)
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"name": name, "address": address, "filter_chains": [chain]}


def _tls(place: Place) -> Config:
    certificate = {
        "certificate_chain": {"filename": str(place.credentials.certificate)},
        "private_key": {"filename": str(place.credentials.key)},
    }
    context = {
        "@type": f"{_TYPE}.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3"},
            "tls_certificates": [certificate],
            "alpn_protocols": ["h2", "http/1.1"],
        },
    }
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def _connection_manager(
    name: str, place: Place, stages: list[Config], log: bool, proxy: bool
) -> Config:
    answer = {"status": 200, "body": {"inline_string": GREETING}}
    action = {"route": {"cluster": "origin"}} if proxy else {"direct_response": answer}
    route = {"match": {"prefix": "/"}, **action}
    host = {"name": "edge", "domains": ["*"], "routes": [route]}
    router = _filter("router", f"{_HTTP}.router.v3.Router", {})
    manager: Config = {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "route_config": {"virtual_hosts": [host]},
        "http_filters": [*stages, router],
    }
    if log:
        manager["access_log"] = [_json_log(place)]
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}


def _filter(name: str, type_url: str, settings: Config) -> Config:
    return {"name": f"envoy.filters.http.{name}", "typed_config": {"@type": type_url, **settings}}


def _jwt(place: Place, *, claims: bool) -> Config:
    """`claims` hands them on for RBAC and the log, which costs Envoy some microseconds."""
    provider: Config = {
        "issuer": ISSUER,
        "audiences": [AUDIENCE],
        "local_jwks": {"inline_string": place.credentials.jwks},
        "jwt_cache_config": {"jwt_cache_size": 500},
    }
    if claims:
        provider["payload_in_metadata"] = "claims"
    rule = {"match": {"prefix": "/"}, "requires": {"provider_name": "bench"}}
    settings = {"providers": {"bench": provider}, "rules": [rule]}
    return _filter("jwt_authn", f"{_HTTP}.jwt_authn.v3.JwtAuthentication", settings)


def _rbac(principal: Config) -> Config:
    """Allows the principal GET below /; everybody else is denied."""
    method = {"name": ":method", "string_match": {"exact": "GET"}}
    permission = {"and_rules": {"rules": [{"header": method}, _path_below_root()]}}
    policy = {"permissions": [permission], "principals": [principal]}
    settings = {"rules": {"action": "ALLOW", "policies": {"callers": policy}}}
    return _filter("rbac", f"{_HTTP}.rbac.v3.RBAC", settings)


def _caller() -> Config:
    """Whoever our issuer vouched for, read from the token's claims."""
    return {
        "metadata": {
            "filter": "envoy.filters.http.jwt_authn",
            "path": [{"key": "claims"}, {"key": "iss"}],
            "value": {"string_match": {"exact": ISSUER}},
        }
    }


def _path_below_root() -> Config:
    return {"url_path": {"path": {"prefix": "/"}}}


def _rate_limit() -> Config:
    """A bucket no run empties: the work of asking, not of refusing."""
    always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    settings = {
        "stat_prefix": "limit",
        "token_bucket": {
            "max_tokens": 4_000_000_000,
            "tokens_per_fill": 4_000_000_000,
            "fill_interval": "1s",
        },
        "filter_enabled": always,
        "filter_enforced": always,
    }
    return _filter("local_ratelimit", f"{_HTTP}.local_ratelimit.v3.LocalRateLimit", settings)


def _json_log(place: Place) -> Config:
    """The fields of our own record that Envoy knows."""
    fields = {
        "time": "%START_TIME%",
        "requestId": "%REQ(X-REQUEST-ID)%",
        "client": "%DOWNSTREAM_REMOTE_ADDRESS%",
        "protocol": "%PROTOCOL%",
        "sni": "%REQUESTED_SERVER_NAME%",
        "method": "%REQ(:METHOD)%",
        "host": "%REQ(:AUTHORITY)%",
        "path": "%REQ(:PATH)%",
        "principal": "%DYNAMIC_METADATA(envoy.filters.http.jwt_authn:claims:sub)%",
        "status": "%RESPONSE_CODE%",
        "detail": "%RESPONSE_CODE_DETAILS%",
        "bytesIn": "%BYTES_RECEIVED%",
        "bytesOut": "%BYTES_SENT%",
        "totalMs": "%DURATION%",
    }
    log = {
        "@type": f"{_TYPE}.access_loggers.file.v3.FileAccessLog",
        "path": str(place.folder / "access.jsonl"),
        "log_format": {"json_format": fields},
    }
    return {"name": "envoy.access_loggers.file", "typed_config": log}
