"""`vedette audit`: verify the audit log, export it, print its head and its key. All of it works with the node down.

Owns: the options of these commands and how a verdict reads. Must not: judge; `observability.audit.verify` does.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from vedette.cli.options import HomeOption, JsonOption, home_of
from vedette.cli.render import print_json, printable, say
from vedette.errors import ConfigError, TrustError, UnavailableError

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from vedette.identity.notes import NoteKey
    from vedette.observability.audit.entries import HomeLog
    from vedette.observability.audit.heads import Head
    from vedette.observability.audit.locate import Finding
    from vedette.observability.audit.verify import Report
    from vedette.store.home import Home

Counts = tuple[int, int]  # of records and heads
_MAX_ANCHORS = 16 * 1024 * 1024
_audit = typer.Typer(
    help="The audit log: records that cannot be changed unseen.", no_args_is_help=True
)

KeyOption = Annotated[
    str | None,
    typer.Option(
        "--key",
        metavar="FILE|KEY",
        help="The public key (`vedette audit key`); default: this home's.",
    ),
]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    _audit.command("verify", epilog="Example: vedette audit verify audit.log --key audit.pub")(
        verify
    )
    _audit.command("export", epilog="Example: vedette audit export --out audit.log")(export)
    _audit.command("head", epilog="Example: vedette audit head --append heads.txt")(head)
    _audit.command("key", epilog="Example: vedette audit key --out audit.pub")(key)
    app.add_typer(_audit, name="audit")


def verify(
    target: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE|-|HOME",
            help="An export (- for stdin), or the home folder of a node; default: this home.",
        ),
    ] = None,
    home: HomeOption = None,
    key_text: KeyOption = None,
    anchors: Annotated[
        Path | None,
        typer.Option(
            "--head", metavar="FILE", help="Heads kept elsewhere, one or more; - for stdin."
        ),
    ] = None,
    max_age: Annotated[
        str | None, typer.Option(help="How old the newest head may be, e.g. 15m; default: any.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Verify an audit log with the public key alone. Exit code 0: nothing was changed, 1: something was, 2: not asked
    right.
    """
    from vedette.clock import parse_duration

    place = home_of(home).root if target is None else target
    key_found = read_key(key_text, place if place.is_dir() else home_of(home).root)
    heads, forged = ([], []) if anchors is None else _anchors(anchors, key_found)
    oldest = None if max_age is None else parse_duration(max_age)
    judge = _verify_home if place.is_dir() else _verify_file
    report = judge(place, key_found, heads, oldest)
    report.findings += forged
    if as_json:
        print_json(_as_json(report, key_found))
    else:
        _print(report)
    if not report.is_good:
        raise typer.Exit(1)


def export(
    out: Annotated[Path, typer.Option(metavar="FILE|-", help="File to write; - for stdout.")],
    home: HomeOption = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="Leave out what was signed before: a time (RFC 3339) or a duration, e.g. 2h."
        ),
    ] = None,
) -> None:
    """Write the audit log to one file: records in their order, and the signed heads."""
    from vedette.observability.audit import export as file_format

    with _log_of(home_of(home)) as log:

        def write(file: BinaryIO) -> tuple[int, int]:
            first = 0 if since is None else log.first_since(_moment(since))
            return file_format.write(log, file, first)

        is_stdout = str(out) == "-"
        try:
            records, heads = _to_stdout(log, write) if is_stdout else _to_file(log, write, out)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise ConfigError("file_unwritable", f"cannot write {out}: {error.strerror}") from None
    say(f"Wrote {records:,} records and {heads:,} heads to {'stdout' if is_stdout else out}")


def _to_file(log: HomeLog, write: Callable[[BinaryIO], Counts], out: Path) -> Counts:
    def whole() -> Counts:
        # It says who called what: nobody else's to read, also where there was a file that others could.
        with open(
            os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb"
        ) as file:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                os.fchmod(file.fileno(), 0o600)
            return write(file)

    return log.read(whole)


