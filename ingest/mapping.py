"""What an institution's TOML file says about its database: where it is, how its columns become our words, what its codes mean.

Reads `[source]`, `[cursor]`, `[codes.*]` and `[[system_rules]]`; `[institution]` is core.institutions'. Opens no connection. Every mistake is
found when the file is loaded, with the file and the line. An allow-list: a column that no word is mapped to is never read.
"""

import hashlib
import re
import tomllib
from datetime import time
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from pydantic import BaseModel, Field, ValidationError, field_validator

from clinical.case import Modality, Sex, System
from core import institutions
from core.errors import Invalid
from core.hours import Hours
from core.settings import referenced
from core.states import ReportStatus
from ingest.dialects import Dialect, of_url
from ingest.origin import FileConfig, Part, SqlConfig

FINAL = (ReportStatus.FINAL, ReportStatus.AMENDED)
"""Statuses of a report that somebody has signed."""
Grade = Literal["junior", "intermediate", "senior"]


class CursorConfig(Part):
    """Which of our words order the rows of a database: a time of change and a key that is unique."""

    time: Literal["modified_at", "signed_at", "reported_at", "examined_at"] = "modified_at"
    key: Literal["source_id", "accession"] = "source_id"


class Codes(Part):
    """What the source's values mean. A word with codes refuses every value that is not among them."""

    status: dict[str, ReportStatus]
    sex: dict[str, Sex] = Field(default_factory=lambda: {sex.value: sex for sex in Sex})
    modality: dict[str, Modality] = Field(default_factory=lambda: {modality.value: modality for modality in Modality})
    system: dict[str, System] = Field(default_factory=lambda: {system.value: system for system in System})
    patient_class: dict[str, str] = Field(default_factory=dict)
    grade: dict[str, Grade] = Field(default_factory=dict)

    @field_validator("status")
    @classmethod
    def _has_final(cls, value: dict[str, ReportStatus]) -> dict[str, ReportStatus]:
        if ReportStatus.FINAL not in value.values():
            raise ValueError("no status means final, so nothing would ever be learnt from")
        return value


class SystemRule(Part):
    """A regular expression on a text column that names body systems; every rule that matches adds its own."""

    field: Literal["part", "exam_title"]
    pattern: str
    systems: tuple[System, ...] = Field(min_length=1)

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"this is no regular expression: {error}") from None
        return value


class BackfillConfig(Part):
    """When and how fast old reports are fetched, so that the hospital does not feel it."""

    hours: str | None = Field(None, description="Daily window in the source's zone, such as 22:00-06:00; unset: always")
    rows_per_s: float | None = Field(None, gt=0, description="At most so many rows a second; unset: as fast as it goes")

    @field_validator("hours")
    @classmethod
    def _window(cls, value: str | None) -> str | None:
        if value is not None:
            Hours.of(value)
        return value

    def open_at(self, local: time) -> bool:
        """Whether the window is open at a local time of day."""
        return self.hours is None or Hours.of(self.hours).open_at(local)


class _File(Part):
    source: Annotated[SqlConfig | FileConfig, Field(discriminator="kind")]
    backfill: BackfillConfig = BackfillConfig()
    cursor: CursorConfig = CursorConfig()
    codes: Codes
    system_rules: tuple[SystemRule, ...] = ()


class Mapping(_File):
    """One institution's file, checked. `version` changes with any byte of the file. `home` is the data root, where departments' vocabulary lies."""

    code: str
    language: str
    file: Path
    version: str
    home: Path | None = None

    @property
    def by_time(self) -> frozenset[ReportStatus]:
        """Statuses of which the latest stands, because a signature may be taken back here; of all others the strongest does."""
        if not self.source.unsign and ReportStatus.UNSIGNED not in self.codes.status.values():
            return frozenset()
        reopened = {ReportStatus.UNSIGNED, *([ReportStatus.PRELIMINARY] if self.source.unsign else [])}
        return frozenset(reopened | {ReportStatus.FINAL, ReportStatus.AMENDED})

    def password(self) -> str | None:
        """The database password that the file refers to.

        Raises:
            Invalid: the variable is not set, or the file cannot be read.
        """
        source = self.source
        if isinstance(source, FileConfig):
            return None
        if source.password_env:
            return _referenced(self.file, source.password_env)
        if source.password_file:
            try:
                return (self.file.parent / source.password_file).read_text("utf-8").strip()
            except OSError as error:
                raise Invalid(f"{self.file.name}: password_file cannot be read ({error.strerror}).") from None
        return None

    def address(self) -> sa.URL:
        """The database's address with its password and our driver. Raises Invalid as `password` does."""
        assert isinstance(self.source, SqlConfig)  # noqa: S101 - callers look at the kind first
        text = self.source.url or _referenced(self.file, str(self.source.url_env))
        try:
            url = sa.make_url(text)
            drivername = of_url(url).drivername
        except (sa.exc.ArgumentError, ValueError):
            raise Invalid(
                f"{self.file.name}: {self.source.url_env} holds no database address that we can read."
            ) from None
        password = self.password()
        if password is not None and "odbc_connect" in url.query:
            # the driver manager's own string is passed on as it is, so the password joins it there
            given = str(url.query["odbc_connect"]).rstrip(";")
            quoted = "{" + password.replace("}", "}}") + "}"
            return url.set(drivername=drivername).update_query_dict({"odbc_connect": f"{given};PWD={quoted}"})
        url = url.set(drivername=drivername)
        return url if password is None else url.set(password=password)

    def dialect(self) -> Dialect:
        """What is peculiar to its database. Raises Invalid as `address` does."""
        return of_url(self.address())


