"""libmodsecurity as a program: rule files on the command line, an exchange a line in, a verdict a line out.

Owns the calls into Debian's libmodsecurity3. It is a process of its own because the library may crash on hostile input,
and ends with the process that started it. Tests only: nothing of the product loads the library.
"""

from __future__ import annotations

import base64
import ctypes
import json
import re
import sys
from collections.abc import Callable
from typing import Any

LIBRARY = "libmodsecurity.so.3"
FIELDS = re.compile(r'\[(id|msg|data) "((?:[^"\\]|\\.)*)"\]')
VARIABLE = re.compile(r"against variable `([^']*)'")

Log = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_char_p)


class Intervention(ctypes.Structure):
    """`ModSecurityIntervention` (headers/modsecurity/intervention.h)."""

    _fields_ = (
        ("status", ctypes.c_int),
        ("pause", ctypes.c_int),
        ("url", ctypes.c_char_p),
        ("log", ctypes.c_char_p),
        ("disruptive", ctypes.c_int),
    )


def load() -> ctypes.CDLL:
    """The library, with its pointers declared as such. Raises OSError where it is not installed."""
    library = ctypes.CDLL(LIBRARY)
    for name in ("msc_init", "msc_create_rules_set", "msc_new_transaction"):
        getattr(library, name).restype = ctypes.c_void_p
    return library


class ModSecurity:
    """One set of rules, and verdicts on one exchange after the other."""

    def __init__(self, files: list[str]) -> None:
        self._library = load()
        self._lines: list[str] = []
        self._log = Log(lambda _, line: self._lines.append(line.decode(errors="replace")))
        self._engine = ctypes.c_void_p(self._library.msc_init())
        self._library.msc_set_log_cb(self._engine, self._log)
        self._rules = ctypes.c_void_p(self._library.msc_create_rules_set())
        for file in files:
            error = ctypes.c_char_p()
            if (
                self._library.msc_rules_add_file(self._rules, file.encode(), ctypes.byref(error))
                < 0
            ):
                raise ValueError(f"{file}: {(error.value or b'').decode(errors='replace')}")

    def judge(self, exchange: dict[str, Any]) -> dict[str, Any]:
        """What the rules say of `exchange`."""
        self._lines.clear()
        new = self._library.msc_new_transaction(self._engine, self._rules, None)
        transaction = ctypes.c_void_p(new)
        try:
            interruption = self._walk(transaction, exchange)
            self._library.msc_process_logging(transaction)
        finally:
            self._library.msc_transaction_cleanup(transaction)
        return {"matched": [_matched(line) for line in self._lines], "interruption": interruption}

    def _walk(
        self, transaction: ctypes.c_void_p, exchange: dict[str, Any]
    ) -> dict[str, Any] | None:
        for phase in (self._connect, self._head, self._body, self._answer_head, self._answer_body):
            phase(transaction, exchange)
            if interruption := self._intervention(transaction):
                return interruption
        return None

    def _connect(self, transaction: ctypes.c_void_p, exchange: dict[str, Any]) -> None:
        library = self._library
        library.msc_process_connection(
            transaction, exchange["client"].encode(), 40000, b"127.0.0.1", 80
        )
        version = exchange["version"].removeprefix("HTTP/")
        library.msc_process_uri(
            transaction, exchange["uri"].encode(), exchange["method"].encode(), version.encode()
        )

    def _head(self, transaction: ctypes.c_void_p, exchange: dict[str, Any]) -> None:
        _add_headers(self._library.msc_add_n_request_header, transaction, exchange["headers"])
        self._library.msc_process_request_headers(transaction)

    def _body(self, transaction: ctypes.c_void_p, exchange: dict[str, Any]) -> None:
        body = base64.b64decode(exchange["body_base64"])
        if body:
            self._library.msc_append_request_body(transaction, body, ctypes.c_size_t(len(body)))
        self._library.msc_process_request_body(transaction)

    def _answer_head(self, transaction: ctypes.c_void_p, exchange: dict[str, Any]) -> None:
        response = exchange["response"]
        _add_headers(self._library.msc_add_n_response_header, transaction, response["headers"])
        self._library.msc_process_response_headers(transaction, response["status"], b"HTTP/1.1")

    def _answer_body(self, transaction: ctypes.c_void_p, exchange: dict[str, Any]) -> None:
        body = base64.b64decode(exchange["response"]["body_base64"])
        if body:
            self._library.msc_append_response_body(transaction, body, ctypes.c_size_t(len(body)))
        self._library.msc_process_response_body(transaction)

    def _intervention(self, transaction: ctypes.c_void_p) -> dict[str, Any] | None:
        found = Intervention(status=200)
        if not self._library.msc_intervention(transaction, ctypes.byref(found)):
            return None
        # In blocking mode the rule that denies is named here and nowhere else.
        line = (found.log or b"").decode(errors="replace")
        self._lines.append(line)
        return {"status": found.status, "id": _matched(line)["id"]}


def _add_headers(
    add: Callable[..., int], transaction: ctypes.c_void_p, headers: list[list[str]]
) -> None:
    for name, value in ((name.encode(), value.encode()) for name, value in headers):
        add(transaction, name, ctypes.c_size_t(len(name)), value, ctypes.c_size_t(len(value)))


def _matched(line: str) -> dict[str, Any]:
    fields = dict(FIELDS.findall(line))
    variable = VARIABLE.search(line)
    return {
        "id": int(fields.get("id", 0)),
        "message": fields.get("msg", ""),
        "data": fields.get("data", ""),
        "variable": variable[1] if variable else "",
    }


def main() -> int:
    """Serve verdicts until the standard input ends."""
    engine = ModSecurity(sys.argv[1:])
    for line in sys.stdin:
        print(json.dumps(engine.judge(json.loads(line))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