def _to_stdout(log: HomeLog, write: Callable[[BinaryIO], Counts]) -> Counts:
    """By way of a file: `read` may begin again, and what was printed cannot be taken back."""
    with tempfile.TemporaryFile() as kept:

        def whole() -> Counts:
            kept.seek(0)
            kept.truncate()
            return write(kept)

        counts = log.read(whole)
        kept.seek(0)
        shutil.copyfileobj(kept, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    return counts


def head(
    home: HomeOption = None,
    append: Annotated[
        Path | None, typer.Option(help="Append it to this file, on another disk if possible.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the newest signed head. Kept elsewhere, it proves later what the log was then."""
    with _log_of(home_of(home)) as log:
        note = log.newest_head()
    if note is None:
        raise UnavailableError(
            "control_away",
            "no head was signed yet",
            "Start the node; control signs one each second.",
        )
    if append is not None:
        _write(append, note, "ab")
        return
    if not as_json:
        print(note, end="")
        return
    from vedette.identity.notes import NoteKey
    from vedette.observability.audit.heads import Head

    text = NoteKey.parse(home_of(home).audit_public.read_text("utf-8")).open(note)
    print_json({**_head_json(Head.parse(text)), "note": note})


def key(
    home: HomeOption = None,
    out: Annotated[Path | None, typer.Option(help="File to write; default: stdout.")] = None,
    pem: Annotated[bool, typer.Option("--pem", help="As PEM, for openssl and others.")] = False,
) -> None:
    """Print the public key of the audit log, to be kept where it is verified."""
    found = read_key(None, home_of(home).root)
    text = found.pem.decode() if pem else f"{found}\n"
    if out is None:
        print(text, end="")
    else:
        _write(out, text, "wb")


def _write(path: Path, text: str, mode: str) -> None:
    try:
        with path.open(mode) as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        message = f"cannot write {path}: {error.strerror}"
        raise ConfigError("file_unwritable", message) from None
    say(f"Wrote {path}")


# --- reading -------------------------------------------------------------------------------------------------------


def read_key(text: str | None, home: Path) -> NoteKey:
    """The key that was given, as text or as a file; else that of the home."""
    from vedette.identity.notes import MAX_KEY_BYTES, NoteKey
    from vedette.store.home import Home

    if text is not None and ("+" in text or text.startswith("-----")) and not Path(text).exists():
        return NoteKey.parse(text)
    path = Home(home).audit_public if text is None else Path(text)
    try:
        with path.open("rb") as file:
            return NoteKey.parse(file.read(MAX_KEY_BYTES).decode("utf-8", "replace"))
    except OSError as error:
        hint = "Give the key with --key: `vedette audit key` prints it on the node."
        message = f"cannot read the audit key {path}: {error.strerror}"
        raise ConfigError("key_unreadable", message, hint) from None


def _anchors(path: Path, key_found: NoteKey) -> tuple[list[Head], list[Finding]]:
    """Heads that were kept, and what is wrong with those that cannot be believed."""
    from vedette.observability.audit.heads import Head
    from vedette.observability.audit.locate import Finding

    try:
        if str(path) == "-":
            text = sys.stdin.read(_MAX_ANCHORS)
        else:
            with path.open(encoding="utf-8", newline="") as file:
                text = file.read(_MAX_ANCHORS)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise ConfigError("file_unreadable", f"cannot read {path}: {why}") from None
    heads: list[Head] = []
    forged: list[Finding] = []
    foreign: list[Finding] = []
    for number, note in enumerate(_notes(text), 1):
        try:
            heads.append(Head.parse(key_found.open(note)))
        except TrustError as error:
            what = f"head {number} in {path} cannot be believed: {error.message}"
            group = foreign if error.code == "note_foreign" else forged
            group.append(Finding("anchor_forged", what, error.hint))
    if len(foreign) > 1:
        first = foreign[0]
        what = f"{len(foreign)} heads cannot be believed, the first: {first.what}"
        foreign = [Finding(first.kind, what, first.mend)]
    return heads, forged + foreign


def _notes(text: str) -> Iterator[str]:
    """Notes one after another: each ends with its signatures."""
    lines: list[str] = []
    for line in text.splitlines(keepends=True):
        if lines and lines[-1].startswith("\u2014 ") and not line.startswith("\u2014 "):
            yield "".join(lines)
            lines = []
        if lines or line.strip():
            lines.append(line)
    yield "".join(lines)


def _log_of(home: Home) -> AbstractContextManager[HomeLog]:
    """The log in a home, for reading."""
    from vedette.control.audit import log_of

    return log_of(home)


def _verify_home(
    place: Path, key_found: NoteKey, heads: list[Head], oldest: timedelta | None
) -> Report:
    from vedette.observability.audit.verify import Verifier
    from vedette.store.home import Home

    with _log_of(Home(place)) as log:

        def judged() -> Report:
            verifier = Verifier(key_found.open, log.gaps(), heads)
            verifier.take_all(log.entries())
            report = verifier.finish(_now(), oldest)
            report.not_yet_in = log.not_yet_in()
            return report

        return log.read(judged)


def _verify_file(
    place: Path, key_found: NoteKey, heads: list[Head], oldest: timedelta | None
) -> Report:
    from vedette.observability.audit.export import ExportFile
    from vedette.observability.audit.verify import Verifier

    try:
        opened = contextlib.nullcontext(sys.stdin.buffer) if str(place) == "-" else place.open("rb")
        with opened as source:
            file = ExportFile(source, str(place))
            verifier = Verifier(key_found.open, file.gaps, heads)
            verifier.take_all(file.entries())
            return verifier.finish(_now(), oldest)
    except OSError as error:
        raise ConfigError("file_unreadable", f"cannot read {place}: {error.strerror}") from None


def _now() -> datetime:
    from vedette.clock import now

    return now()


def _moment(since: str) -> str:
    """A time, or how long ago, as heads spell it."""
    from vedette.clock import from_rfc3339, now, parse_duration, to_rfc3339

    moment = from_rfc3339(since) if "T" in since else now() - parse_duration(since)
    return to_rfc3339(moment, microseconds=True)


# --- telling -------------------------------------------------------------------------------------------------------


def _print(report: Report) -> None:
    for finding in report.findings:
        print(f"{finding.kind}: {printable(finding.what)}")
        print(f"  mend: {finding.mend}")
    for note in report.notes:
        say(f"note: {note}")
    newest = report.newest
    if newest is None:
        say("not verified: no head of that key")
        return
    print(f"log: {printable(newest.origin)}")
    removed = f", {report.removed:,} removed for want of room" if report.removed else ""
    omitted = f", the first {report.omitted:,} not in this file" if report.omitted else ""
    print(f"records: {report.records:,} here{removed}{omitted}")
    print(
        f"heads: {report.heads:,}, the newest {newest.sequence} of {newest.size:,} records at {newest.time}"
    )
    if report.anchors:
        print(f"anchored heads: {report.anchors:,} agree")
    if report.not_yet_in:
        print(f"not in the log yet: {report.not_yet_in:,} bytes")
    if report.is_good:
        print("verified: nothing was changed, removed or put in another order")
    else:
        print("NOT VERIFIED: see above")


def _as_json(report: Report, key_found: NoteKey) -> dict[str, Any]:
    return {
        "verified": report.is_good,
        "log": report.origin,
        "key": str(key_found) if key_found.name else key_found.pem.decode(),
        "records": report.records,
        "bytes": report.bytes,
        "removed": report.removed,
        "omitted": report.omitted,
        "heads": report.heads,
        "anchors": report.anchors,
        "newest": None if report.newest is None else _head_json(report.newest),
        "notYetIn": report.not_yet_in,
        "findings": [
            {
                "kind": one.kind,
                "what": one.what,
                "mend": one.mend,
                "first": one.first,
                "last": one.last,
            }
            for one in report.findings
        ],
        "notes": report.notes,
    }


def _head_json(one: Head) -> dict[str, Any]:
    return {
        "log": one.origin,
        "records": one.size,
        "root": one.root.hex(),
        "sequence": one.sequence,
        "time": one.time,
        "previous": None if one.previous is None else one.previous.hex(),
    }