def load(path: Path, home: Path | None = None) -> Mapping:
    """The mapping of one institution file; without `home` no department's vocabulary is used.

    Raises:
        Invalid: the file is wrong; the message names file, line and what to change.
    """
    try:
        text = path.read_text("utf-8")
        data = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise Invalid(f"{path.name}: the file is not UTF-8 (byte {error.start}).") from None
    except tomllib.TOMLDecodeError as error:
        raise Invalid(f"{path.name}: {error}") from None
    institution = data.pop("institution", {})
    try:
        parts = _File.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        location = first["loc"]
        if location[:1] == ("source",):
            location = location[:1] + location[2:]  # the second step is the kind by which the model was chosen
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = _unknown(str(location[-1]), _settings_at(location[:-1], data))
        raise Invalid(f"{path.name}:{_line(text, location)}: {'.'.join(map(str, location))}: {message}") from None
    return Mapping(
        **dict(parts),
        code=str(institution.get("code", "")),
        language=str(institution.get("language", "zh-Hans")),
        file=path,
        version=hashlib.sha256(text.encode()).hexdigest()[:12],
        home=home,
    )


def with_source(folder: Path) -> dict[str, Path]:
    """The institution files of a folder that describe a source, by code: an institution may also send requests and be read by nobody.

    The rest of a file is not looked at, so that one that is wrong does not hide the others.
    """
    profiles, _ = institutions.look(folder)
    return {
        profile.code: path for path, profile in profiles.items() if "source" in tomllib.loads(path.read_text("utf-8"))
    }


def _unknown(key: str, allowed: list[str]) -> str:
    near = get_close_matches(key, allowed, 1)
    return (
        f"there is no such setting; did you mean {near[0]}?"
        if near
        else f"there is no such setting; there are {', '.join(allowed)}"
    )


def _settings_at(location: tuple[Any, ...], data: dict[str, Any]) -> list[str]:
    """The settings of the table at `location`."""
    if location[:1] == ("source",):
        kind = data.get("source", {}).get("kind")
        return list((SqlConfig if kind == "sql" else FileConfig).model_fields)
    tables: dict[Any, type[BaseModel]] = {
        "cursor": CursorConfig,
        "codes": Codes,
        "backfill": BackfillConfig,
        "system_rules": SystemRule,
    }
    return list((tables[location[0]] if location else _File).model_fields)


def _referenced(file: Path, name: str) -> str:
    value = referenced(name)
    if not value:
        raise Invalid(f"{file.name}: the environment variable {name} is not set.")
    return value


def _line(text: str, location: tuple[Any, ...]) -> int:
    """The line of a TOML file at which the value at `location` stands, or the nearest table above it."""
    tables = [str(step) for step in location if isinstance(step, str)]
    index = next((step for step in location if isinstance(step, int)), 0)
    best, here, seen = 1, "", -1
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[(\[?)\s*([^\]]+?)\s*\]", line):
            here = header[2].replace('"', "")
            seen += here == tables[0] and bool(header[1])
            if tables[: here.count(".") + 1] == here.split(".") and (not header[1] or seen == index):
                best = number
        elif key := re.match(r"\s*(\"[^\"]*\"|'[^']*'|[^=\s#]+)\s*=", line):
            path = [*here.split("."), key[1].strip("\"'")]
            if path == tables[: len(path)] and (seen < 0 or here != tables[0] or seen == index):
                best = number
    return best
