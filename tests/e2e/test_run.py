"""`vedette run`: a program in a box reaches what its rules allow, by one way, and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.e2e.certificates import SERVER, Authority
from tests.e2e.node import PROGRAM, Node, wait_until
from tests.e2e.spool import Line
from tests.simulators.origin import Origin

_ASK = """
import sys, urllib.request, urllib.error
try:
    with urllib.request.urlopen(urllib.request.Request(sys.argv[2], method=sys.argv[1]), timeout=20) as answer:
        print(answer.status, answer.read(100))
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
"""
_CONNECT = """
import http.client, ssl, sys
place, name, roots = sys.argv[1:]
host, _, port = place.rpartition(":")
tunnel = http.client.HTTPConnection("127.0.0.1", 3128, timeout=20)
tunnel.set_tunnel(host, int(port))
try:
    tunnel.connect()
    context = ssl.create_default_context(cafile=roots)
    context.check_hostname = False
    stream = context.wrap_socket(tunnel.sock, server_hostname=name or None)
    stream.sendall(b"GET / HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\\r\\n")
    print(stream.makefile("rb").read()[:12])
except OSError as error:
    print(type(error).__name__, error)
"""


class _Secure(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secure(authority: Authority) -> Iterator[int]:
    """The port of a server that speaks TLS."""
    credential = authority.issue("localhost", hosts=["localhost"], purposes=(SERVER,))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(credential.file)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Secure)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def allow(lone: Node, request: pytest.FixtureRequest) -> Allow:
    """Gives a program of the test's own rules."""
    name = re.sub("[^a-z0-9]+", "-", request.node.name.removeprefix("test_"))
    return Allow(lone, name[:60].strip("-"))


