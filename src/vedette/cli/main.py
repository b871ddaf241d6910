"""The command `vedette`: the list of commands, exit codes, and how an error looks.

Owns: what goes to stdout and what to stderr. Exit codes: 0 done, 1 a defect, 2 usage or configuration, 3 not trusted,
4 not available now, 130 ended with Ctrl-C. Must not: import what only one command needs; `vedette --help` is
to be instant.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from vedette import __version__
from vedette.cli import (
    audit,
    authorities,
    certificates,
    credentials,
    federation,
    functions,
    granting,
    identity,
    join_tokens,
    lifecycle,
    manifests,
    models,
    policies,
    posturing,
    predict,
    records,
    revoking,
    running,
    sidecars,
    snapshots,
    traffic,
    upgrading,
    verifying,
    waf,
    workloads,
)
from vedette.cli.render import print_error
from vedette.errors import VedetteError

app = typer.Typer(
    name="vedette",
    help="A zero-trust edge node: Wasm functions behind identity, policy and a record.",
    epilog="Start with: vedette up",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    del version  # its callback has printed it


for room in (
    lifecycle,
    upgrading,
    functions,
    models,
    predict,
    traffic,
    manifests,
    identity,
    authorities,
    revoking,
    granting,
    posturing,
    certificates,
    credentials,
    workloads,
    running,
    sidecars,
    join_tokens,
    federation,
    snapshots,
    policies,
    records,
    audit,
    verifying,
    waf,
):
    room.register(app)


def main() -> int:
    """Runs the command line and returns the exit code."""
    try:
        app()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except VedetteError as error:
        print_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (`| head`) has enough. Python would complain again while closing stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(
            f"error: {error.strerror or error}: {error.filename or ''}".rstrip(": "),
            file=sys.stderr,
        )
        return 1
    except Exception as error:
        if os.environ.get("VEDETTE_DEBUG"):
            raise
        print(f"error: a defect in vedette: {type(error).__name__}: {error}", file=sys.stderr)
        print("mend: run again with VEDETTE_DEBUG=1 and report what it prints", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
