"""`vedette model quantize`: an INT8 model of a model, measured, and refused when it lost too much.

Owns: where the model comes from and where the result goes. Must not: quantise; `models.quantize` has a process do that.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vedette.cli.completing import model_names_or_paths
from vedette.cli.interrupting import said_on_interrupt
from vedette.cli.options import HomeOption, JsonOption, client_of, home_of, split_list
from vedette.cli.render import print_json, print_table, printable, say
from vedette.errors import ConfigError
from vedette.ids import digest_hex, require_name

if TYPE_CHECKING:
    from vedette.models.quantize import Quantized


def quantize(
    model: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE",
            help="A model of the node, or a file (.onnx).",
            autocompletion=model_names_or_paths,
        ),
    ],
    home: HomeOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the result goes; needed for a file.", dir_okay=False)
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help="Real inputs, .npz or .npy or a folder of them, from which the ranges of activations are learnt; "
            "without, only weights are quantised beforehand."
        ),
    ] = None,
    samples: Annotated[
        Path | None,
        typer.Option(
            help="What the result is measured on: inputs, perhaps with `labels`; default: those of --calibrate."
        ),
    ] = None,
    max_drop: Annotated[
        str, typer.Option(metavar="PART", help="How much may be lost, such as 1% or 0.01.")
    ] = "1%",
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="NODE", help="A node that stays as it is; may be repeated."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(help="The output that is measured; default: each, and the worst counts."),
    ] = None,
    promote: Annotated[
        bool, typer.Option("--promote", help="Serve the result at once; of a model of the node.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a model smaller and faster: INT8 instead of 32-bit floats. The model itself stays.

    Of a model of the node the result becomes its next version, which is only kept until it is promoted. It is made in a
    process without network and files.
    """
    from vedette.models.boxed import copy_out
    from vedette.models.quantize import Wish, quantized

    name = None if Path(model).is_file() else require_name(model, "model")
    source = Path(model) if name is None else _kept(name, home)
    if name is None and (out is None or promote):
        message = (
            "a file that is no model of the node is only written: give --out, and no --promote"
        )
        raise ConfigError("request_invalid", message)
    if promote and samples is None and calibrate is None:
        message = "what was not measured is not promoted"
        raise ConfigError("request_invalid", message, "Give --samples, or promote it afterwards.")
    if out is not None and out.exists() and out.samefile(source):
        message = f"{out} is the model itself, which stays"
        raise ConfigError("request_invalid", message, "Name another file with --out.")
    wish = Wish(
        source, calibrate, samples, part(max_drop), tuple(split_list(exclude or ())), output
    )
    with (
        said_on_interrupt("Stopped; nothing was written"),
        _spinner() as step,
        quantized(wish, step) as made,
    ):
        if out is not None:
            copy_out(made.file, out)
        added = _added(made, name, home, promote) if name else None
    if as_json:
        print_json({**made.told, "out": str(out) if out else None, "version": added})
        return
    _print(made.told)
    if out is not None:
        say(f"Wrote {out}")
    if name and added:
        _say_added(name, added)


def part(text: str) -> float:
    """`1%` or `0.01`. Raises `ConfigError` request_invalid."""
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise ConfigError("request_invalid", f"{text!r} is no part of a whole: write 1% or 0.01")
    return value


def _kept(name: str, home: Path | None) -> Path:
    """The file of the version that serves. Raises `ConfigError` model_unknown, model_refused, model_format."""
    found = client_of(home).get(f"/v1/models/{name}")
    serving = [each for each in found["versions"] if each["version"] == found["version"]]
    if not serving:
        hint = f"Serve one: vedette model promote {name} --version N"
        raise ConfigError("model_refused", f"no version of {name!r} serves", hint)
    if found["format"] != "onnx":
        raise ConfigError(
            "model_format", f"{name} is {found['format']}; only ONNX can be quantised here"
        )
    return home_of(home).blobs / digest_hex(serving[0]["file"])


def _added(made: Quantized, name: str, home: Path | None, promote: bool) -> dict[str, Any]:
    from vedette.cli.uploading import upload_model
    from vedette.models.admit import read_model

    admitted = read_model(made.file)
    client = client_of(home)
    wish = {"file": admitted.digest, "promote": promote}
    with said_on_interrupt("Stopped; see `vedette model list` for what there is"):
        upload_model(client, admitted.digest, admitted.path, name)
        answer: dict[str, Any] = client.put(f"/v1/models/{name}", wish)
    return answer


def _spinner() -> Any:
    """What hears of each step: on a terminal a line that moves, else nobody."""
    import sys

    if not sys.stderr.isatty():
        return nullcontext(lambda step: None)
    return _Spinner()


class _Spinner:
    def __enter__(self) -> Any:
        from vedette.cli.deploying import progress_bar

        self._progress = progress_bar()
        self._progress.__enter__()
        self._task = self._progress.add_task("starting", total=None)
        return self._step

    def _step(self, step: str) -> None:
        self._progress.update(self._task, description=printable(step))

    def __exit__(self, *error: object) -> None:
        self._progress.__exit__(None, None, None)


def _print(told: dict[str, Any]) -> None:
    before, after = told["before"], told["after"]
    rows = [
        (
            "size",
            _bytes(before["bytes"]),
            _bytes(after["bytes"]),
            _ratio(before["bytes"], after["bytes"]),
        )
    ]
    if before["millis"] is not None:
        millis = before["millis"], after["millis"]
        rows.append(
            ("a run, one thread", f"{millis[0]:.3g} ms", f"{millis[1]:.3g} ms", _ratio(*millis))
        )
    print_table(("what", "before", "after", "is"), rows, "")
    accuracy = told["accuracy"]
    if accuracy is None:
        say("note: accuracy was not measured; give --samples")
    else:
        say(f"On {accuracy['samples']:,} samples {printable(accuracy['sentence'])}")


def _say_added(name: str, added: dict[str, Any]) -> None:
    version = added["version"]
    if added["promoted"]:
        say(
            f"Serves {name} {version} (generation {added['generation']}); back: vedette model rollback {name}"
        )
    else:
        say(f"Keeps {name} {version}; serve it: vedette model promote {name} --version {version}")


def _ratio(before: float, after: float) -> str:
    return f"{after / before:.0%}" if before else "-"


def _bytes(amount: int) -> str:
    return f"{amount / (1 << 20):.2f} MB" if amount >= 1 << 20 else f"{amount / (1 << 10):.1f} KB"
