"""Bad days of the gate for what leaves: the engine that is the broker is killed, so is `vedette run`, and callers name
raw addresses. Nothing gets out meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.node import Node, wait_until
from tests.e2e.test_run import Allow
from tests.simulators.origin import Origin


@contextlib.contextmanager
def no_next_engine(node: Node) -> Iterator[None]:
    """Whoever would start another engine is stopped for as long as the block lasts."""
    stopped = [node.pid("supervisor")]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


_WORK = """
import http.client, json, socket, sys, threading
port = int(sys.argv[1])
def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\\n")  # whole, from each thread
    sys.stdout.flush()
def call():
    proxy = http.client.HTTPConnection("127.0.0.1", 3128, timeout=120)
    try:
        proxy.request("GET", f"http://127.0.0.1:{port}/")
        return proxy.getresponse().status
    except OSError as error:
        return type(error).__name__
def tunnel():
    stream = socket.create_connection(("127.0.0.1", 3128), 20)
    stream.sendall(f"CONNECT 127.0.0.1:{port} HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n".encode())
    assert b" 200 " in stream.recv(200)
    stream.settimeout(120)
    return stream
def direct(family, kind, place):
    try:
        with socket.socket(family, kind) as made:
            made.settimeout(2)
            made.connect(place)
            made.send(b"GET / HTTP/1.1\\r\\n\\r\\n")
            return "sent"
    except OSError as error:
        return type(error).__name__
stream = tunnel()
say("open", call())
assert stream.recv(1) == b""
say("ended")
calls = [threading.Thread(target=lambda: say("answered", call())) for _ in range(5)]
for each in calls:
    each.start()
say(json.dumps([
    direct(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", port)),
    direct(socket.AF_INET, socket.SOCK_STREAM, ("192.0.2.1", port)),
    direct(socket.AF_INET, socket.SOCK_DGRAM, ("192.0.2.1", 53)),
    direct(socket.AF_INET6, socket.SOCK_STREAM, ("2001:db8::1", port)),
]))
for each in calls:
    each.join()
"""


def test_when_the_broker_is_killed_its_tunnels_end_calls_wait_and_nothing_else_gets_out(
    lone: Node, origin: Origin
) -> None:
    allow = Allow(lone, "killed-broker")
    allow.rules(f'to: "{origin.url}"', f'to: "tcp://127.0.0.1:{origin.port}"')
    engine = lone.pid("engine")
    command = allow.command(sys.executable, "-c", _WORK, str(origin.port))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "open 200\n"
        before = len(origin.received)
        with no_next_engine(lone):
            os.kill(engine, signal.SIGKILL)
            assert running.stdout.readline() == "ended\n"
            tried = json.loads(running.stdout.readline())
            assert "sent" not in tried
            assert tried[0] == "ConnectionRefusedError", "its loopback is its own"
            assert len(origin.received) == before
        answers = [running.stdout.readline() for _ in range(5)]
        assert answers == ["answered 200\n"] * 5
        assert len(origin.received) == before + 5
        assert running.wait(60) == 0
    assert lone.pid("engine") != engine
    allow.rules('to: "https://elsewhere.example.com"')
    assert allow.ask("GET", origin.url).startswith("403 "), "the next one knows the rules as well"


_LEAVES = """
import http.client, os, sys, time
port, folder = sys.argv[1:]
if os.fork() == 0:
    os.setsid()
    with open(folder + "/said", "w", buffering=1) as said:
        print(os.getpid(), file=said)
        while not os.path.exists(folder + "/enough"):
            try:
                proxy = http.client.HTTPConnection("127.0.0.1", 3128, timeout=60)
                proxy.request("GET", f"http://127.0.0.1:{port}/")
                print(proxy.getresponse().status, file=said)
            except (OSError, http.client.HTTPException) as error:
                print(type(error).__name__, file=said)
            time.sleep(0.05)
    os._exit(0)
time.sleep(600)
"""


def test_when_vedette_run_is_killed_what_its_program_left_behind_reaches_nobody(
    lone: Node, origin: Origin, tmp_path: Path
) -> None:
    allow = Allow(lone, "killed-run")
    allow.rules(f'to: "{origin.url}"')
    command = allow.command(
        sys.executable,
        "-c",
        _LEAVES,
        str(origin.port),
        str(tmp_path),
        flags=("--write", str(tmp_path)),
    )
    said = tmp_path / "said"

    def lines() -> list[str]:
        return said.read_text("utf-8").splitlines() if said.exists() else []

    with subprocess.Popen(command) as running:
        try:
            wait_until("it is served", lambda: lines().count("200") > 2)
            running.kill()
            running.wait()
            wait_until("it is served no more", lambda: lines()[-1] not in ("200", lines()[0]))
            before, tries = len(origin.received), len(lines())
            wait_until("it has tried again and again", lambda: len(lines()) > tries + 10)
            assert set(lines()[tries:]) == {"ConnectionRefusedError"}
            assert len(origin.received) == before
        finally:
            running.kill()
            (tmp_path / "enough").touch()


_CONNECTS = """
import json, socket, sys
answers = {}
for target in sys.argv[1:]:
    with socket.create_connection(("127.0.0.1", 3128), 20) as stream:
        stream.sendall(f"CONNECT {target} HTTP/1.1\\r\\nhost: {target}\\r\\n\\r\\n".encode())
        answers[target] = stream.recv(12).decode()[9:]
print(json.dumps(answers))
"""


def test_connect_to_a_raw_address_that_no_rule_names_is_refused(lone: Node) -> None:
    """Also in the spellings that some programs take for this machine's (inet_aton(3))."""
    allow = Allow(lone, "raw-connect")
    with (
        socket.create_server(("127.0.0.1", 0)) as listed,
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as other,
    ):
        good, port = listed.getsockname()[1], other.getsockname()[1]
        allow.rules(f'to: "tcp://127.0.0.1:{good}"', 'to: "https://*.example.com"')
        inside = ["127.0.0.1", "127.0.0.2", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]"]
        spelled = [
            "127.1",
            "2130706433",
            "0x7f000001",
            "0177.0.0.1",
            "0",
            "localhost",
            "127.0.0.1.",
        ]
        targets = [f"{host}:{port}" for host in (*inside, *spelled)]
        targets += ["169.254.169.254:80", "[fd00:ec2::254]:80", "[fe80::1]:443", "10.0.0.1:443"]
        targets += ["8.8.8.8:443", "[2606:4700:4700::1111]:443"]
        answers = json.loads(
            allow.python(_CONNECTS, f"127.0.0.1:{good}", *targets).stdout,
        )
        assert answers.pop(f"127.0.0.1:{good}") == "200"
        assert set(answers) == set(targets)
        assert {
            target: code for target, code in answers.items() if code not in ("403", "400")
        } == {}
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.accept()
    for host in ("169.254.169.254", "10.0.0.1", "8.8.8.8"):
        record = allow.record(host=host)
        assert (record["outcome"], record["cause"]) == ("refused", "destination_not_allowed")
