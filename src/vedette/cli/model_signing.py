"""`vedette model sign`, `verify`, `trust …`: signatures of models (OpenSSF Model Signing v1), with no network.

Owns: the options of these commands, and that private keys are named by files. Must not: decide whose signatures
count; the node's list does, or certificates that are given.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vedette.cli.completing import model_names_or_paths, model_versions
from vedette.cli.options import HomeOption, JsonOption, client_of
from vedette.cli.render import print_json, print_table, printable, say
from vedette.errors import ConfigError, VedetteError
from vedette.ids import is_name, require_name

if TYPE_CHECKING:
    from vedette.control.client import ControlClient

_trust = typer.Typer(help="Whose signatures of models count.", no_args_is_help=True)
_NAMES_OR_PATHS = "Name of a model of the node, or a path: a file, or a folder with all in it."
TargetArgument = Annotated[
    str,
    typer.Argument(metavar="NAME|PATH", help=_NAMES_OR_PATHS, autocompletion=model_names_or_paths),
]
VersionOption = Annotated[
    int | None,
    typer.Option(
        min=1, help="Of a name; default: the one that serves.", autocompletion=model_versions
    ),
]


def register(models: typer.Typer) -> None:
    """Adds the commands to those of models."""
    models.command(
        "sign", epilog="Example: vedette model sign digits.onnx --key me.key --cert me.pem"
    )(sign)
    models.command(
        "verify", epilog="Example: vedette model verify digits.onnx --cert publisher.pem"
    )(verify)
    _trust.command("list", epilog="Example: vedette model trust list --json")(trust_list)
    _trust.command("add", epilog="Example: vedette model trust add publisher.pem")(trust_add)
    _trust.command("remove", epilog="Example: vedette model trust remove 0b6e3bd26c1cfc54")(
        trust_remove
    )
    models.add_typer(_trust, name="trust")


def sign(
    target: TargetArgument,
    home: HomeOption = None,
    key: Annotated[
        Path | None,
        typer.Option(
            help="Private key, PEM, 0600, on P-256, P-384 or P-521; default: the node's CA."
        ),
    ] = None,
    cert: Annotated[
        Path | None,
        typer.Option(help="Its certificate and those that lead to whom people trust, PEM."),
    ] = None,
    version: VersionOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File for the signature; default: model.sig beside the model, for a name none."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Sign a model: a file or folder, or a version that the node keeps. The signature goes with it as `model.sig`."""
    from vedette.models.signed_files import SIGNATURE_NAME, resources_of

    if (key is None) != (cert is None):
        raise ConfigError("request_invalid", "--key and --cert go together")
    if _is_path(target):
        path = Path(target)
        place = out or (path if path.is_dir() else path.parent) / SIGNATURE_NAME
        name, resources = path.resolve().name, resources_of(path)
        if path.is_dir() and place.resolve().is_relative_to(path.resolve()):
            resources.pop(place.resolve().relative_to(path.resolve()).as_posix(), None)
        _write(place, _signed(client_of(home), name, resources, key, cert))
        if as_json:
            print_json({"signature": str(place), "files": len(resources)})
        return
    client, name = client_of(home), require_name(target, "model")
    if key is None:
        done = client.post(f"/v1/models/{name}/signed{_query(version)}", None)
    else:
        done = _sign_version(client, name, version, key, cert)
    say(f"{name} is signed by {printable(done['signer'])}")
    if out is not None:
        _write(out, client.get_bytes(f"/v1/models/{name}/signature{_query(version)}"))
    if as_json:
        print_json(done | {"signature": str(out) if out else None})


def verify(
    target: TargetArgument,
    home: HomeOption = None,
    signature: Annotated[
        Path | None, typer.Option(help="Of a path: its signature; default: model.sig beside it.")
    ] = None,
    cert: Annotated[
        list[Path] | None,
        typer.Option(
            help="Whose signatures count, PEM; default: those whom the node trusts. Repeatable."
        ),
    ] = None,
    version: VersionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check that a model is what was signed, and by whom. Exit code 3 when it is not."""
    if not _is_path(target):
        name = require_name(target, "model")
        done = client_of(home).post(f"/v1/models/{name}/verified{_query(version)}", None)
    else:
        done = _verified(Path(target), signature, cert, home)
    if as_json:
        print_json(done)
    else:
        files = "1 file" if done["files"] == 1 else f"{done['files']} files"
        say(f"{target} is what {printable(done['signer'])} signed ({files})")


def trust_list(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List whose signatures of models count."""
    found = client_of(home).get("/v1/model-signers")
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one["fingerprint"][:16],
            printable(one["subject"]),
            one["notAfter"],
            one["addedAt"],
            one["actor"],
        )
        for one in found
    ]
    columns = ("fingerprint", "subject", "ends", "added", "by")
    print_table(columns, rows, "No signature of a model counts. See vedette model trust add --help")


