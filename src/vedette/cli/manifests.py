"""`vedette plan`, `apply`, `diff`, `schema`: what manifests say, reviewed before it happens.

Owns: the options of these commands, the exit codes of `plan` (0 nothing to do, 2 changes, 1 error),
and asking before something is applied. Must not: decide what changes; control does.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlencode

import typer

from vedette.cli.options import HomeOption, JsonOption, client_of
from vedette.cli.render import print_json, say, say_if_away, short
from vedette.cli.waiting import waiting
from vedette.errors import ConfigError, VedetteError
from vedette.store.history import FEED

if TYPE_CHECKING:
    from vedette.cli.manifest_files import Loaded
    from vedette.control.client import ControlClient

APPLY_TIMEOUT = 1_800.0  # seconds; every new component is compiled, for at most 180 each
MAX_PLAN_FILE = 512 << 20

FilesOption = Annotated[
    list[str] | None,
    typer.Option("-f", "--file", help="File, folder or - (standard input); repeatable."),
]
PathsArgument = Annotated[
    list[str] | None, typer.Argument(help="Files and folders; default: vedette.yaml.")
]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="List what was applied before and is not here.")
]
PruneOption = Annotated[
    bool, typer.Option("--prune", help="Delete what was applied before and is not here.")
]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(epilog="Example: vedette plan -f edge/ --out edge.plan")(plan)
    app.command(epilog="Example: vedette apply edge.plan")(apply)
    app.command(epilog="Example: vedette diff previous active")(diff)
    app.command(epilog="Example: vedette schema Route")(schema)


def plan(
    paths: PathsArgument = None,
    files: FilesOption = None,
    home: HomeOption = None,
    out: Annotated[Path | None, typer.Option(help="Save the plan, for `vedette apply`.")] = None,
    prune: PruneOption = False,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show what applying manifests would change. Exit code 0: nothing, 2: changes, 1: an error."""
    try:
        names = [*(paths or []), *(files or [])]
        answer, loaded = planned(client_of(home), names, prune, verbose)
        if out is not None:
            _save(out, answer, loaded)
        _show(answer, as_json)
    except VedetteError as error:
        from vedette.cli.render import print_error

        print_error(error)
        raise typer.Exit(1) from None
    if out is not None:
        say(f"Saved. Apply exactly this with: vedette apply {out}")
    raise typer.Exit(2 if answer["changes"] else 0)


