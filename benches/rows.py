"""Lists what is measured: each row is one server, one endpoint, one load.

Owns: row names (what `--only` takes), titles and which rows run in which mode.
Must not: start or measure anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from measure import Tool
from server import Mode

ServerName = Literal[
    "origin",
    "nginx",
    "workerd",
    "wasmtime",
    "envoy",
    "nginx-modsecurity",
    "coraza",
    "vedette",
    "vedette-open",
    "vedette-blocking",
    "service",
    "envoy-pair",
    "envoy-pair-logged",
    "vedette-pair",
    "vedette-pair-waf",
]


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    title: str
    server: ServerName
    endpoint: str
    tool: Tool = "wrk"
    shared: bool = False
    """Also measured with server and load on both cores together."""
    half_of: str | None = None
    """Open loop: at half the requests/s that this row reached in the same round."""
    rate: float | None = None
    """Open loop: at so many requests/s."""
    seconds: float = 0.0
    """The shortest load that its p99 repeats with."""

    def runs_in(self, mode: Mode) -> bool:
        """Every row runs pinned; some also shared."""
        return mode is Mode.PINNED or self.shared


MESH_RATE = 1_000.0
MESH_SECONDS = 10.0


def _mesh(name: str, title: str, server: ServerName, endpoint: str = "mesh") -> Row:
    return Row(
        name,
        f"open loop: {title}",
        server,
        endpoint,
        tool="paced",
        rate=MESH_RATE,
        seconds=MESH_SECONDS,
    )


ROWS = (
    Row("nginx", "nginx `return 200`, plain", "nginx", "plain", shared=True),
    Row("nginx-tls", "nginx `return 200`, TLS 1.3", "nginx", "tls"),
    Row("workerd", "workerd JS hello, plain, isolate reused", "workerd", "plain", shared=True),
    Row(
        "wasmtime",
        "wasmtime serve tuned, plain, fresh instance",
        "wasmtime",
        "plain",
        shared=True,
    ),
    Row("envoy", "Envoy direct response, plain", "envoy", "plain"),
    Row("envoy-tls", "Envoy direct response, TLS 1.3", "envoy", "tls"),
    Row("envoy-full", "Envoy TLS + cached JWT + RBAC + rate limit", "envoy", "full", shared=True),
    Row(
        "envoy-logged", "the same + RBAC on a claim + JSON access log to a file", "envoy", "logged"
    ),
    Row("envoy-h2", "Envoy TLS + JWT + RBAC + limit, HTTP/2", "envoy", "full", tool="h2load"),
    Row(
        "vedette",
        "Vedette all stages but the firewall, TLS 1.3, JWT, 20 Cedar policies, fresh instance",
        "vedette",
        "function",
        shared=True,
    ),
    Row(
        "vedette-varied",
        "the same, 1,000 paths and 50 callers in turn",
        "vedette",
        "varied",
    ),
    Row("vedette-h2", "the same as the first, HTTP/2", "vedette", "function", tool="h2load"),
    Row(
        "vedette-static",
        "Vedette security path alone: static answer, TLS + JWT + Cedar + record",
        "vedette",
        "static",
        shared=True,
    ),
    Row(
        "vedette-open",
        "Vedette security off: plain, public, fresh instance",
        "vedette-open",
        "function",
        shared=True,
    ),
    Row(
        "vedette-p3",
        "the same, component of WASI 0.3, fresh instance",
        "vedette-open",
        "p3-fresh",
    ),
    Row(
        "vedette-p3-reuse",
        "the same, component of WASI 0.3, instance reused",
        "vedette-open",
        "p3-reused",
    ),
    Row(
        "vedette-waf",
        "Vedette all stages and the firewall (level 1), a browser's requests, no two alike, fresh instance",
        "vedette",
        "function-judged",
    ),
    Row(
        "vedette-waf-off",
        "the same with the firewall off",
        "vedette",
        "function-unjudged",
    ),
    Row(
        "vedette-static-waf",
        "static answer: TLS + JWT + Cedar + firewall (level 1) + record, a browser's requests, no two alike",
        "vedette",
        "static-judged",
    ),
    Row(
        "vedette-static-waf-off",
        "the same with the firewall off",
        "vedette",
        "static-unjudged",
    ),
    Row(
        "vedette-waf-again",
        "Vedette all stages and the firewall, the same request again and again",
        "vedette",
        "function-judged-again",
    ),
    Row(
        "vedette-waf-off-again",
        "the same with the firewall off",
        "vedette",
        "function-unjudged-again",
    ),
    Row(
        "vedette-static-waf-again",
        "static answer with the firewall, the same request again and again",
        "vedette",
        "static-judged-again",
    ),
    Row(
        "vedette-static-waf-off-again",
        "the same with the firewall off",
        "vedette",
        "static-unjudged-again",
    ),
    Row("nginx-proxy", "nginx proxies 1 kB, TLS 1.3", "nginx", "proxy"),
    Row("envoy-proxy", "Envoy proxies 1 kB, TLS 1.3", "envoy", "proxy"),
    Row(
        "vedette-proxy",
        "Vedette proxies 1 kB, TLS 1.3: all stages, anybody may call, with its record",
        "vedette",
        "proxy",
    ),
    Row(
        "nginx-new", "nginx, a TLS 1.3 connection for each request", "nginx", "tls", tool="wrk-new"
    ),
    Row("envoy-new", "Envoy, the same", "envoy", "tls", tool="wrk-new"),
    Row("vedette-new", "Vedette, the same, with its record", "vedette", "open", tool="wrk-new"),
    Row("nginx-file", "nginx, a small file, plain", "nginx-modsecurity", "open"),
    Row(
        "nginx-modsecurity",
        "the same, libmodsecurity, Core Rule Set, level 1",
        "nginx-modsecurity",
        "judged",
    ),
    Row("go-open", "Go's net/http, plain", "coraza", "open"),
    Row("coraza", "the same, Coraza, Core Rule Set, level 1", "coraza", "judged"),
    Row(
        "nginx-half",
        "open loop: nginx `return 200`, plain, at the rate of `vedette-static-half`",
        "nginx",
        "plain",
        tool="paced",
        half_of="vedette-static",
    ),
    Row(
        "vedette-static-half",
        "open loop: `vedette-static` at half its requests/s",
        "vedette",
        "static",
        tool="paced",
        half_of="vedette-static",
    ),
    Row(
        "nginx-proxy-half",
        "open loop: `nginx-proxy` at half the requests/s of `vedette-proxy`",
        "nginx",
        "proxy",
        tool="paced",
        half_of="vedette-proxy",
    ),
    Row(
        "envoy-proxy-half",
        "open loop: `envoy-proxy`, the same",
        "envoy",
        "proxy",
        tool="paced",
        half_of="vedette-proxy",
    ),
    Row(
        "vedette-proxy-half",
        "open loop: `vedette-proxy`, the same",
        "vedette",
        "proxy",
        tool="paced",
        half_of="vedette-proxy",
    ),
    _mesh("mesh-direct", "1,000 requests/s of the service, without sidecars", "service", "plain"),
    _mesh("envoy-mesh", "the same through a pair of Envoys, mTLS by SPIFFE IDs", "envoy-pair"),
    _mesh("envoy-mesh-logged", "the same with JSON access logs to files", "envoy-pair-logged"),
    _mesh(
        "vedette-mesh",
        "the same through a pair of our sidecars: all stages but the firewall, a record on each side",
        "vedette-pair",
    ),
    _mesh("vedette-mesh-waf", "the same with the firewall on both sides", "vedette-pair-waf"),
)

PARTS = {
    "micro": "single steps: a limit's check, a policy decision, a known token",
    "firewall": "judging in process: this engine, Coraza, libmodsecurity, four kinds of requests",
    "flood": "honest clients beside one address that sends 50,000 requests a second",
    "connections": "memory of 10,000 idle TLS connections, Vedette beside nginx and Envoy",
    "idle": "engine memory, idle",
    "cold": "first request of a function never loaded, against a warm one",
    "density": "1,000 functions: memory each, p99 of one of them before and after",
    "identity": "SVIDs: signed, pushed, and told after a change of an entry",
    "revocation": "from `vedette revoke` to the last byte, with 10,000 live streams",
    "verify": "`vedette verify`, the whole suite",
    "models": "a model of 0.5 ms: bare runtime, this node, MLServer",
    "model-media": "pictures and texts: SqueezeNet, ResNet-50, PicoDet, MiniLM; bare runtime, this node",
    "model-stream": "a detector of anomalies: events a second, and one at a time",
    "model-density": "50 models of 1 to 50 MB, 10 of them asked: memory, p99 of the ten before and after",
    "model-swap": "versions that take each other's place under load: failed requests",
}

ROOMS = frozenset(
    {
        *(
            "micro",
            "firewall",
            "flood",
            "connections",
            "identity",
            "revocation",
            "verify",
            "models",
        ),
        *("model-media", "model-stream", "model-density", "model-swap"),
    }
)
"""The parts that are not of the one node that the others share."""