def trust_add(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="Certificates of authorities, or of signers themselves, PEM; default: the node's CA.",
            show_default=False,
        ),
    ] = None,
    home: HomeOption = None,
) -> None:
    """Have signatures by a certificate, or by those that it issues, count."""
    from vedette.cli.golden import read_plain

    pem = None if file is None else read_plain(file, 1_000_000).decode("ascii", "replace")
    for one in client_of(home).put("/v1/model-signers", {"pem": pem}):
        say(f"Trusting {printable(one['subject'])} with models")
        print(one["fingerprint"])


def trust_remove(
    fingerprint: Annotated[
        str, typer.Argument(help="Its fingerprint, or at least the first 8 digits of it.")
    ],
    home: HomeOption = None,
) -> None:
    """Have a signer count no more. Models that run go on until they are loaded again."""
    from vedette.control.client import segment

    gone = client_of(home).delete(f"/v1/model-signers/{segment(fingerprint)}")
    say(f"No longer trusting {printable(gone['subject'])} with models")


def send_signature(client: ControlClient, digest: str, file: Path) -> None:
    """Has the node keep the signature of a file that it has. Raises `VedetteError` model_signature_invalid and the
    like.
    """
    from vedette.models.signed_files import read_signature

    client.upload_bytes(f"{digest}/signature", read_signature(file), "model-files")


def send_signature_beside(client: ControlClient, digest: str, path: Path) -> None:
    """The same with what lies beside a file, if something does; one of somebody unknown is said and left out."""
    from vedette.models.signed_files import signature_beside

    found = signature_beside(path)
    if found is None:
        return
    try:
        send_signature(client, digest, found)
    except VedetteError as error:
        if error.code != "model_signer_unknown":
            raise
        say(f"note: {found}: {error.message}; {path.name} counts as unsigned")


def _is_path(target: str) -> bool:
    """A name that is also a file here is the file's, as it is written with a suffix or a slash otherwise."""
    return not is_name(target) or Path(target).exists()


def _query(version: int | None) -> str:
    return "" if version is None else f"?version={version}"


def _signed(
    client: ControlClient, name: str, resources: dict[str, str], key: Path | None, cert: Path | None
) -> bytes:
    """The signature, by the key or by the node's CA."""
    if key is not None and cert is not None:
        from vedette.models.signing import ModelSigner

        return ModelSigner.load(key, cert).sign(name, resources)
    return client.post_for_bytes("/v1/model-signatures", {"name": name, "files": resources})


def _sign_version(
    client: ControlClient, name: str, version: int | None, key: Path, cert: Path | None
) -> dict[str, Any]:
    """Signs a version with a key that the node never sees."""
    from vedette.models.signing import ALONE

    shown = client.get(f"/v1/models/{name}")
    number = version or shown["version"] or shown["versions"][0]["version"]
    digest = next((one["file"] for one in shown["versions"] if one["version"] == number), None)
    if digest is None:
        raise ConfigError("model_version_unknown", f"{name!r} has no version {number}")
    bundle = _signed(client, name, {ALONE: digest.removeprefix("sha256:")}, key, cert)
    client.upload_bytes(f"{digest}/signature", bundle, "model-files")
    done: dict[str, Any] = client.post(f"/v1/models/{name}/verified?version={number}", None)
    return done


def _verified(
    path: Path, signature: Path | None, certs: list[Path] | None, home: Path | None
) -> dict[str, Any]:
    from vedette.cli.golden import read_plain
    from vedette.clock import to_rfc3339
    from vedette.models.signed_files import read_signature, require_same, signature_beside
    from vedette.models.signing import certificates_of, verify

    place = signature or signature_beside(path)
    if place is None:
        raise ConfigError(
            "file_unreadable", f"there is no model.sig beside {path}", "Name it with --signature."
        )
    texts = [read_plain(each, 1_000_000) for each in certs or []]
    if not texts:
        texts = [one["pem"].encode() for one in client_of(home).get("/v1/model-signers")]
    signed = verify(
        read_signature(place), [each for text in texts for each in certificates_of(text)]
    )
    require_same(path, signed.resources, place)
    return {
        "signer": signed.signer,
        "fingerprint": signed.fingerprint,
        "since": to_rfc3339(signed.at),
        "files": len(signed.resources),
    }


def _write(place: Path, signature: bytes) -> None:
    from vedette.store.atomic import write_atomic

    write_atomic(place, signature, 0o644)
    say(f"Signed; the signature goes with it: {place}")
