"""What an institution's TOML file says about its database: where it is, how its columns become our words, what its codes mean.

Reads `[source]`, `[cursor]`, `[codes.*]` and `[[system_rules]]`; `[institution]` is core.institutions'. Opens no connection. Every mistake is
found when the file is loaded, with the file and the line. An allow-list: a column that no word is mapped to is never read.
"""

import hashlib
import re
import tomllib
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from clinical.case import Modality, Sex, System
from core.errors import Invalid
from core.settings import referenced
from core.states import ReportStatus

WORDS = frozenset(
    {
        "source_id", "accession", "patient", "status", "findings", "impression", "report_text", "exam_title", "modality", "system", "part",
        "sex", "age", "patient_class", "history", "prior_impression", "author", "author_grade", "reviewer", "reviewer_grade",
        "examined_at", "reported_at", "signed_at", "modified_at",
        "known_name", "known_card", "known_phone", "known_number",
    }
)  # fmt: skip
"""Our words for a source's columns. `report_text` holds findings and impression in one; `system` is a code, `part` a text for the rules; the
`known_*` ones serve only to take the patient's own name and numbers out of the texts and are never stored."""

REQUIRED = ("source_id", "status")
DIALECTS = {
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mysql+pymysql",
}
"""Databases that a live server has proved; the scheme of a source's address and the driver we read it with."""

Grade = Literal["junior", "intermediate", "senior"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Source(_Part):
    timezone: str = Field("Asia/Shanghai", description="Zone of times that carry none")
    time_format: str | None = Field(None, description="strptime format of times that are text; unset: ISO 8601")
    charset: Literal["utf-8", "gbk", "gb18030", "big5"] = Field(
        "utf-8", description="Charset of files, and of columns that arrive as bytes"
    )
    every_s: float | None = Field(None, gt=0, description="Seconds between polls; unset: VALUER_POLL_S")
    overlap_s: float = Field(
        72 * 3600, ge=0, description="How far back of the cursor each poll looks again, for rows committed late"
    )
    settle_s: float = Field(60, ge=0, description="Rows younger than this are left for the next poll")

    @field_validator("timezone")
    @classmethod
    def _zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError(f"{value} is no time zone") from None
        return value

    @property
    def zone(self) -> ZoneInfo:
        """The time zone as an object."""
        return ZoneInfo(self.timezone)

    def moment(self, value: Any) -> datetime:
        """A time of the source in UTC: a datetime or a date, or either as text. Raises ValueError for anything else."""
        if isinstance(value, str):
            value = datetime.strptime(value, self.time_format) if self.time_format else datetime.fromisoformat(value)  # noqa: DTZ007
        if isinstance(value, date) and not isinstance(value, datetime):
            value = datetime.combine(value, time())
        if not isinstance(value, datetime):
            raise ValueError(f"{type(value).__name__} is no time")
        return (value if value.tzinfo else value.replace(tzinfo=self.zone)).astimezone(UTC)

    def written(self, moment: datetime) -> str:
        """A time as the source's text columns write it."""
        local = moment.astimezone(self.zone).replace(tzinfo=None)
        return local.strftime(self.time_format) if self.time_format else local.isoformat(sep=" ")


class SqlConfig(_Source):
    """A database that we may read. Its password comes from the environment or a file, never from here."""

    kind: Literal["sql"]
    url: str | None = Field(None, description="postgresql:// or mariadb:// without a password")
    url_env: str | None = Field(None, description="Environment variable that holds the whole address")
    password_env: str | None = Field(None, description="Environment variable that holds the password")
    password_file: Path | None = Field(None, description="File that holds the password, relative to this one")
    sql: str = Field(description="SELECT whose columns are named by our words")

    @model_validator(mode="after")
    def _one_address(self) -> "SqlConfig":
        if (self.url is None) == (self.url_env is None):
            raise ValueError("[source] needs either url or url_env")
        if self.password_env and self.password_file:
            raise ValueError("[source] needs at most one of password_env and password_file")
        return self

    @field_validator("url")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            parsed = sa.make_url(value)
        except sa.exc.ArgumentError:
            raise ValueError("this is no database address") from None
        if parsed.password is not None:
            raise ValueError("a password may not stand here; use password_env, password_file or url_env")
        _supported(parsed)
        return value

    @field_validator("sql")
    @classmethod
    def _select(cls, value: str) -> str:
        plain = re.sub(r"--[^\n]*", " ", value)
        if not re.match(r"\s*(select|with)\b", plain, re.IGNORECASE) or ";" in plain.rstrip().rstrip(";"):
            raise ValueError("this must be one SELECT")
        for word in REQUIRED:
            if not re.search(rf"\b{word}\b", plain):
                raise ValueError(f"no column is named {word}")
        return value.strip().rstrip(";")


class FileConfig(_Source):
    """A folder into which the hospital drops exports."""

    kind: Literal["files"]
    path: Path = Field(description="The folder, relative to this file")
    pattern: str = Field("*", description="Which files of the folder")
    format: Literal["csv", "jsonl"]
    delimiter: str = Field(",", min_length=1, max_length=1)
    columns: dict[str, str] = Field(description="Our word = the file's column")

    @field_validator("columns")
    @classmethod
    def _words(cls, value: dict[str, str]) -> dict[str, str]:
        for word in value:
            if word not in WORDS:
                raise ValueError(f"we have no word {word}; the words are {', '.join(sorted(WORDS))}")
        for word in REQUIRED:
            if word not in value:
                raise ValueError(f"no column is mapped to {word}")
        return value


class CursorConfig(_Part):
    """Which of our words order the rows of a database: a time of change and a key that is unique."""

    time: Literal["modified_at", "signed_at", "reported_at", "examined_at"] = "modified_at"
    key: Literal["source_id", "accession"] = "source_id"


class Codes(_Part):
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


class SystemRule(_Part):
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


class _File(_Part):
    source: Annotated[SqlConfig | FileConfig, Field(discriminator="kind")]
    cursor: CursorConfig = CursorConfig()
    codes: Codes
    system_rules: tuple[SystemRule, ...] = ()


class Mapping(_File):
    """One institution's file, checked. `version` changes with any byte of the file."""

    code: str
    language: str
    file: Path
    version: str

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
            drivername = _supported(url)
        except (sa.exc.ArgumentError, ValueError):
            raise Invalid(
                f"{self.file.name}: {self.source.url_env} holds no database address that we can read."
            ) from None
        password = self.password()
        url = url.set(drivername=drivername)
        return url if password is None else url.set(password=password)


def load(path: Path) -> Mapping:
    """The mapping of one institution file.

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
        raise Invalid(f"{path.name}:{_line(text, location)}: {'.'.join(map(str, location))}: {message}") from None
    return Mapping(
        **dict(parts),
        code=str(institution.get("code", "")),
        language=str(institution.get("language", "zh-Hans")),
        file=path,
        version=hashlib.sha256(text.encode()).hexdigest()[:12],
    )


def with_source(folder: Path) -> dict[str, Path]:
    """The institution files of a folder that describe a source, by code: an institution may also send requests and be read by nobody.

    The rest of a file is not looked at, so that one that is wrong does not hide the others.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.toml")) if folder.is_dir() else ():
        data = tomllib.loads(path.read_text("utf-8"))
        if "source" in data:
            found[str(data["institution"]["code"])] = path
    return found


def _supported(url: sa.URL) -> str:
    scheme = url.drivername.split("+")[0]
    if scheme not in DIALECTS:
        raise ValueError(f"{scheme} is not read yet; {', '.join(DIALECTS)} are")
    return DIALECTS[scheme]


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
