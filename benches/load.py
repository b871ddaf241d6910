"""Runs a load generator once and reads what it says.

Owns: wrk for HTTP/1.1, h2load for HTTP/2, our open loop, the wrk script with the bearer tokens (0600).
Must not: know about CPU time or rounds (`measure`), or judge a figure (`verdicts`).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from install import Tool
from processes import BenchError, pinned
from server import Endpoint

CONNECTIONS = 32
PACED_CONNECTIONS = 64
_GRACE_SECONDS = 30
PATIENCE = "10s"
"""Of wrk, whose own two seconds a server of 200 answers a second may take; a longer wait is in the percentiles."""

_REPORT = """
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    'BENCH {"requests":%d,"micros":%d,"p50":%.1f,"p99":%.1f,"failed":%d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""
_IN_TURN = """
local turn, prepared = 0, {}
init = function(arguments)
  for p, path in ipairs(paths) do
    local fields = {}
    for name, value in pairs(wrk.headers) do fields[name] = value end
    if #tokens > 0 then fields["Authorization"] = tokens[(p - 1) % #tokens + 1] end
    prepared[p] = wrk.format("GET", path, fields)
  end
end
request = function()
  turn = turn % #prepared + 1
  return prepared[turn]
end
"""


@dataclass(frozen=True)
class Answered:
    """One run of the load: counts, seconds, and latencies in microseconds."""

    requests: int
    seconds: float
    p50_us: float
    p99_us: float
    load_cpu_seconds: float


@dataclass(frozen=True)
class Posted:
    """A body that is posted again and again, to `paths` in turn where there are some."""

    url: str
    body: bytes
    fields: Mapping[str, str]
    paths: tuple[str, ...] = ()


_POSTED_IN_TURN = """
local turn = 0
request = function()
  turn = turn % #paths + 1
  return wrk.format(nil, paths[turn])
end
"""


@dataclass(frozen=True)
class LoadTools:
    """Where the load generators are."""

    wrk: Tool
    h2load: Tool
    paced: Tool


def wrk_command(
    tool: str, url: str, seconds: float, script: str, *, connections: int = CONNECTIONS
) -> list[str]:
    """The wrk command as it is run and as RESULTS.md shows it."""
    duration = f"{max(1, round(seconds))}s"
    options = [
        "-t1",
        f"-c{connections}",
        f"-d{duration}",
        "--latency",
        "--timeout",
        PATIENCE,
        "-s",
        script,
    ]
    return [tool, *options, url]


def h2load_command(
    tool: str, endpoint: Endpoint, seconds: float, log: str, token: str | None
) -> list[str]:
    """The h2load command; one stream a connection, so that 32 requests are in flight as with wrk.

    h2load reads headers from its arguments only: the token shows in the process list. It is a
    token of the throw-away node, which ends with the run.
    """
    headers = ["-H", f"authorization: Bearer {token}"] if token else []
    duration = f"-D{max(1, round(seconds))}"
    options = ["-t1", f"-c{CONNECTIONS}", "-m1", duration, f"--log-file={log}"]
    return [tool, *options, *headers, endpoint.url]


@contextlib.contextmanager
def wrk_script(endpoint: Endpoint, reconnect: bool) -> Iterator[Path]:
    """A temporary Lua file, readable by us alone, that carries the tokens and reports as JSON."""
    descriptor, name = tempfile.mkstemp(suffix=".lua", prefix="vedette-bench-")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(_script(endpoint, reconnect))
        yield Path(name)
    finally:
        os.unlink(name)


def _script(endpoint: Endpoint, reconnect: bool) -> str:
    tokens = [f"Bearer {token}" for token in endpoint.tokens]
    fields = "".join(
        f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}\n"
        for name, value in endpoint.fields.items()
    )
    if endpoint.paths:
        lists = f"local paths = {_lua(endpoint.paths)}\nlocal tokens = {_lua(tokens)}\n"
        return fields + lists + _IN_TURN + _REPORT
    head = fields
    head += f'wrk.headers["Authorization"] = {json.dumps(tokens[0])}\n' if tokens else ""
    head += 'wrk.headers["Connection"] = "close"\n' if reconnect else ""
    return head + _REPORT


def _lua(words: Sequence[str]) -> str:
    return "{" + ",".join(json.dumps(word) for word in words) + "}"


def run_wrk(
    tools: LoadTools,
    endpoint: Endpoint,
    seconds: float,
    cores: Sequence[int],
    *,
    reconnect: bool = False,
) -> Answered:
    """One wrk run over HTTP/1.1, keep-alive or a connection (a full handshake, wrk resumes none) for
    each request; any answer but 2xx or 3xx fails the measurement.
    """
    with wrk_script(endpoint, reconnect) as script:
        command = wrk_command(str(tools.wrk.path), endpoint.url, seconds, str(script))
        text, cpu = _run(pinned(command, cores), tools.wrk, seconds)
    return _reported(endpoint.url, text, cpu)


def _reported(url: str, text: str, cpu: float) -> Answered:
    answered, failed = _counted(url, text, cpu)
    _require_clean(url, failed, answered.requests)
    return answered


