"""The model pool as data: the paper's fifteen rows and their successors, and which of them can run here. Opens nothing and fetches nothing.

A department says in `$VALUER_HOME/pool.toml` where its models are; what is not there is skipped with the reason. An endpoint outside of
this machine needs to be allowed each time, and its texts are looked through for identities before they leave (`training.chat`).
"""

import os
import tomllib
from dataclasses import dataclass, field, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from core.errors import Invalid

FILE = "pool.toml"
CRITERIA = ("domain", "standards", "bilingual", "open_source", "efficiency", "cost")
"""The paper's reasons to choose a model: domain adaptability, medical standards, bilingual, open source, parameter efficiency, cost and licence."""
EXERCISED = ("llama", "falcon", "glm4", "qwen3", "gemma3")
"""Architectures that the tests run through the pool with a tiny random model; of any other a row says that it was not exercised."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class Row:
    """One model. `prompt`: plain text, or a turn of a conversation in the model's own template. `verified`: what of source and licence was seen
    where the model is published. `paper_*` are published figures of Table 8."""

    name: str
    kind: str
    source: str
    architecture: str
    prompt: str
    licence: str
    parameters: str
    criteria: dict[str, str] = field(default_factory=dict)
    note: str = ""
    verified: str = ""
    successor_of: str = ""
    path: str = ""
    version: str = ""
    url: str = ""
    key_env: str = ""
    paper_hours: float | None = None
    paper_seconds: float | None = None

    @property
    def leaves(self) -> bool:
        """Its server is not on this machine."""
        return self.kind == "endpoint" and urlsplit(self.url).hostname not in LOOPBACK

    @property
    def exercised(self) -> str:
        """Whether the tests have run such a model, in a sentence."""
        if self.kind == "endpoint":
            return "the endpoint kind is exercised against a local server; this model is not"
        known = self.architecture in EXERCISED
        return f"{self.architecture} {'is exercised with a tiny random model' if known else 'was not exercised'}"


def rows(home: Path) -> tuple[Row, ...]:
    """Every row, as `home`/pool.toml completes it: its rows change those of the same name and add others.

    Raises:
        Invalid: that file is not valid; the message names it.
    """
    known = {row.name: row for row in _read(files("training").joinpath(FILE).read_text("utf-8"), {})}
    own = home / FILE
    if own.exists():
        known |= {row.name: row for row in _read(own.read_text("utf-8"), known)}
    return tuple(known.values())


def of_paper() -> dict[str, Row]:
    """The paper's rows by name, with its published figures."""
    shipped = _read(files("training").joinpath(FILE).read_text("utf-8"), {})
    return {row.name: row for row in shipped if row.paper_seconds is not None}


def skipped(row: Row, *, offered: set[str], active: str | None, leave_network: bool) -> str | None:
    """Why the row cannot run here, in a sentence that says what to do; None when it can. `offered` are the registered versions."""
    match row.kind:
        case "version":
            wanted = row.version or (active if row.name == "ChatRadio-Valuer" else "")
            if not wanted:
                return f'no version of ours on {row.source}: train one and name it as version = "…" in {FILE}'
            return None if wanted in offered else f"there is no model version {wanted} here"
        case "local":
            return (
                None
                if located(row)
                else f'not on this machine: put it into the hub cache or name its path = "…" in {FILE}'
            )
        case _:
            if not row.url:
                return f'no server is named: url = "…" in {FILE}'
            if row.leaves and not leave_network:
                return f"{urlsplit(row.url).hostname} is outside of this machine: --leave-network allows it"
            if row.key_env and not os.environ.get(row.key_env):
                return f"its key is not in the environment variable {row.key_env}"
            return None


def located(row: Row) -> Path | None:
    """Where the row's weights lie: the path that is named, or the hub's cache, never the network."""
    if row.path:
        return Path(row.path) if Path(row.path).is_dir() else None
    if row.source == "demo":
        return None  # imported from its package by whoever opens it
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        found = Path(snapshot_download(row.source, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    return found if any(found.glob("*.safetensors")) else None


def _read(text: str, known: dict[str, Row]) -> list[Row]:
    names = {each.name for each in fields(Row)}
    try:
        entries: list[dict[str, Any]] = tomllib.loads(text).get("row", [])
    except tomllib.TOMLDecodeError as error:
        raise Invalid(f"{FILE}: {error}") from None
    found = []
    for entry in entries:
        unknown = sorted(set(entry) - names)
        if unknown or "name" not in entry:
            raise Invalid(
                f"{FILE}: a row has {unknown[0] if unknown else 'no name'}; it has {', '.join(sorted(names))}."
            )
        before = known.get(entry["name"])
        try:
            found.append(replace(before, **entry) if before else Row(**entry))
        except TypeError:
            missing = {"kind", "source", "architecture", "prompt", "licence", "parameters"} - set(entry)
            raise Invalid(f"{FILE}: the row {entry['name']} lacks {', '.join(sorted(missing))}.") from None
        if found[-1].kind not in ("local", "version", "endpoint") or found[-1].prompt not in ("plain", "chat"):
            raise Invalid(f"{FILE}: {entry['name']}: kind is local, version or endpoint; prompt is plain or chat.")
    return found
