"""`vedette model …`: models taken in, listed, promoted, rolled back, removed.

Owns: the options of these commands. Must not: look into a model; the node has it looked at.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vedette.cli import model_signing
from vedette.cli.completing import ModelArgument, model_names, model_versions
from vedette.cli.embedding import embed
from vedette.cli.interrupting import said_on_interrupt
from vedette.cli.model_alarms import alarms
from vedette.cli.model_samples import samples, shown_share
from vedette.cli.options import HomeOption, JsonOption, client_of
from vedette.cli.quantizing import quantize
from vedette.cli.render import print_json, print_table, printable, say, say_if_away, short
from vedette.cli.waiting import waiting
from vedette.errors import ConfigError
from vedette.ids import require_name

if TYPE_CHECKING:
    from vedette.control.client import ControlClient

_models = typer.Typer(
    help="Models that the node serves by the Open Inference Protocol.", no_args_is_help=True
)

_SHOWN_VALUES = 4
_STOPPED = "Stopped; see `vedette model list` for what there is"
_QUANTIZE_EXAMPLE = (
    "Example: vedette model quantize digits --calibrate pictures.npz --samples labelled.npz"
)
_EMBED_EXAMPLE = (
    "Example: vedette model embed model.onnx --data model.onnx.data=sha256:… --out whole.onnx"
)
_SAMPLES_EXAMPLE = "Example: vedette model samples digits --out samples.npz --since 7d"


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    _models.command("list", epilog="Example: vedette model list --json")(list_)
    _models.command("show", epilog="Example: vedette model show digits")(show)
    _models.command("add", epilog="Example: vedette model add digits.onnx --name digits")(add)
    _models.command("promote", epilog="Example: vedette model promote digits --version 2")(promote)
    _models.command("rollback", epilog="Example: vedette model rollback digits")(rollback)
    _models.command("quantize", epilog=_QUANTIZE_EXAMPLE)(quantize)
    _models.command("embed", epilog=_EMBED_EXAMPLE)(embed)
    _models.command("remove", epilog="Example: vedette model remove digits --version 1")(remove)
    _models.command("alarms", epilog="Example: vedette model alarms pump --follow")(alarms)
    _models.command("samples", epilog=_SAMPLES_EXAMPLE)(samples)
    model_signing.register(_models)
    app.add_typer(_models, name="model")


def list_(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List models: which version serves, what goes in and comes out, how the process is."""
    found = client_of(home).get("/v1/models")
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one["name"],
            "by tiers" if one.get("remote") else one["version"] or "-",
            ", ".join(str(each["version"]) for each in one["versions"]) or "-",
            one["task"],
            one["format"] or "-",
            "-" if one["size"] is None else _size(one["size"]),
            printable(_tensors(one["inputs"])),
            printable(_tensors(one["outputs"])),
            _state(one["worker"]),
        )
        for one in found
    ]
    columns = (
        *("name", "serves", "versions", "task", "format", "size"),
        *("inputs", "outputs", "process"),
    )
    print_table(columns, rows, "The node has no model. Give it one: vedette model add --help")


