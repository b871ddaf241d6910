"""What the admin API takes and gives of models.

Owns: these shapes in docs/reference/openapi.json and of `vedette model … --json`. Must not: hold behaviour.
"""

from __future__ import annotations

from pydantic import Field

from vedette.config.media_manifest import MediaSpec
from vedette.config.model import Count, Model
from vedette.config.model_manifest import ModelLimitsSpec, Task
from vedette.config.samples_manifest import SamplesSpec
from vedette.config.served import ModelFormat, ModelLimits, Tensor
from vedette.config.served_media import ServedInput, ServedOutput
from vedette.config.served_samples import ServedSamples
from vedette.config.served_stream import ServedStream
from vedette.config.snapshot import Digest
from vedette.config.written import Duration
from vedette.control.drift_messages import ModelDrift
from vedette.control.messages import Activation


class ModelWish(Model):
    """A model to take in under the name in the path; its file was uploaded before."""

    file: Digest = Field(description="Digest of the uploaded file.")
    version: Count | None = Field(
        default=None, ge=1, le=2**53, description="Its version; absent: the next."
    )
    golden: Digest | None = Field(
        default=None,
        description="Digest of uploaded golden answers, in place of those that the file had; absent: as they were.",
    )
    promote: bool = Field(default=True, description="Whether it is served at once.")
    task: Task | None = Field(
        default=None,
        description="What it is for; absent: as the version that serves, else `tensors`.",
    )
    sessions: Count | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Sessions; absent: as the version that serves, or 1.",
    )
    threads: Count | None = Field(
        default=None, ge=1, le=256, description="Threads of each; absent: as that, or 1."
    )
    limits: ModelLimitsSpec | None = Field(
        default=None, description="What it may use; absent: as that, or the usual."
    )
    idle: Duration | None = Field(
        default=None,
        description="Its process ends when nobody asks for so long (1s to 30d); absent: as that, or never.",
    )
    samples: SamplesSpec | None = Field(
        default=None,
        description="What is kept of what it is asked; absent: nothing, whatever is of the version that serves.",
    )
    media: MediaSpec | None = Field(
        default=None,
        description="How it is fed and read; files in it are digests of what was uploaded. Absent: as that, or as "
        "tensors.",
    )


class PromoteWish(Model):
    """A version to serve."""

    version: Count = Field(ge=1, le=2**53, description="The version.")
    max_drift: float | None = Field(
        default=None,
        ge=0,
        description="Refused when the PSI of what the serving version is asked or answers is higher; absent: never.",
    )


class SignerWish(Model):
    """Somebody whose signatures of models are to count."""

    pem: str | None = Field(
        default=None,
        max_length=1_000_000,
        description="Certificates of authorities, or of signers themselves, PEM; absent: the node's CA.",
    )


class SignerStatus(Model):
    """Somebody whose signatures of models count."""

    fingerprint: str = Field(description="SHA-256 of the certificate, hex.")
    subject: str = Field(description="Whose it is.")
    pem: str = Field(description="The certificate, PEM.")
    not_after: str = Field(description="When it ends; signatures from before count on.")
    added_at: str = Field(description="Since when it is trusted, RFC 3339.")
    actor: str = Field(description="Who added it.")


class SignatureStatus(Model):
    """A signature that holds."""

    signer: str = Field(description="Who signed.")
    fingerprint: str = Field(description="SHA-256 of the signer's certificate, hex.")
    since: str = Field(description="When that began, RFC 3339: it was signed after.")
    files: int = Field(description="How many files were signed together.")


class SigningWish(Model):
    """Files that the node's CA is to sign."""

    name: str = Field(min_length=1, max_length=255, description="What the model is called.")
    files: dict[str, str] = Field(
        min_length=1, max_length=10_000, description="SHA-256 in hex by name; `.`: a file alone."
    )


