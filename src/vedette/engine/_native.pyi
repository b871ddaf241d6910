"""The native engine: bytes in, bytes out. Built from crates/native; `mypy.stubtest` compares this file with it."""

__all__ = [
    "analyse_rules",
    "check_policies",
    "check_snapshot",
    "confine",
    "engine_key",
    "explain",
    "inspect_model",
    "isolate",
    "judge",
    "precompile",
    "run",
    "run_model",
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

def run_model(config: str) -> None:
    """Serves one model in this process, which must have one thread, until SIGTERM, and what is under way to its end.

    `config`: JSON, what `VEDETTE_MODEL` has (docs/adr/0050). Says on its `readyFd` whether it is ready. Raises
    `ValueError` as `precompile`: config_invalid, confinement_refused, model_invalid,
    model_mismatch, model_missing, model_out_of_memory, model_reaches_out, model_too_large, model_too_slow,
    runtime_invalid, runtime_missing, runtime_too_old, worker_failed.
    """

def inspect_model(config: str) -> str:
    """What a model's file takes and gives, as JSON `{"inputs","outputs","loadMillis","runtime"}` or
    `{"error":{"code","message"}}` with a code of `run_model`. Puts this process, which must have one thread, into a
    box.
    """
