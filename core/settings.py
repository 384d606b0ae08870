"""One small frozen class per process, read once at its entry point and passed down; nothing else reads the environment.

Every variable is `VALUER_` and the field's name in capitals; `.env.example` lists them all, and a test holds it to that.
"""

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.hours import Hours


class Settings(BaseSettings):
    """What every process needs: where its data, servers, institutions and keys are."""

    model_config = SettingsConfigDict(env_prefix="VALUER_", frozen=True, extra="ignore", env_ignore_empty=True)

    home: Path = Field(Path(".valuer"), description="Data root: embedded servers, models, datasets, keys, logs")
    database_url: SecretStr | None = Field(
        None, description="PostgreSQL 15 or newer, postgresql://user:password@host/name; unset: embedded"
    )
    broker_url: SecretStr | None = Field(
        None, description="redis:// or amqp:// of the doorbell; unset: embedded Valkey"
    )
    model: str = Field("demo", description="Base model: a local directory, a hub id, or `demo`")
    institutions: Path | None = Field(None, description="Folder of institution files; unset: $VALUER_HOME/institutions")
    key_file: Path | None = Field(
        None, description="Master key for pseudonyms and sealed identities, mode 0600; unset: $VALUER_HOME/master.key"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Level of the JSON logs on standard error"
    )

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @property
    def institutions_dir(self) -> Path:
        """The folder of institution files."""
        return self.institutions or self.home / "institutions"

    @property
    def master_key_file(self) -> Path:
        """The file of the master key."""
        return self.key_file or self.home / "master.key"

    @property
    def models_dir(self) -> Path:
        """Where adapters and imported base models live, one directory each."""
        return self.home / "models"


class QueueSettings(Settings):
    """Lanes, leases and retries; shared by the doors, the workers and the clerk."""

    lease_s: float = Field(60.0, gt=0, description="Seconds a worker's lease lasts without a heartbeat")
    heartbeat_s: float = Field(15.0, gt=0, description="Seconds between heartbeats of a lease")
    ring_again_s: float = Field(
        30.0, gt=0, description="Seconds after which the clerk rings again for a waiting request"
    )
    max_attempts: int = Field(3, ge=1, description="Crashed attempts after which a request needs a human")
    urgent_offset_s: float = Field(300.0, ge=0, description="An urgent request is due this long after acceptance")
    routine_offset_s: float = Field(1800.0, ge=0, description="A routine request is due this long after acceptance")


class WorkerSettings(QueueSettings):
    """The drafting worker and its model."""

    engine: Literal["cb", "generate", "static", "openai"] = Field(
        "cb",
        description="Engine: continuous batching, plain batched generate, fixed places, or a server that speaks OpenAI's protocol",
    )
    engine_url: str | None = Field(None, description="With openai: address of the model's server, before /v1")
    engine_model: str = Field("base", description="With openai: the name of the bare base model on that server")
    engine_key: SecretStr | None = Field(None, description="With openai: the key that the server asks for")
    engine_hosts: str = Field(
        "", description="With openai: hosts beside loopback that findings may be sent to, with commas between"
    )
    weights: Literal["nf4+adapter", "bf16-merged"] = Field(
        "nf4+adapter", description="Form of the weights that serve; bf16-merged only for a model evaluated in that form"
    )
    in_flight: int = Field(8, ge=1, le=512, description="Requests that one worker drafts at once")
    stat_threads: int = Field(2, ge=0, description="Threads beside them that take stat requests only")
    max_new_tokens: int = Field(
        128, ge=1, le=4096, description="Longest draft in tokens; unset with VALUER_DECODING=paper: 512, as the paper's"
    )
    max_input_tokens: int = Field(
        3968,
        ge=64,
        description="Longest prompt in tokens; what is longer is withheld as too_long, never cut. `valuer models tokens` shows what fits",
    )
    deadline_s: float = Field(
        120.0,
        gt=0,
        description="Seconds one draft may take at the most; where the last ones were fast, ten times their median",
    )
    decoding: Literal["clinical", "paper"] = Field(
        "clinical", description="clinical: greedy, then rising temperature; paper: temperature 1.0, top-k 50, top-p 1.0"
    )
    device: str = Field("auto", description="auto, cpu, or a CUDA device such as cuda:0")
    torch_threads: int = Field(0, ge=0, description="CPU threads of torch; 0 leaves torch's own choice")

    @model_validator(mode="before")
    @classmethod
    def _paper_length(cls, given: dict[str, Any]) -> dict[str, Any]:
        return {"max_new_tokens": 512, **given} if given.get("decoding") == "paper" else given


class WorklistSettings(QueueSettings):
    """The doors: HTTP and the page."""

    host: str = Field("127.0.0.1", description="Address the worklist listens on")
    port: int = Field(8087, ge=1, le=65535, description="Port the worklist listens on")
    public_url: str | None = Field(
        None, description="Address under which people reach the page, when a proxy stands before it"
    )
    session_minutes: int = Field(480, ge=5, description="Minutes a person's session lasts without use")
    cookie_secure: bool = Field(
        False, description="Send the session cookie over HTTPS only; set it wherever the page is not on loopback"
    )


class IngestSettings(Settings):
    """The ingest service."""

    poll_s: float = Field(
        60.0, gt=0, description="Seconds between polls of an institution whose file names no schedule"
    )
    poll_deadline_s: float = Field(120.0, gt=0, description="Seconds after which a poll's child process is killed")
    duplicates_hours: str = Field(
        "01:00-05:00",
        description="Daily window, by this machine's clock, in which nearly equal reports are looked for; never: by command only",
    )

    @field_validator("duplicates_hours")
    @classmethod
    def _window(cls, value: str) -> str:
        if value != "never":
            Hours.of(value)
        return value


class ClerkSettings(QueueSettings):
    """The clerk."""

    tick_s: float = Field(1.0, gt=0, description="Seconds between the clerk's rounds")


class TrainingSettings(Settings):
    """The training worker."""

    training_device: str = Field("auto", description="auto, cpu, or a CUDA device such as cuda:0")
    training_threads: int = Field(
        0, ge=0, description="CPU threads of torch while training; 0 leaves torch's own choice"
    )
    training_processes: int = Field(
        1, ge=1, le=64, description="Processes of one training run; with the device auto each has a card of its own"
    )
    yield_s: float = Field(
        20.0, ge=0, description="Training saves and stands back while a request waits longer than this; 0: never"
    )
    notice_command: str | None = Field(
        None, description="Command that is told how a run ended, as JSON on its standard input"
    )
    notice_url: str | None = Field(None, description="Webhook that is told the same")


ALL = (Settings, QueueSettings, WorkerSettings, WorklistSettings, IngestSettings, ClerkSettings, TrainingSettings)
"""Every settings class, for the test that holds `.env.example` to them."""


def referenced(name: str) -> str | None:
    """The environment variable that an institution file refers to by `url_env` or `password_env`, or None."""
    return os.environ.get(name)