class ModelAdded(Activation):
    """A model that was taken in. Of one that is not promoted, `digest` and `generation` are those of before."""

    name: str = Field(description="Name of the model.")
    version: int = Field(description="Its version.")
    file: str = Field(description="Digest of its file.")
    promoted: bool = Field(description="Whether it is served.")
    url: str | None = Field(description="Where it answers; null: it is not served.")
    inputs: tuple[Tensor, ...] = Field(description="What it takes; a dimension 0: any.")
    outputs: tuple[Tensor, ...] = Field(description="What it gives.")
    load_millis: float = Field(description="How long loading took, in milliseconds.")
    runtime: str = Field(description="What loaded it.")
    golden: int = Field(default=0, description="How many golden answers the file has.")
    signer: str | None = Field(default=None, description="Who signed the file; null: nobody.")
    pruned: tuple[int, ...] = Field(
        default=(), description="Old versions that were forgotten for it."
    )


class ModelVersion(Model):
    """One version that the node keeps."""

    version: int = Field(description="Its number.")
    file: str = Field(description="Digest of its file.")
    size: int = Field(description="Size of its file, in bytes.")
    format: ModelFormat = Field(description="What its file is.")
    task: str = Field(description="What it is for.")
    added_at: str = Field(description="When it came, RFC 3339.")
    actor: str = Field(description="Who brought it.")
    golden: int = Field(default=0, description="How many golden answers its file has.")
    signer: str | None = Field(default=None, description="Who signed its file; null: nobody.")
    state: str = Field(
        description="serving, previous (what `vedette model rollback` goes to) or kept."
    )


class ModelWorker(Model):
    """The process that runs a model."""

    state: str = Field(
        description="starting, ready, idle, failed, leaving, or refused: it may not be loaded."
    )
    pid: int | None = Field(default=None, description="Process id; null while it is not running.")
    restarts: int = Field(default=0, description="How often it was started again.")
    since: str | None = Field(default=None, description="Since when it is in this state, RFC 3339.")
    error: str | None = Field(default=None, description="Why it failed, if it did.")
    load_millis: float | None = Field(
        default=None, description="How long loading took, in milliseconds."
    )
    memory_bytes: int | None = Field(default=None, description="Memory it has, in bytes.")


class ModelTier(Model):
    """Who answers in place of the node."""

    route: str = Field(description="The route that says so.")
    name: str = Field(description="Name of the tier.")
    url: str = Field(description="Scheme, host and port.")
    model: str = Field(description="Name of the model there.")
    timeout_millis: int = Field(description="How long its answer may take, in milliseconds.")


class ModelStatus(Model):
    """A model of the node: what serves, and what is kept."""

    name: str = Field(description="Name of the model.")
    remote: bool = Field(
        default=False, description="Whether only tiers have it: it has no file and no process here."
    )
    version: int | None = Field(description="The version that serves; null: none does.")
    task: str = Field(description="What it is for.")
    format: ModelFormat | None = Field(description="What its file is; null: only tiers have it.")
    size: int | None = Field(description="Size of its file, in bytes; null: it has none.")
    inputs: tuple[Tensor, ...] = Field(description="What it takes; a dimension 0: any.")
    outputs: tuple[Tensor, ...] = Field(description="What it gives.")
    input: ServedInput | None = Field(
        default=None,
        description="How pictures, sounds or texts become its input; null: they do not.",
    )
    output: ServedOutput | None = Field(
        default=None, description="How its output is read; null: it is not."
    )
    stream: ServedStream | None = Field(
        default=None, description="How it answers events, remembering; null: it does not."
    )
    samples: ServedSamples | None = Field(
        default=None, description="What is kept of what it is asked; null: nothing."
    )
    sessions: int | None = Field(description="Sessions; null: it has no process.")
    threads: int | None = Field(description="Threads of each; null: it has no process.")
    limits: ModelLimits | None = Field(description="What it may use; null: it has no process.")
    url: str | None = Field(description="Where it answers; null: nowhere.")
    routes: tuple[str, ...] = Field(description="Routes that lead to it.")
    tiers: tuple[ModelTier, ...] = Field(
        default=(), description="Who answers in its place, by route, in the order they are asked."
    )
    versions: tuple[ModelVersion, ...] = Field(description="Every version kept, newest first.")
    worker: ModelWorker | None = Field(
        default=None, description="Its process; null: nobody knows of one."
    )
    drift: ModelDrift | None = Field(
        default=None,
        description="Whether what it is asked and answers is as it was; null: nobody knows.",
    )
    manifest: str | None = Field(
        default=None, description="Manifest that it belongs to; null: a command made it."
    )