class Allow:
    """The rules of one program, and the way to run it."""

    def __init__(self, node: Node, name: str) -> None:
        self.node = node
        self.name = name

    def rules(self, *rules: str) -> None:
        """Puts rules in the place of those before."""
        items = "".join(f"    - {{{rule}}}\n" for rule in rules)
        self.node.apply(
            "apiVersion: vedette.dev/v1alpha1\nkind: EgressPolicy\n"
            f"metadata: {{name: {self.name}}}\nspec:\n  workloads: [{self.name}]\n  allow:\n{items}"
        )

    def command(self, *program: str, flags: tuple[str, ...] = ()) -> list[str]:
        """The command line that runs a program."""
        own = (str(PROGRAM), "run", "--home", str(self.node.home), "--as", self.name, *flags)
        return [*own, "--", *program]

    def run(
        self, *program: str, flags: tuple[str, ...] = (), said: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program to its end."""
        return subprocess.run(
            self.command(*program, flags=flags),
            input=said,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            env={**os.environ, "no_proxy": "", "NO_PROXY": ""},
        )

    def python(
        self, script: str, *arguments: str, flags: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Runs a script; it does without the list of hosts that need no proxy."""
        bare = "import os\nfor it in ('no_proxy', 'NO_PROXY'): os.environ.pop(it, None)\n"
        done = self.run(sys.executable, "-c", bare + script, *arguments, flags=flags)
        assert done.returncode == 0, done.stderr
        return done

    def ask(self, method: str, url: str, flags: tuple[str, ...] = ()) -> str:
        """What a plain HTTP client in the box is answered."""
        return self.python(_ASK, method, url, flags=flags).stdout

    def record(self, **wanted: object) -> Line:
        """The one record of this program that has these values."""

        def fits(line: Line) -> bool:
            return line.get("workload") == self.name and wanted.items() <= line.items()

        return self.node.egress.wait_for(fits)[-1]


def test_what_a_rule_allows_is_reached_and_recorded(allow: Allow, origin: Origin) -> None:
    allow.rules(f'to: "{origin.url}"')
    assert allow.ask("POST", f"{origin.url}/path?q=1") == "200 b'origin\\n'\n"
    sent = origin.received[-1]
    assert (sent.method, sent.target) == ("POST", "/path?q=1")
    assert sent.headers["host"] == [origin.authority]
    record = allow.record(method="POST")
    assert (record["scheme"], record["host"], record["port"]) == ("http", "127.0.0.1", origin.port)
    assert (record["outcome"], record["status"], record["bytesIn"]) == ("served", 200, 7)
    assert "function" not in record
    assert "requestId" not in record


def test_what_no_rule_allows_is_refused_and_told(allow: Allow, origin: Origin) -> None:
    before = len(origin.received)
    done = allow.python(_ASK, "GET", f"{origin.url}/")
    status, _, body = done.stdout.partition(" ")
    assert status == "403"
    assert json.loads(body) == {"error": "destination_not_allowed", "wouldAllow": origin.url}
    assert f"refused GET {origin.url}: destination_not_allowed" in done.stderr
    assert f"the rule {origin.url} would allow it" in done.stderr
    record = allow.record(method="GET")
    assert (record["outcome"], record["wouldAllow"]) == ("refused", origin.url)
    assert len(origin.received) == before
    assert f"the rule {origin.url} would allow it" in allow.node.run("records").stdout


def test_the_node_adds_a_credential_that_the_program_never_sees(
    allow: Allow, origin: Origin, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("first-secret\n")
    rule = f'to: "{origin.url}", credential: {{name: stripe}}'
    with pytest.raises(AssertionError, match="the node keeps no credential 'stripe'"):
        allow.rules(rule)
    allow.node.run("credential", "add", "stripe", "--file", str(secret))
    allow.rules(rule)
    assert allow.ask("GET", f"{origin.url}/").startswith("200 ")
    assert origin.received[-1].headers["authorization"] == ["Bearer first-secret"]
    secret.write_text("second-secret")
    allow.node.run("credential", "add", "stripe", "--file", str(secret))
    assert allow.ask("GET", f"{origin.url}/").startswith("200 ")
    assert origin.received[-1].headers["authorization"] == ["Bearer second-secret"]
    # No way to have it sent where nobody looks: a rule with a credential allows no tunnel.
    port = str(origin.port)
    assert allow.python(_SOCKS, "127.0.0.1", port, "1", "address").stdout == "2 "
    listed = json.loads(allow.node.run("credential", "list", "--json").stdout)
    assert [(one["name"], one["policies"]) for one in listed] == [("stripe", [allow.name])]
    assert allow.node.run("credential", "remove", "stripe", check=False).returncode == 2
    kept = allow.node.path("engine", "credentials", "stripe")
    assert kept.stat().st_mode & 0o777 == 0o600
    for folder in ("log", "spool", "control", "engine/snapshots"):
        for file in allow.node.path(folder).rglob("*"):
            assert not file.is_file() or b"-secret" not in file.read_bytes(), file
    allow.rules(f'to: "{origin.url}"')
    allow.node.run("credential", "remove", "stripe")
    assert not kept.exists()


_SEND = """
import http.client, sys
proxy = http.client.HTTPConnection("127.0.0.1", 3128, timeout=20)
fields = dict(one.split("=", 1) for one in sys.argv[3:])
proxy.request(sys.argv[1], sys.argv[2], body=b"hello" if sys.argv[1] == "POST" else None, headers=fields)
answer = proxy.getresponse()
print(answer.status, answer.read())
"""


def test_what_a_caller_calls_its_own_hop_s_does_not_take_the_credential_away(
    allow: Allow, origin: Origin, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a-secret")
    allow.node.run("credential", "add", "own", "--file", str(secret))
    allow.rules(f'to: "{origin.url}", credential: {{name: own}}')
    answer = allow.python(_SEND, "GET", f"{origin.url}/", "connection=authorization").stdout
    assert answer.startswith("200 ")
    assert origin.received[-1].headers["authorization"] == ["Bearer a-secret"]
    # TRACE is answered with what was sent.
    assert allow.python(_SEND, "TRACE", f"{origin.url}/").stdout.startswith("403 ")
    for header in ("host", "Connection", "content-length"):
        with pytest.raises(AssertionError, match="is no field for a credential"):
            allow.rules(f'to: "{origin.url}", credential: {{name: own, header: {header}}}')


def test_a_body_whose_length_is_known_keeps_it(allow: Allow, origin: Origin) -> None:
    allow.rules(f'to: "{origin.url}"')
    assert allow.python(_SEND, "POST", f"{origin.url}/").stdout.startswith("200 ")
    sent = origin.received[-1]
    assert (sent.body, sent.headers["content-length"]) == (b"hello", ["5"])
    assert "transfer-encoding" not in sent.headers


def test_an_empty_list_of_methods_is_a_mistake(allow: Allow, origin: Origin) -> None:
    with pytest.raises(AssertionError, match="methods"):
        allow.rules(f'to: "{origin.url}", methods: []')


def test_the_environment_can_be_left_out(allow: Allow) -> None:
    shown = allow.run("env", flags=("--clear-env", "--env", "ONE=1")).stdout.splitlines()
    names = {line.partition("=")[0] for line in shown}
    assert "ONE=1" in shown
    assert {"PATH", "TMPDIR", "HTTPS_PROXY", "SPIFFE_ENDPOINT_SOCKET"} <= names
    assert not names & set(os.environ) - {
        "PATH",
        "HOME",
        "USER",
        "LANG",
        "TERM",
        "no_proxy",
        "NO_PROXY",
    }


def test_a_program_ends_with_its_launcher(allow: Allow, tmp_path: Path) -> None:
    script = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    with subprocess.Popen(
        allow.command(sys.executable, "-c", script), stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        program = int(running.stdout.readline())
        running.kill()
        wait_until("it has ended", lambda: not Path(f"/proc/{program}").exists())


def test_a_credential_that_cannot_be_sent_is_refused(lone: Node, tmp_path: Path) -> None:
    for content in ("", "two\nlines", "caf\u00e9", "x" * 9_000):
        file = tmp_path / "secret"
        file.write_text(content, "utf-8")
        done = lone.run("credential", "add", "bad", "--file", str(file), check=False)
        assert (done.returncode, "xxx" in done.stderr) == (2, False)
    kept = json.loads(lone.run("credential", "list", "--json").stdout)
    assert "bad" not in {one["name"] for one in kept}


def test_a_redirect_to_an_unlisted_host_is_a_new_call(allow: Allow, origin: Origin) -> None:
    allow.rules(f'to: "{origin.url}"')
    answer = allow.ask("GET", f"{origin.url}/redirect")
    assert answer.startswith("403 ")
    assert "http://127.0.0.1:1" in answer
    assert allow.record(port=1)["outcome"] == "refused"


def test_methods_and_rates_are_part_of_a_rule(allow: Allow, origin: Origin) -> None:
    allow.rules(f'to: "{origin.url}", methods: [GET], rate: 1/h, burst: 1')
    assert allow.ask("POST", f"{origin.url}/").startswith("403 ")
    assert allow.record(method="POST")["cause"] == "method_not_allowed"
    assert allow.ask("GET", f"{origin.url}/").startswith("200 ")
    assert allow.ask("GET", f"{origin.url}/").startswith("429 ")
    assert allow.record(method="GET", outcome="refused")["cause"] == "rate_limited"


def test_a_destination_that_fails_is_left_alone(allow: Allow) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    allow.rules(f'to: "{url}", breaker: {{consecutiveFailures: 2, pause: 1h}}')
    assert [allow.ask("GET", url)[:3] for _ in range(3)] == ["502", "502", "503"]
    assert allow.record(cause="circuit_open")["outcome"] == "failed"


def test_a_name_that_leads_inside_is_refused_unless_a_range_is_named(
    allow: Allow, origin: Origin
) -> None:
    url = f"http://localhost:{origin.port}"
    allow.rules(f'to: "{url}"')
    assert allow.ask("GET", url).startswith("403 ")
    assert allow.record(cause="address_not_allowed")["outcome"] == "refused"
    for beside in ("127.0.0.0/8", "127.0.0.1/32"):
        allow.rules(f'to: "{url}"', f'to: "http://{beside}:{origin.port}"')
        assert allow.ask("GET", url).startswith("200 ")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        pytest.param("localhost", "b'HTTP/1.0 204'", id="the-name-of-the-rule"),
        pytest.param("evil.example.com", "Error", id="another-name"),
        pytest.param("", "Error", id="no-name"),
    ],
)
def test_a_tunnel_begins_with_tls_for_the_name_of_its_rule(
    allow: Allow, secure: int, authority: Authority, name: str, said: str
) -> None:
    allow.rules(f'to: "https://localhost:{secure}"', f'to: "https://127.0.0.0/8:{secure}"')
    flags = ("--read", str(authority.file))
    place = f"localhost:{secure}"
    answer = allow.python(_CONNECT, place, name, str(authority.file), flags=flags).stdout
    assert said in answer
    record = allow.record(method="CONNECT")
    if name == "localhost":
        assert (record["outcome"], record["scheme"]) == ("served", "https")
        assert record["bytesIn"] > 12
    else:
        assert (record["outcome"], record["cause"]) == ("refused", "name_not_allowed")
        assert record["bytesOut"] == 0


def test_a_tunnel_that_does_not_speak_tls_carries_nothing(allow: Allow, secure: int) -> None:
    allow.rules(f'to: "https://localhost:{secure}"', f'to: "https://127.0.0.0/8:{secure}"')
    script = """
import http.client, sys
tunnel = http.client.HTTPConnection("127.0.0.1", 3128, timeout=20)
tunnel.set_tunnel("localhost", int(sys.argv[1]))
tunnel.connect()
tunnel.sock.sendall(b"anything else")
try:
    print(tunnel.sock.recv(10))
except OSError as error:
    print(b"")
"""
    assert allow.python(script, str(secure)).stdout == "b''\n"
    record = allow.record(method="CONNECT")
    assert (record["cause"], record["bytesOut"]) == ("not_tls", 0)


_SOCKS = """
import socket, sys
host, port, command, kind = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
stream = socket.create_connection(("127.0.0.1", 3128), 20)
stream.sendall(b"\\x05\\x01\\x00")
assert stream.recv(2) == b"\\x05\\x00"
place = bytes([3, len(host)]) + host.encode() if kind == "name" else b"\\x01" + socket.inet_aton(host)
stream.sendall(bytes([5, command, 0]) + place + port.to_bytes(2, "big"))
code = stream.recv(10)[1]
print(code, end=" ")
if code == 0:
    stream.sendall(b"GET / HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\\r\\n")
    stream.shutdown(socket.SHUT_WR)
    print(stream.makefile("rb").read()[:12], end="")
"""


def test_socks_leads_where_a_rule_lets_a_tunnel(allow: Allow, origin: Origin) -> None:
    allow.rules(f'to: "tcp://127.0.0.1:{origin.port}"')
    port = str(origin.port)
    assert allow.python(_SOCKS, "127.0.0.1", port, "1", "address").stdout == "0 b'HTTP/1.1 200'"
    assert allow.record(method="CONNECT", outcome="served")["scheme"] == "tcp"
    assert allow.python(_SOCKS, "127.0.0.1", "1", "1", "address").stdout == "2 "
    assert allow.python(_SOCKS, "evil.example.com", "443", "1", "name").stdout == "2 "
    assert allow.record(host="evil.example.com")["wouldAllow"] == "https://evil.example.com"
    udp = allow.python(_SOCKS, "127.0.0.1", port, "3", "address").stdout
    assert udp == "7 "


_ESCAPES = """
import ctypes, json, os, resource, socket, struct, sys
home, port, victim, terminal = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
own = os.environ["TMPDIR"] + "/own"
open(own, "w").close()
libc = ctypes.CDLL(None, use_errno=True)

def tried(work):
    try:
        work()
    except OSError as error:
        return type(error).__name__
    return "done"

def call(number, *arguments):
    def work():
        if libc.syscall(number, *arguments) == -1:
            raise OSError(ctypes.get_errno(), "refused")
    return work

def connects(family, kind, place):
    def work():
        with socket.socket(family, kind) as made:
            made.settimeout(5)
            made.connect(place)
            if kind == socket.SOCK_DGRAM:
                made.send(b"x")
    return work

tries = {
    "a port of this machine": connects(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", port)),
    "an address outside": connects(socket.AF_INET, socket.SOCK_STREAM, ("192.0.2.1", 443)),
    "metadata": connects(socket.AF_INET, socket.SOCK_STREAM, ("169.254.169.254", 80)),
    "IPv6": connects(socket.AF_INET6, socket.SOCK_STREAM, ("2001:db8::1", 443)),
    "DNS": connects(socket.AF_INET, socket.SOCK_DGRAM, ("192.0.2.53", 53)),
    "a Unix socket": connects(socket.AF_UNIX, socket.SOCK_STREAM, home + "/run/admin.sock"),
    "an abstract socket": connects(socket.AF_UNIX, socket.SOCK_STREAM, "\\0anything"),
    "raw packets": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
    "vsock": lambda: socket.socket(40, socket.SOCK_STREAM),
    "packets": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "another namespace": call(272, 0x10000000 | 0x40000000),
    "a process in one": call(56, 0x10000000 | 17, 0, 0, 0, 0),
    "joining one": call(308, 0, 0),
    "io_uring": call(425, 8, 0),
    "tracing": call(101, 16, os.getppid(), 0, 0),
    "mounting": call(165, b"none", b"/nowhere", b"tmpfs", 0, 0),
    "the x32 way": call(0x40000000 | 41, 1, 1, 0),
    "the node's keys": lambda: open(home + "/control/ca.key").read(),
    "the node's home": lambda: os.listdir(home),
    "writing beside": lambda: open(os.path.join(os.getcwd(), "left"), "w"),
    "shadow": lambda: open("/etc/shadow").read(),
    "its memory": lambda: open(f"/proc/{os.getppid()}/mem", "rb").read(1),
    "its environment": lambda: open(f"/proc/{os.getppid()}/environ", "rb").read(1),
    "a mode": lambda: os.chmod(victim, 0o666),
    "a mode of a folder": lambda: os.chmod(os.path.dirname(victim), 0o777),
    "an owner": lambda: os.chown(victim, os.getuid(), os.getgid()),
    "times": lambda: os.utime(victim),
    "attributes": lambda: os.setxattr(victim, "user.x", b"y"),
    "set-user-ID": lambda: os.chmod(own, 0o4755),
    "set-group-ID": lambda: os.chmod(own, 0o2755),
    "made with set-user-ID": lambda: os.open(own + "2", os.O_CREAT | os.O_WRONLY, 0o4755),
    "limits of others": lambda: resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE),
    "another terminal": lambda: os.open(terminal, os.O_RDWR | os.O_NOCTTY),
    "a new terminal": lambda: os.openpty(),
    "an own mode": lambda: os.chmod(own, 0o600),
    "its own folder": lambda: open(os.environ["TMPDIR"] + "/left", "w"),
    "a look at names": lambda: socket.getaddrinfo("127.0.0.1", 80),
}
print(json.dumps({name: tried(work) for name, work in tries.items()}))
"""


def test_there_is_no_other_way_out(allow: Allow, origin: Origin, tmp_path: Path) -> None:
    home = str(allow.node.home)
    victim = tmp_path / "victim"
    victim.write_text("mine")
    leader, other = os.openpty()
    try:
        arguments = (home, str(origin.port), str(victim), os.ttyname(other))
        flags = ("--read", str(tmp_path))
        tried = json.loads(allow.python(_ESCAPES, *arguments, flags=flags).stdout)
    finally:
        os.close(leader)
        os.close(other)
    by_outcome: dict[str, set[str]] = {}
    for name, outcome in tried.items():
        by_outcome.setdefault(outcome, set()).add(name)
    assert by_outcome.pop("done") == {"its own folder", "a look at names", "an own mode"}
    assert by_outcome.pop("ConnectionRefusedError") == {"a port of this machine"}
    read_only = {
        "a mode",
        "a mode of a folder",
        "an owner",
        "times",
        "attributes",
        "writing beside",
    }
    assert by_outcome.pop("OSError") == {
        "an address outside",
        "metadata",
        "IPv6",
        "DNS",
        *read_only,
    }
    assert set(by_outcome) == {"PermissionError"}


_IDENTITY = """
import grpc, os
from cryptography import x509
from spiffe._proto import workload_pb2, workload_pb2_grpc
place = os.environ["SPIFFE_ENDPOINT_SOCKET"].removeprefix("tcp://")
with grpc.insecure_channel(place) as channel:
    stub = workload_pb2_grpc.SpiffeWorkloadAPIStub(channel)
    header = [("workload.spiffe.io", "true")]
    try:
        answer = next(stub.FetchX509SVID(workload_pb2.X509SVIDRequest(), metadata=header, timeout=60))
        print(*(svid.spiffe_id for svid in answer.svids))
    except grpc.RpcError as error:
        print(error.code().name)
"""


def test_a_program_has_the_identity_of_its_name(allow: Allow) -> None:
    # An entry for everybody of this user is not for a program in a box.
    node, name = allow.node, allow.name
    node.run("workload", "add", "everybody", "--uid", str(os.getuid()))
    assert allow.run(sys.executable, "-c", _IDENTITY).stdout == "PERMISSION_DENIED\n"
    node.run("workload", "add", name, "--run", name)
    assert allow.run(sys.executable, "-c", _IDENTITY).stdout == f"spiffe://{_domain(node)}/{name}\n"
    assert (
        Allow(node, "another-name").run(sys.executable, "-c", _IDENTITY).stdout
        == "PERMISSION_DENIED\n"
    )
    wait_until("no box is left", lambda: not list(node.path("run").glob("box-*.sock")))


def test_go_spiffe_works_in_a_box_as_it_is(allow: Allow, spiffe_go: Path) -> None:
    allow.node.run("workload", "add", allow.name, "--run", allow.name)
    command = allow.command(str(spiffe_go), flags=("--read", str(spiffe_go)))
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        fetched = json.loads(running.stdout.readline())
        assert f"spiffe://{_domain(allow.node)}/{allow.name}" in json.dumps(fetched)
        running.stdin.close()
        assert running.wait(60) == 0


def _domain(node: Node) -> str:
    return str(node.status()["trustDomain"])


def test_the_workload_api_of_a_box_outlives_control(allow: Allow) -> None:
    node, name = allow.node, allow.name
    node.run("workload", "add", name, "--run", name)
    again = f"for _ in range(2):\n exec(input() and {_IDENTITY!r})\n"
    command = allow.command(sys.executable, "-u", "-c", again)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write("go\n")
        assert name in running.stdout.readline()
        control = node.pid("control")
        os.kill(control, signal.SIGKILL)
        wait_until("control is back", lambda: _control_is_another(node, control))
        running.stdin.write("go\n")
        assert name in running.stdout.readline()
        running.stdin.close()
        assert running.wait(120) == 0


def _control_is_another(node: Node, before: int) -> bool:
    with contextlib.suppress(Exception):
        return node.pid("control") != before
    return False


def test_a_tunnel_ends_with_its_rule(allow: Allow, origin: Origin) -> None:
    place = f"tcp://127.0.0.1:{origin.port}"
    allow.rules(f'to: "{place}"')
    script = """
import socket, sys
stream = socket.create_connection(("127.0.0.1", 3128), 20)
stream.sendall(f"CONNECT 127.0.0.1:{sys.argv[1]} HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n".encode())
assert b" 200 " in stream.recv(200)
print("open", flush=True)
stream.settimeout(120)
print(stream.recv(1))
"""
    command = allow.command(sys.executable, "-u", "-c", script, str(origin.port))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "open\n"
        allow.rules('to: "https://elsewhere.example.com"')
        assert running.stdout.readline() == "b''\n"
        assert running.wait(60) == 0
    assert allow.record(method="CONNECT")["cause"] == "destination_not_allowed"


def test_a_program_outlives_the_engine(allow: Allow, origin: Origin) -> None:
    allow.rules(f'to: "{origin.url}"')
    again = f"for _ in range(2):\n exec(input() and {_ASK!r})\n"
    bare = "import os\nfor it in ('no_proxy', 'NO_PROXY'): os.environ.pop(it, None)\n"
    command = allow.command(sys.executable, "-u", "-c", bare + again, "GET", origin.url)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write("go\n")
        assert running.stdout.readline().startswith("200 ")
        engine = allow.node.pid("engine")
        os.kill(engine, signal.SIGKILL)
        running.stdin.write("go\n")
        assert running.stdout.readline().startswith("200 ")
        running.stdin.close()
        assert running.wait(120) == 0
    assert allow.node.pid("engine") != engine


def test_a_report_lets_go_and_says_which_rules_are_needed(allow: Allow, origin: Origin) -> None:
    done = allow.python(_ASK, "GET", "http://nobody.invalid/", flags=("--report",))
    assert done.stdout.startswith("502 ")  # let go, and there is nobody
    assert "1 destinations would be refused" in done.stderr
    assert "    - to: http://nobody.invalid\n" in done.stderr
    record = allow.record(host="nobody.invalid")
    assert record["reported"] is True
    assert (record["cause"], record["wouldAllow"]) == ("dns_failed", "http://nobody.invalid")


def test_a_report_lets_nothing_go_to_this_machine(allow: Allow, origin: Origin) -> None:
    done = allow.python(_ASK, "GET", origin.url, flags=("--report",))
    assert done.stdout.startswith("403 ")
    assert "it called nothing that its rules do not allow" in done.stderr
    assert allow.record(method="GET")["cause"] == "address_not_allowed"


def test_a_program_ends_as_it_would_by_itself(allow: Allow) -> None:
    assert allow.run("sh", "-c", "cat; exit 7", said="through").stdout == "through"
    assert allow.run("sh", "-c", "exit 7").returncode == 7
    assert allow.run("sh", "-c", "kill -TERM $$").returncode == 128 + signal.SIGTERM
    command = allow.command(
        "sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done"
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        running.terminate()
        assert running.wait(60) == 9


def test_mistakes_are_told(allow: Allow, tmp_path: Path) -> None:
    done = allow.run("no-such-program")
    assert (done.returncode, "no-such-program" in done.stderr) == (2, True)
    for folder in (allow.node.home, allow.node.home.parent, allow.node.home / "run"):
        done = allow.run("true", flags=("--read", str(folder)))
        assert (done.returncode, "holds the node" in done.stderr) == (2, True)
    done = allow.run("true", flags=("--write", str(tmp_path / "missing")))
    assert (done.returncode, "is not there" in done.stderr) == (2, True)
    away = [str(PROGRAM), "run", "--home", str(tmp_path / "none"), "--", "true"]
    done = subprocess.run(away, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "is not running" in done.stderr) == (4, True)


def test_what_is_no_registration_is_refused(lone: Node) -> None:
    path = str(lone.path("run", "engine.sock"))
    wish = b"\0" + json.dumps({"workload": "x", "report": False}).encode() + b"\n"
    with contextlib.ExitStack() as opened:
        listening = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        silent = opened.enter_context(socket.socket())
        outside = opened.enter_context(socket.socket())
        outside.bind(("0.0.0.0", 0))
        outside.listen()
        plain = opened.enter_context(open(os.devnull))
        sent = [
            (b"\0nonsense\n", [listening.fileno()]),
            (wish, []),
            (wish, [silent.fileno()]),
            (wish, [outside.fileno()]),
            (wish, [plain.fileno()]),
        ]
        for line, descriptors in sent:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(60)
                connection.connect(path)
                socket.send_fds(connection, [line], descriptors)
                assert "error" in json.loads(connection.makefile().readline())
    assert wait_until("the engine serves", lambda: lone.status()["engine"])
