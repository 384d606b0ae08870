"""The `[source]` table of an institution's file: where its reports are and how they are written; and our words for their columns.

Validated on its own; `ingest.mapping` puts it together with the rest of the file and says at which line a mistake stands.
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, date, datetime, time
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ingest.dialects import of_url

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
TEXTS = ("findings", "impression", "report_text", "history", "prior_impression")
SHEET = "@sheet"
"""The column name that stands for the name of an Excel file's sheet."""

Charset = Literal["utf-8", "gbk", "gb18030", "big5"]


class Part(BaseModel):
    """One table of the file: no setting but those it names."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Source(Part):
    timezone: str = Field("Asia/Shanghai", description="Zone of times that carry none")
    time_format: str | tuple[str, ...] | None = Field(
        None, description="strptime format of times that are text, or several, the cursor's first; unset: ISO 8601"
    )
    charset: Charset = Field("utf-8", description="Charset of files, and of columns that arrive as bytes")
    decode: dict[str, Charset] = Field(
        default_factory=dict, description="Our word = charset of its column's bytes, whatever the database takes it for"
    )
    widths: dict[Literal["findings", "impression", "report_text"], int] = Field(
        default_factory=dict,
        description="Our word = what its column holds, in characters or bytes: a text as long may be cut and never trains",
    )
    every_s: float | None = Field(None, gt=0, description="Seconds between polls; unset: VALUER_POLL_S")
    overlap_s: float = Field(
        72 * 3600, ge=0, description="How far back of the cursor each poll looks again, for rows committed late"
    )
    settle_s: float = Field(60, ge=0, description="Rows younger than this are left for the next poll")
    live_from: date | None = Field(
        None,
        description="First day that polls read; what is older comes by `valuer ingest backfill`. Unset: everything",
    )
    unsign: bool = Field(
        False, description="Whether a preliminary that is newer than the final report takes the signature back"
    )

    @field_validator("timezone")
    @classmethod
    def _zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError(f"{value} is no time zone") from None
        return value

    @field_validator("time_format")
    @classmethod
    def _formats(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        for each in _listed(value):
            if "%" not in each:
                raise ValueError(f"{each} is no strptime format, such as %Y%m%d%H%M%S")
        return value

    @field_validator("decode")
    @classmethod
    def _decoded_words(cls, value: dict[str, str]) -> dict[str, str]:
        _known(value)
        return value

    def charset_of(self, word: str) -> str:
        """The charset of the bytes of a word's column."""
        return self.decode.get(word, self.charset)

    @property
    def zone(self) -> ZoneInfo:
        """The time zone as an object."""
        return ZoneInfo(self.timezone)

    def moment(self, value: Any) -> datetime:
        """A time of the source in UTC: a datetime or a date, or either as text. Raises ValueError for anything else."""
        if isinstance(value, str):
            value = _parsed(value, _listed(self.time_format))
        if isinstance(value, date) and not isinstance(value, datetime):
            value = datetime.combine(value, time())
        if not isinstance(value, datetime):
            raise ValueError(f"{type(value).__name__} is no time")
        return (value if value.tzinfo else value.replace(tzinfo=self.zone)).astimezone(UTC)

    def written(self, moment: datetime) -> str:
        """A time as the source's text columns write it."""
        local = moment.astimezone(self.zone).replace(tzinfo=None)
        return local.strftime(_listed(self.time_format)[0]) if self.time_format else local.isoformat(sep=" ")


class SqlConfig(_Source):
    """A database that we may read. Its password comes from the environment or a file, never from here."""

    kind: Literal["sql"]
    url: str | None = Field(
        None, description="postgresql://, mysql://, mariadb://, mssql://, oracle:// or odbc://, without a password"
    )
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
        if (
            self.url is not None
            and not of_url(sa.make_url(self.url)).nests_with
            and _plain(self.sql).startswith("with")
        ):
            raise ValueError("SQL Server nests no WITH: make it a view, or a subquery in FROM")
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
        of_url(parsed)
        return value

    @field_validator("sql")
    @classmethod
    def _select(cls, value: str) -> str:
        plain = _plain(value)
        if not re.match(r"(select|with)\b", plain) or ";" in plain.rstrip(";"):
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
    format: Literal["csv", "jsonl", "excel"]
    delimiter: str = Field(",", min_length=1, max_length=1)
    columns: dict[str, str | tuple[str, ...]] = Field(
        description="Our word = the file's column, or several names that it goes by"
    )
    constants: dict[str, str] = Field(default_factory=dict, description="Our word = the value that every row has")
    optional: tuple[str, ...] = Field((), description="Words whose column a file or sheet may lack")
    skip_sheets: tuple[str, ...] = Field((), description="Sheets that hold no reports")

    @field_validator("columns")
    @classmethod
    def _words(cls, value: dict[str, str | tuple[str, ...]]) -> dict[str, str | tuple[str, ...]]:
        _known(value)
        if empty := [word for word, names in value.items() if not _listed(names)]:
            raise ValueError(f"no column is named for {empty[0]}")
        return value

    @model_validator(mode="after")
    def _complete(self) -> "FileConfig":
        _known(self.constants)
        if twice := sorted(set(self.columns) & set(self.constants)):
            raise ValueError(f"{twice[0]} is both a column and a constant")
        for word in REQUIRED:
            if word not in self.columns and word not in self.constants:
                raise ValueError(f"no column is mapped to {word}")
        if self.constants.keys() & {"source_id"}:
            raise ValueError("source_id cannot be the same for every row")
        if strange := sorted(set(self.optional) - set(self.columns) | set(self.optional) & set(REQUIRED)):
            raise ValueError(f"{strange[0]} cannot be optional")
        if self.format != "excel" and (self.skip_sheets or SHEET in self.names()):
            raise ValueError(f"only excel files have sheets ({SHEET}, skip_sheets)")
        return self

    def names_of(self, word: str) -> tuple[str, ...]:
        """The column names that a word goes by, the first that is there counts."""
        return _listed(self.columns[word])

    def names(self) -> set[str]:
        """Every column name that some word goes by."""
        return {name for names in self.columns.values() for name in _listed(names)}

    def places(self, header: list[str]) -> tuple[dict[str, int | None], list[str]]:
        """Where each word's column stands in a header line (None: it may be missing, or it is the sheet's name), and the words whose column is not there."""
        found: dict[str, int | None] = {}
        missing = []
        for word, names in self.columns.items():
            place = next((header.index(name) for name in _listed(names) if name in header), None)
            if place is None and word not in self.optional and SHEET not in _listed(names):
                missing.append(word)
            found[word] = place
        return found, missing


def _listed(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return () if value is None else (value,) if isinstance(value, str) else value


def _known(words: Iterable[str]) -> None:
    for word in words:
        if word not in WORDS:
            near = get_close_matches(word, WORDS, 1)
            hint = f"did you mean {near[0]}? The" if near else "the"
            raise ValueError(f"we have no word {word}; {hint} words are {', '.join(sorted(WORDS))}")


def _parsed(text: str, formats: tuple[str, ...]) -> datetime:
    if not formats:
        return datetime.fromisoformat(text)
    for each in formats[:-1]:
        with suppress(ValueError):
            return datetime.strptime(text, each)  # noqa: DTZ007 - the caller gives it its zone
    return datetime.strptime(text, formats[-1])  # noqa: DTZ007


def _plain(sql: str) -> str:
    return re.sub(r"--[^\n]*", " ", sql).strip().lower()