def show(name: ModelArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show one model: its versions, what goes in and comes out, and its process."""

    one = client_of(home).get(f"/v1/models/{require_name(name, 'model')}")
    if as_json:
        print_json(one)
        return
    rows = [
        ("name", one["name"]),
        ("serves", _serving(one)),
        ("answers at", one["url"] or "-"),
        ("routes", ", ".join(one["routes"]) or "-"),
    ]
    rows += [("tier", printable(_tier(each))) for each in one.get("tiers", ())]
    rows.append(("task", one["task"]))
    if one["format"]:
        rows.append(("format", f"{one['format']}, {_size(one['size'])}"))
    rows += [("input", printable(_tensor(each))) for each in one["inputs"]]
    rows += [("output", printable(_tensor(each))) for each in one["outputs"]]
    rows += [(side, _media(one[side])) for side in ("input", "output") if one[side]]
    rows += [("stream", _stream(one["stream"]))] if one["stream"] else []
    rows += _process(one)
    if one["manifest"]:
        rows.append(("manifest", printable(one["manifest"])))
    print_table(("what", "value"), rows, "")
    if one["versions"]:
        print()
        _print_versions(one["versions"])


def _serving(one: dict[str, Any]) -> str:
    if one.get("remote"):  # not of a control of before
        return "what tiers answer: it has no file here"
    return f"version {one['version']}" if one["version"] else "nothing"


def _tier(tier: dict[str, Any]) -> str:
    return f"{tier['name']}: {tier['model']} at {tier['url']} (route {tier['route']})"


def _process(one: dict[str, Any]) -> list[tuple[str, str]]:
    """How it runs, where it runs here."""
    limits, worker = one["limits"], one["worker"]
    if limits is None:
        return []
    rows = [
        ("sessions", f"{one['sessions']}, {one['threads']} threads each"),
        ("memory", f"at most {_size(limits['memoryBytes'])}"),
        ("run", f"at most {limits['runMillis']:,} ms, {limits['queue']} may wait"),
        ("process", _state(worker)),
    ]
    rows += _drift(one.get("drift"))  # not of a control of before
    rows += _samples(one.get("samples"))  # likewise
    if worker:
        since = f", since {worker['since']}" if worker["since"] else ""
        rows.append(("", f"pid {worker['pid'] or '-'}{since}, {worker['restarts']} restarts"))
        if worker["memoryBytes"]:
            rows.append(("", f"has {_size(worker['memoryBytes'])} of memory"))
        if worker["error"]:
            rows.append(("failed because", printable(worker["error"])))
    return rows


def _print_versions(versions: list[dict[str, Any]]) -> None:
    rows = [
        (
            each["version"],
            each["state"],
            each["golden"] or "-",
            printable(each["signer"] or "-"),
            _size(each["size"]),
            short(each["file"]),
            each["addedAt"],
            each["actor"],
        )
        for each in versions
    ]
    print_table(
        ("version", "state", "golden", "signed by", "size", "file", "added", "by"), rows, ""
    )


def add(
    path: Annotated[
        Path,
        typer.Argument(
            help="A file (.onnx, .tflite), or a folder that holds one, and perhaps model.yaml."
        ),
    ],
    name: Annotated[str, typer.Option(help="Name of the model.", autocompletion=model_names)],
    home: HomeOption = None,
    version: Annotated[
        int | None, typer.Option(min=1, help="Higher than all before; default: the next.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="What it is for, e.g. image-classification.")
    ] = None,
    sessions: Annotated[
        int | None, typer.Option(min=1, max=256, help="Requests it runs at once; default 1.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, max=256, help="Threads of each session; default 1.")
    ] = None,
    promote: Annotated[
        bool, typer.Option("--promote/--no-promote", help="Serve it at once; or only keep it.")
    ] = True,
    golden: Annotated[
        Path | None,
        typer.Option(help="Questions and the answers to them that it must give before it serves."),
    ] = None,
    golden_record: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INPUT",
            help="JSON, or a file of JSON or .npy: what it answers to it now is what it must answer from now on. "
            "Repeatable.",
        ),
    ] = None,
    signature: Annotated[
        Path | None,
        typer.Option(help="Its signature, which has to hold; default: model.sig beside it."),
    ] = None,
    unsigned: Annotated[
        bool, typer.Option("--unsigned", help="Take it in as unsigned, whatever lies beside it.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Take in a model as the next version; returns when it serves. Settings not given stay as they were.

    It is looked at in a process without network and files before anything of it counts.
    """
    from vedette.cli.golden import read_golden, send_golden
    from vedette.cli.model_folder import model_folder
    from vedette.cli.uploading import upload_model
    from vedette.models.admit import read_model

    place = f"/v1/models/{require_name(name, 'model')}"
    folder = model_folder(path)
    admitted = read_model(folder.file)
    cases = read_golden(golden)
    client = client_of(home)
    flags = {"task": task, "sessions": sessions, "threads": threads}
    said = {key: value for key, value in flags.items() if value is not None}
    wish: dict[str, Any] = {"file": admitted.digest, "version": version, "promote": promote}
    wish |= {**folder.wish, **said}
    with said_on_interrupt(_STOPPED):
        upload_model(client, admitted.digest, admitted.path, name)
        folder.send(client)
        _send_signature(client, admitted.digest, admitted.path, signature, unsigned)
        wish["golden"] = send_golden(client, admitted.digest, cases, golden_record or [])
        with waiting(f"Looking at {name}{', loading it' if promote else ''}"):
            answer: dict[str, Any] = client.put(place, wish)
    if as_json:
        print_json(answer)
        return
    _say_added(answer)
    _say_if_crowded(client.get(place))


def _say_if_crowded(one: dict[str, Any]) -> None:
    """Threads beyond the cores, which are those of this machine: the node is at a Unix socket."""
    sessions, threads, cores = one["sessions"], one["threads"], len(os.sched_getaffinity(0))
    if sessions * threads > cores:
        wanted = (
            f"{sessions} sessions of {threads} threads" if sessions > 1 else f"{threads} threads"
        )
        say(f"note: {wanted} on {cores} cores take turns, and each request takes longer")


def _say_added(answer: dict[str, Any]) -> None:
    name, kept = answer["name"], answer["version"]
    say_if_away(answer)
    say(f"Inputs: {printable(_tensors(answer['inputs']))}")
    say(f"Outputs: {printable(_tensors(answer['outputs']))}")
    if answer["pruned"]:
        say(f"note: forgot old versions: {', '.join(map(str, answer['pruned']))}")
    if answer["signer"]:
        say(f"Signed by {printable(answer['signer'])}")
    if answer["golden"]:
        asked = "as they should be" if answer["promoted"] else "not asked yet"
        say(f"Golden answers: {answer['golden']}, {asked}")
    if not answer["promoted"]:
        say(f"Keeps {name} {kept}; serve it: vedette model promote {name} --version {kept}")
        return
    say(f"Serves {name} {kept} (generation {answer['generation']})")
    print(answer["url"])


def _send_signature(
    client: ControlClient, digest: str, file: Path, signature: Path | None, unsigned: bool
) -> None:
    from vedette.models.signed_files import signature_beside

    if unsigned:
        if signature is not None:
            raise ConfigError("request_invalid", "--signature and --unsigned contradict each other")
        client.delete(f"/v1/model-files/{digest}/signature")
        return
    found = signature or signature_beside(file)
    if found is not None:
        model_signing.send_signature(client, digest, found)


def promote(
    name: ModelArgument,
    version: Annotated[
        int, typer.Option(min=1, help="The version to serve.", autocompletion=model_versions)
    ],
    home: HomeOption = None,
    max_drift: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Only while requests are as they were: the highest PSI, e.g. 0.25, that inputs and score of the "
            "version that serves may have.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Serve a version that is kept; returns when it serves."""

    place = f"/v1/models/{require_name(name, 'model')}/promoted"
    with said_on_interrupt(_STOPPED), waiting(f"Loading {name} {version}"):
        wish = {"version": version} | ({} if max_drift is None else {"maxDrift": max_drift})
        done = client_of(home).post(place, wish)
    _told(done, f"Serves {name} {version}", as_json)


def rollback(name: ModelArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Serve the version that served before; `vedette rollback` takes the whole node back."""

    client = client_of(home)
    with said_on_interrupt(_STOPPED), waiting(f"Loading {name}"):
        done = client.post(f"/v1/models/{require_name(name, 'model')}/rollback", None)
    version = client.get(f"/v1/models/{require_name(name, 'model')}")["version"]
    _told(done, f"Serves {name} {version}", as_json)


def remove(
    name: ModelArgument,
    home: HomeOption = None,
    version: Annotated[
        int | None,
        typer.Option(
            min=1, help="Only this one, which does not serve.", autocompletion=model_versions
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Remove a model with all its versions and the routes to it, or one version that does not serve."""

    place = f"/v1/models/{require_name(name, 'model')}"
    if version is not None:
        place += f"/versions/{version}"
    left = client_of(home).delete(place)
    if as_json:
        print_json(left)
    say(f"Removed {name}{'' if version is None else f' {version}'}")


def _told(done: dict[str, Any], sentence: str, as_json: bool) -> None:
    if as_json:
        print_json(done)
        return
    say_if_away(done)
    say(f"{sentence} (generation {done['generation']})")


def _state(worker: dict[str, Any] | None) -> str:
    if worker is None:
        return "-"
    restarts = f", {worker['restarts']} restarts" if worker["restarts"] else ""
    return f"{worker['state']}{restarts}"


def _drift(drift: dict[str, Any] | None) -> list[tuple[str, str]]:
    """How far what comes is from what was: a line for each input, and for the score."""
    if drift is None:
        return []
    rows = [("drift", drift["state"])]
    for each in drift["columns"]:
        if each["psi"] is not None:
            shown = f"PSI {each['psi']:.2f}, KS {each['ks']:.2f}"
        elif each["state"] == "learning":
            shown = f"learns what is usual, {each['runs']} of 1000 requests"
        else:
            shown = f"{each['runs']} of 500 requests since it has learnt"
        rows.append(("", f"{each['side']} {printable(each['name'])}: {shown}"))
    return rows


def _samples(asked: dict[str, Any] | None) -> list[tuple[str, str]]:
    """What is kept of what it is asked; nothing is said where nothing is."""
    if asked is None:
        return []
    return [
        ("samples", f"{shown_share(asked)} of requests: {printable(', '.join(asked['inputs']))}")
    ]


def _tensors(rows: list[dict[str, Any]]) -> str:
    shown = ", ".join(_tensor(each) for each in rows[:_SHOWN_VALUES])
    return shown + (f" and {len(rows) - _SHOWN_VALUES} more" if len(rows) > _SHOWN_VALUES else "")


def _tensor(one: dict[str, Any]) -> str:
    """`x FP32[?,3]`: a dimension `?` is any."""
    shape = ",".join(str(each) if each else "?" for each in one["shape"])
    return f"{one['name']} {one['datatype']}[{shape}]"


def _media(said: dict[str, Any]) -> str:
    """How it is fed or read, in a line."""
    match said["type"]:
        case "Image":
            return (
                f"a picture, {said['width']} x {said['height']}, {said['resize']}, {said['colors']}"
            )
        case "Audio":
            return f"a sound, {said['sampleRate']:,} samples a second"
        case "Text":
            return f"a text, at most {said['maxTokens']:,} tokens"
        case kind:
            return f"read as {kind.lower()}"


def _stream(said: dict[str, Any]) -> str:
    """How it answers events, in a line."""
    count = math.prod(said["shape"]) - said["context"]
    alarm = "" if said["threshold"] is None else f", an alarm from {said['threshold']:g}"
    return printable(f"{count:,} numbers an event{alarm}; {said['score']} is the score")


def _size(amount: int) -> str:
    """Bytes as a person reads them, powers of 1024 as everywhere here."""
    value = float(amount)
    for unit in ("B", "KB", "MB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GB"