def _counted(url: str, text: str, cpu: float) -> tuple[Answered, int]:
    line = re.search(r"^BENCH (\{.*\})$", text, re.MULTILINE)
    if not line:
        raise BenchError(f"wrk said nothing we know about {url}:\n{text[-1000:]}")
    report = json.loads(line[1])
    micros, p50, p99 = report["micros"], report["p50"], report["p99"]
    return Answered(report["requests"], micros / 1e6, p50, p99, cpu), report["failed"]


def run_posts(
    tools: LoadTools, posted: Posted, seconds: float, cores: Sequence[int], connections: int
) -> Answered:
    """One wrk run that posts over so many kept connections, each one request at a time."""
    text, cpu = _post(tools, posted, seconds, cores, connections)
    return _reported(posted.url, text, cpu)


def count_posts(
    tools: LoadTools, posted: Posted, seconds: float, cores: Sequence[int], connections: int
) -> tuple[Answered, int]:
    """The same where it is the figure how many failed: no answer, a late one, or any but 2xx or 3xx."""
    text, cpu = _post(tools, posted, seconds, cores, connections)
    return _counted(posted.url, text, cpu)


def _post(
    tools: LoadTools, posted: Posted, seconds: float, cores: Sequence[int], connections: int
) -> tuple[str, float]:
    with tempfile.TemporaryDirectory(prefix="vedette-bench-") as folder:
        script, body = Path(folder, "post.lua"), Path(folder, "body")
        body.write_bytes(posted.body)
        fields = "".join(
            f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}\n"
            for name, value in posted.fields.items()
        )
        asked = (
            f'wrk.method = "POST"\nwrk.body = io.open({json.dumps(str(body))}, "rb"):read("*a")\n'
        )
        turns = f"local paths = {_lua(posted.paths)}{_POSTED_IN_TURN}" if posted.paths else ""
        script.write_text(asked + fields + turns + _REPORT)
        command = wrk_command(
            str(tools.wrk.path), posted.url, seconds, str(script), connections=connections
        )
        return _run(pinned(command, cores), tools.wrk, seconds)


def run_h2load(
    tools: LoadTools, endpoint: Endpoint, seconds: float, cores: Sequence[int]
) -> Answered:
    """One h2load run over HTTP/2; percentiles come from its log of single requests."""
    token = endpoint.tokens[0] if endpoint.tokens else None
    with tempfile.TemporaryDirectory(prefix="vedette-bench-") as folder:
        log = Path(folder, "requests.tsv")
        command = pinned(
            h2load_command(str(tools.h2load.path), endpoint, seconds, str(log), token), cores
        )
        text, cpu = _run(command, tools.h2load, seconds)
        took = sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines())
    done = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", text)
    status = re.search(r"status codes: (\d+) 2xx", text)
    if not done or not status or not took:
        raise BenchError(f"h2load said nothing we know about {endpoint.url}:\n{text[-1000:]}")
    if "Application protocol: h2" not in text:
        raise BenchError(f"{endpoint.url} did not agree to HTTP/2:\n{text[-1000:]}")
    requests = int(status[1])
    _require_clean(endpoint.url, max(0, int(done[1]) - requests), requests)
    wall = float(max(1, round(seconds)))
    return Answered(requests, wall, _percentile(took, 0.50), _percentile(took, 0.99), cpu)


def run_paced(
    tools: LoadTools, endpoint: Endpoint, seconds: float, rate: float, cores: Sequence[int]
) -> Answered:
    """One open loop (crates/upstream/examples/paced.rs): latencies count from when requests were due."""
    url = urlsplit(endpoint.url)
    words = [f"127.0.0.1:{url.port}", url.scheme, url.path, f"{rate:.1f}", str(seconds)]
    command = pinned([str(tools.paced.path), *words, str(PACED_CONNECTIONS)], cores)
    named = {"Host": url.netloc, **endpoint.fields}
    fields = "".join(f"{name}: {value}\n" for name, value in named.items())
    fields += "".join(f"authorization: Bearer {token}\n" for token in endpoint.tokens[:1])
    text, cpu = _run(command, tools.paced, seconds, fields)
    said = json.loads(text)
    return Answered(said["requests"], said["seconds"], said["p50"], said["p99"], cpu)


def _percentile(ordered: Sequence[int], share: float) -> float:
    return float(ordered[min(len(ordered) - 1, int(share * len(ordered)))])


def _require_clean(url: str, failed: int, requests: int) -> None:
    if failed or not requests:
        raise BenchError(
            f"{url}: {failed} of {requests} requests failed, so the figure means nothing. "
            "Ask for it once with curl to see the answer."
        )


def _run(command: Sequence[str], tool: Tool, seconds: float, told: str = "") -> tuple[str, float]:
    """Output and CPU seconds of one command; its own session, so Ctrl-C comes to us first."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(tool.environment or {})},
        start_new_session=True,
    ) as child:
        before = os.times()
        try:
            text, _ = child.communicate(told, timeout=seconds + _GRACE_SECONDS)
        except subprocess.TimeoutExpired as error:
            child.kill()
            raise BenchError(f"{command[0]} did not end: the server stopped answering") from error
        except BaseException:
            child.kill()
            raise
        after = os.times()
    if child.returncode:
        raise BenchError(f"{command[0]} ended with {child.returncode}: {text[-1000:]}")
    cpu = (
        after.children_user + after.children_system - before.children_user - before.children_system
    )
    return text, cpu