def apply(
    paths: PathsArgument = None,
    files: FilesOption = None,
    home: HomeOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    prune: PruneOption = False,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Apply manifests, or a plan that `vedette plan --out` saved; asks before it does."""
    client = client_of(home)
    names = [*(paths or []), *(files or [])]
    saved = _plan_file(names)
    if saved is not None:
        if prune:
            raise ConfigError("request_invalid", "--prune was decided when the plan was made")
        answer, contents, components = saved
        _require_current(client, answer["base"])
        _confirm(answer, yes, as_json)
        _send(client, answer, contents.__getitem__, components, as_json)
        return
    from vedette.cli.manifest_files import build_all, load

    loaded = load(names)
    build_all(loaded)
    _say_all(loaded.notes)
    answer = _ask(client, loaded, prune, verbose)
    _confirm(answer, yes, as_json)
    _send(client, answer, loaded.content, set(loaded.components), as_json)


def diff(
    before: Annotated[
        str | None, typer.Argument(help="Snapshot: digest, active or previous.")
    ] = None,
    after: Annotated[str | None, typer.Argument(help="Snapshot; default: active.")] = None,
    files: FilesOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what differs between two snapshots of the history, or the active one and manifests.

    Exit code 0, whether something differs or not: `plan` tells that by its exit code.
    """
    from vedette.cli.plan_text import diff_text, use_colour

    client = client_of(home)
    if files:
        if before is not None:
            raise ConfigError("request_invalid", "name snapshots or manifests, not both")
        answer, _ = planned(client, files)
        answer = {
            "before": answer["base"],
            "after": answer["digest"],
            "changes": answer["changes"],
        }
    else:
        wish = {"before": before or "previous", "after": after or "active"}
        answer = client.get(f"/v1/diff?{urlencode(wish)}")
    if as_json:
        print_json(answer)
    else:
        print(diff_text(answer["changes"], colour=use_colour()), end="")


def schema(
    kind: Annotated[str | None, typer.Argument(help="Kind, such as Route; default: all.")] = None,
) -> None:
    """Print the JSON Schema of manifests, for editors."""
    from vedette.config.manifests import KINDS, nearest
    from vedette.config.schema import manifest_schema, manifests_schema

    if kind is not None and kind not in KINDS:
        message = f"unknown kind {kind!r}{nearest(kind, KINDS)}"
        raise ConfigError("manifest_invalid", message, f"Known are {', '.join(KINDS)}.")
    print_json(manifests_schema() if kind is None else manifest_schema(kind))


def planned(
    client: ControlClient, names: list[str], prune: bool = False, verbose: bool = False
) -> tuple[dict[str, Any], Loaded]:
    """What applying those files would do, and what was read of them."""
    from vedette.cli.manifest_files import load

    loaded = load(names)
    _say_all(loaded.notes)
    return _ask(client, loaded, prune, verbose), loaded


def _ask(client: ControlClient, loaded: Loaded, prune: bool, verbose: bool) -> dict[str, Any]:
    for digest, path in loaded.judged.items():
        client.upload_bytes(digest, path.read_bytes())
    if loaded.models:
        from vedette.cli.model_signing import send_signature_beside
        from vedette.cli.uploading import upload_model

        for digest, path in loaded.models.items():
            upload_model(client, digest, path, path.name)
            send_signature_beside(client, digest, path)
    with waiting("Looking at models" if loaded.models else "Planning"):
        answer: dict[str, Any] = client.post("/v1/plan", loaded.wish(prune=prune))
    _say_all(answer["notes"])
    _say_absent(answer["absent"], verbose)
    return answer


def _say_absent(absent: list[dict[str, str]], verbose: bool) -> None:
    """One line, however many there are: with a file for each service most are absent each time."""
    if not absent:
        return
    manifests = "1 manifest" if len(absent) == 1 else f"{len(absent)} manifests"
    more = "" if verbose else "; --verbose lists them"
    say(f"note: {manifests} applied before and not here: left alone (--prune deletes){more}")
    if verbose:
        for one in absent:
            say(f"  {one['owner']} ({one['file']})")


def _say_all(notes: list[str]) -> None:
    for note in notes:
        say(f"note: {note}")


def _show(answer: dict[str, Any], as_json: bool) -> None:
    from vedette.cli.plan_text import plan_text, use_colour

    if as_json:
        shown = ("base", "digest", "changes", "notes", "unbuilt", "absent")
        print_json({name: answer.get(name) for name in shown})
        return
    print(plan_text(answer["changes"], colour=use_colour()), end="", flush=True)
    for name in answer["unbuilt"]:
        say(f"note: {name} will be built")


def _confirm(answer: dict[str, Any], yes: bool, as_json: bool) -> None:
    """Shows the plan and asks. Raises `ConfigError` plan_unconfirmed."""
    if not as_json:
        _show(answer, as_json=False)
    if yes or not answer["changes"]:
        return
    if not sys.stdin.isatty():
        raise ConfigError("plan_unconfirmed", "there is no terminal to ask on")
    print("\nApply this? Only `yes` applies it: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip() != "yes":
        raise ConfigError("plan_unconfirmed", "the answer was not yes")


def _require_current(client: ControlClient, base: str) -> None:
    """Raises `ConfigError` plan_stale before anybody reads the plan; control checks again."""
    active = client.get("/v1/history?limit=1")[0]
    if active["digest"] != base and not active["action"].startswith(FEED):
        message = f"the plan starts from {short(base)}, and {short(active['digest'])} is active"
        raise ConfigError("plan_stale", message)


def _send(
    client: ControlClient,
    answer: dict[str, Any],
    content: Callable[[str], bytes],
    components: set[str],
    as_json: bool,
) -> None:
    """Uploads what the plan needs and applies it."""
    models = {each["blob"] for each in json.loads(answer["payload"]).get("models", ())}
    for digest in answer["blobs"]:
        if digest in models:
            _send_model(client, digest, content)
            continue
        client.upload_bytes(digest, content(digest), "blobs" if digest in components else "files")
    parts = ("base", "ground", "payload", "texts", "applied", "feeds")
    wish = {name: answer[name] for name in parts if name in answer}
    brings_models = any(each["kind"] == "Model" for each in answer["changes"])
    with waiting("Applying, loading models" if brings_models else "Applying"):
        done = client.post("/v1/apply", wish, timeout=APPLY_TIMEOUT)
    say_if_away(done)
    if as_json:
        print_json(done)
    elif answer["changes"]:
        print(f"Applied: generation {done['generation']}, snapshot {short(done['digest'])}")


def _send_model(client: ControlClient, digest: str, content: Callable[[str], bytes]) -> None:
    """Planning has sent it; of a plan saved long ago the node may have forgotten it."""
    from vedette.cli.uploading import is_there

    if not is_there(client, digest):
        client.upload_bytes(digest, content(digest), "model-files")


def _save(out: Path, answer: dict[str, Any], loaded: Loaded) -> None:
    from vedette.config.model import build
    from vedette.control.messages import PlanAnswer
    from vedette.control.plan_file import seal
    from vedette.store.atomic import write_atomic

    if answer["unbuilt"]:
        names = ", ".join(answer["unbuilt"])
        raise ConfigError(
            "component_missing",
            f"a plan can be saved only when every component is there; to build: {names}",
            "Run `vedette build` in the project folder first.",
        )
    contents = {digest: loaded.content(digest) for digest in answer["blobs"]}
    plan = build(PlanAnswer, answer, code="plan_invalid")
    write_atomic(out, seal(plan, contents, set(loaded.components) & set(contents)), 0o600)


def _plan_file(names: list[str]) -> tuple[dict[str, Any], dict[str, bytes], set[str]] | None:
    """The plan, when one file was named and it is one; a manifest begins otherwise."""
    if len(names) != 1 or not Path(names[0]).is_file():
        return None
    with Path(names[0]).open("rb") as file:
        head = file.read(64)
        if Path(names[0]).suffix in (".yaml", ".yml") or not head.lstrip().startswith(b"{"):
            return None
        data = head + file.read(MAX_PLAN_FILE)
    from vedette.config.model import wire_value
    from vedette.control.plan_file import unseal

    saved, contents = unseal(data, names[0])
    answer = json.loads(json.dumps(wire_value(saved.plan)))
    return answer, contents, set(saved.components)
