"""The native engine: bytes in, bytes out. Built from crates/native; `mypy.stubtest` compares this file with it."""

__all__ = [
    "analyse_rules",
    "check_policies",
    "check_snapshot",
    "confine",
    "engine_key",
    "explain",
    "isolate",
    "judge",
    "precompile",
    "run",
    "seal",
    "version",
]

def version() -> str:
    """The version of the engine, equal to the package's."""

def engine_key() -> str:
    """Names wasmtime's version, its settings and this CPU; code compiled under another key is not loaded."""

def run(config: bytes, engine_key: str) -> None:
    """Serves until SIGTERM, then drains and returns. `engine_key`: what `engine_key()` says in another process.

    Raises `RuntimeError` when it cannot start.
    """

def precompile(component: bytes) -> bytes:
    """Machine code for `component`. Raises `ValueError` with JSON `{"code","message"}`."""

def analyse_rules(rules: bytes) -> bytes:
    """What an engine need not find out when it loads packed rules. Raises `ValueError` as `precompile`."""

def check_snapshot(envelope: bytes, public_key_pem: bytes, engine_dir: str) -> bytes:
    """JSON `{"digest"}` when the engine would serve it. Raises `ValueError` with JSON `{"code","message"}`."""

def check_policies(request: bytes) -> bytes:
    """Findings as JSON `{"errors":[…],"warnings":[…]}` for `{"schema":{"name","text"},"policies":[…]}`."""

def explain(query: bytes, engine_dir: str) -> bytes:
    """Explanations of requests under a snapshot, JSON (vedette.policy.explain). Raises `ValueError` as `precompile`."""

def judge(query: bytes, engine_dir: str) -> bytes:
    """What the firewall says of requests, JSON (vedette.policy.inspection). Raises `ValueError` as `precompile`."""

def isolate() -> None:
    """Gives this process a network namespace of its own with nothing but loopback. It must have one thread.

    Raises `ValueError` with JSON `{"code","message"}`: namespace_refused.
    """

def seal(write: bytes) -> None:
    """Gives this process a view of the files in which only those of a JSON list of paths can be changed, modes and
    owners of others neither. Raises `ValueError` as `isolate`: namespace_refused.
    """

def confine(files: bytes) -> None:
    """Takes from this process and what it starts all files but `{"read":[…],"write":[…]}`, Unix sockets, capabilities
    and the system calls that lead out of the box. Raises `ValueError` as `isolate`: confinement_refused.
    """
