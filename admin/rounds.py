"""The demo's actors: six pretend hospitals, their reporting systems, and one pretend radiologist, at work over the real doors."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import httpx
import sqlalchemy as sa
from sqlmodel import col, select

from clinical.score import SCORER_VERSION
from core import db, embedded, registry, sign_offs
from core.errors import Broken
from core.settings import WorklistSettings
from core.states import RequestState
from core.tables import DraftRequest, Quarantine, Report, ScoreRow, SignOff
from ingest import standing as reading
from sandbox import generator, hospitals
from sandbox.facts import PretendReport
from worklist import access

SCALE, SEED = 0.001, 20
PER_HOUSE = 5
"""Requests of each hospital: two are signed over the API, two in its own system, one is left for whoever watches."""
HOUSES = (1, 2, 3, 4, 5, 6)
RADIOLOGIST = "demo"
BY = "process:demo"
MODEL = Path(__file__).parents[1] / "worker" / "demo_adapter"
"""The shipped demo adapter with its manifest."""
BARE = "demo-bare"
"""The base model without an adapter, as a version of its own: it loops, and the checks withhold it."""
EXAMPLE = json.dumps(
    {
        "institution": "sandbox-1",
        "accession": "MY-1",
        "modality": "CT",
        "body_part": "胸部",
        "patient": {"id": "MY-1", "sex": "F", "age": 61},
        "findings": "右肺上叶见一结节，大小约8mm×6mm，边缘光滑。余肺未见明显异常。",
        "priority": "stat",
    },
    ensure_ascii=False,
)


class Rounds:
    """One run of the demo over a home. `steps` are repeated until each says that it is done."""

    def __init__(self, settings: WorklistSettings, servers: embedded.Servers, mariadb: str | None) -> None:
        self._settings, self._servers, self._mariadb = settings, servers, mariadb
        self._engine = db.connect(servers.database_url, pool_size=2, application="demo")
        self._http = httpx.Client(base_url=f"http://{settings.host}:{settings.port}", timeout=30, trust_env=False)
        self._asked: dict[UUID, PretendReport] = {}
        self._secrets: dict[str, str] = {}
        self._chosen: list[PretendReport] = []
        self._began: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()
        self._engine.dispose()

    def build(self) -> str:
        """The six hospitals with their past, and the examinations that wait for an impression."""
        reports = list(generator.generate("demo", scale=SCALE, seed=SEED, houses=HOUSES))
        self._chosen = list(_choose(reports))
        asked = {(report.house, report.accession) for report in self._chosen}
        past = [
            report
            for report in reports
            if not asked
            & {(report.house, each) for each in (report.accession, report.duplicate_of, report.addendum_to)}
        ]
        home, server = self._settings.home, self._servers.database_url
        built = hospitals.build(home, past, postgres_url=server, mariadb_url=self._mariadb)
        hospitals.pending(home, self._chosen, postgres_url=server, mariadb_url=self._mariadb)
        with db.transaction(self._engine) as session:
            self._began = db.database_now(session)
        kinds = ", ".join(f"{each.code} ({each.kind})" for each in built)
        return f"Six pretend hospitals hold {len(past)} reports, and {len(self._chosen)} examinations wait: {kinds}."

    def install_model(self, *, bare: bool = False) -> None:
        """The shipped adapter and the base without one among this home's models; serving where nothing serves yet: the adapter, or with
        `bare` the base alone.
        """
        manifest = registry.read_manifest(MODEL)
        adapter = self._settings.models_dir / manifest["id"]
        if not adapter.exists():
            staged = _staged(adapter)
            shutil.copytree(MODEL, staged)
            staged.replace(adapter)
        base = self._settings.models_dir / BARE
        if not base.exists():
            staged = _staged(base)
            staged.mkdir(parents=True)
            without = {
                **manifest,
                "id": BARE,
                "adapter": None,
                "files": {},
                "training": {},
                "metrics": {},
                "golden": None,
            }
            (staged / registry.MANIFEST).write_text(json.dumps(without, ensure_ascii=False, indent=1), "utf-8")
            staged.replace(base)
        with db.transaction(self._engine) as session:
            for each in (adapter, base):
                registry.register(session, each)
            if registry.EVERYONE not in registry.pointers(session):
                registry.promote(session, BARE if bare else manifest["id"], BY, reason="demo")

    def steps(self) -> Iterator[tuple[str, Callable[[], bool]]]:
        """What happens, in order: a title, and a look that says whether it is done."""
        yield "Ingest reads the six hospitals", self._ingested
        yield "The worklist opens its doors", self._open
        self._secrets = self._let_in()
        for report in self._chosen:
            self._ask(report)
        yield (
            f"{len(self._asked)} held-out reports were sent in; the worker drafts (the first time it imports the model)",
            (self._settled),
        )
        for number, (request, report) in enumerate(self._asked.items()):
            if number % PER_HOUSE in (0, 1):
                self._sign(request, report)
        yield (
            "The pretend radiologist signed on the API; the hospitals' systems sign theirs and ingest sees it",
            (self._signed_by_hospitals()),
        )
        yield "The scorer compares drafts and signatures", self._scored

    def result(self) -> dict[str, Any]:
        """The figures of this home's demo; `drafted` + `withheld` = `requests`."""
        with db.transaction(self._engine) as session:
            rows = session.exec(select(DraftRequest).where(col(DraftRequest.id).in_(self._asked))).all()
            ingested = session.execute(sa.select(sa.func.count()).select_from(Report)).scalar_one()
            open_rows = sa.select(sa.func.count()).select_from(Quarantine).where(col(Quarantine.resolved_at).is_(None))
            quarantined = session.execute(open_rows).scalar_one()
            newest = (
                select(SignOff.request_id, ScoreRow.r1, ScoreRow.r2, ScoreRow.rl)
                .join(ScoreRow, col(ScoreRow.sign_off_id) == col(SignOff.id))
                .where(col(SignOff.request_id).in_(self._asked), col(ScoreRow.scorer).startswith(SCORER_VERSION))
                .distinct(col(SignOff.request_id))
                .order_by(col(SignOff.request_id), col(SignOff.version).desc())
            )
            scores = session.execute(newest).all()
        drafted = [row for row in rows if row.draft_version is not None]
        return {
            "ingested": ingested,
            "quarantined": quarantined,
            "requests": len(rows),
            "drafted": len(drafted),
            "withheld": len(rows) - len(drafted),
            "signed": sum(row.state is RequestState.SIGNED for row in rows),
            "scored": len(scores),
            "rouge": {
                name: round(sum(getattr(score, name) for score in scores) / max(len(scores), 1), 4)
                for name in ("r1", "r2", "rl")
            },
        }

    def way_in(self) -> tuple[str, str]:
        """A one-time sign-in path for the pretend radiologist, and the API key of hospital 1."""
        with db.transaction(self._engine) as session:
            link = access.create_link(session, access.find_user(session, RADIOLOGIST), by=BY)
        return link, self._secrets["sandbox-1"]

    # --- the steps ------------------------------------------------------------------------------------------------

    def _ingested(self) -> bool:
        with db.transaction(self._engine) as session:
            standing = [each for each in reading.status(session) if each["sandbox"]]
        failed = [f"{each['name']}: {each['failure']}" for each in standing if each["failure"]]
        if failed:
            raise Broken(f"Ingest failed: {', '.join(failed)}.")
        began = self._began.isoformat()
        return len(standing) == len(HOUSES) and all((each["polled_at"] or "") > began for each in standing)

    def _open(self) -> bool:
        try:
            return self._http.get("/healthz").is_success
        except httpx.TransportError:
            return False

    def _let_in(self) -> dict[str, str]:
        """Keys of the reporting systems and a token of the radiologist; made once per home, kept in a 0600 file."""
        file = self._settings.home / "demo-secrets.json"
        if file.exists():
            kept: dict[str, str] = json.loads(file.read_text())
            return kept
        with db.transaction(self._engine) as session:
            made = {
                code: access.create_key(session, f"demo: {code}", "system", code, by=BY)
                for code in (f"sandbox-{house}" for house in HOUSES)
            }
            if all(user.login != RADIOLOGIST for user in access.list_users(session)):
                access.create_user(session, RADIOLOGIST, "演示医师", by=BY, grade="senior")
            made[RADIOLOGIST] = access.create_token(session, access.find_user(session, RADIOLOGIST), by=BY)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as output:
            json.dump(made, output)
        return made

    def _ask(self, report: PretendReport) -> None:
        code = f"sandbox-{report.house}"
        body = {
            "institution": code,
            "accession": report.accession,
            "modality": report.modality,
            "exam_title": report.exam_title,
            "patient": {"id": report.person.id, "sex": report.sex, "age": report.age},
            "patient_class": report.patient_class,
            "history": report.history,
            "author": report.author.id,
            "language": report.language,
            "findings": report.findings,
            "priority": "stat" if report.patient_class == "emergency" else "routine",
        }
        answer = self._http.post("/v1/requests", json=body, headers=self._as(code))
        if not answer.is_success:
            raise Broken(f"The door refused a report of {code}: {answer.json()['error']}.")
        self._asked[UUID(answer.json()["id"])] = report

    def _states(self) -> dict[UUID, RequestState]:
        with db.transaction(self._engine) as session:
            query = select(DraftRequest.id, DraftRequest.state).where(col(DraftRequest.id).in_(self._asked))
            return {row[0]: row[1] for row in session.execute(query)}

    def _settled(self) -> bool:
        return not {RequestState.QUEUED, RequestState.DRAFTING} & set(self._states().values())

    def _sign(self, request: UUID, report: PretendReport) -> None:
        """The radiologist reads the draft and signs what the report truly says; what is signed already stays."""
        reader = self._as(RADIOLOGIST)
        seen = self._http.get(f"/v1/requests/{request}", headers=reader).json()
        if seen["state"] == RequestState.SIGNED:
            return
        body = {"impression": report.impression, "draft_version": seen.get("draft", {}).get("version")}
        answer = self._http.post(f"/v1/requests/{request}/sign", json=body, headers=reader)
        if not answer.is_success:
            raise Broken(f"The signature of {request} was refused: {answer.json()['error']}.")

    def _signed_by_hospitals(self) -> Callable[[], bool]:
        theirs = {
            request: report
            for number, (request, report) in enumerate(self._asked.items())
            if number % PER_HOUSE in (2, 3) and self._states()[request] is not RequestState.SIGNED
        }
        home, server = self._settings.home, self._servers.database_url
        hospitals.finish(home, theirs.values(), postgres_url=server, mariadb_url=self._mariadb)
        return lambda: all(self._states()[request] is RequestState.SIGNED for request in theirs)

    def _scored(self) -> bool:
        with db.transaction(self._engine) as session:
            return not sign_offs.unscored(session, f"{SCORER_VERSION}%", limit=1)

    def _as(self, who: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._secrets[who]}"}


def _staged(target: Path) -> Path:
    """Where a model directory is put together before it takes its name; empty."""
    staged = target.with_name(f"{target.name}.new")
    shutil.rmtree(staged, ignore_errors=True)
    return staged


def _choose(reports: list[PretendReport]) -> Iterator[PretendReport]:
    """Held-out reports without blemishes, of each hospital some and of each body system where there are any."""
    for house in HOUSES:
        fit = [
            report
            for report in reports
            if report.house == house
            and report.held_out
            and report.status == "final"
            and report.impression
            and not report.noise
            and report.duplicate_of is None
            and report.addendum_to is None
        ]
        by_system: dict[tuple[str, ...], list[PretendReport]] = {}
        for report in fit:
            by_system.setdefault(report.systems, []).append(report)
        piles = [by_system[systems] for systems in sorted(by_system)]
        found = [pile[depth] for depth in range(len(fit)) for pile in piles if depth < len(pile)]
        if len(found) < PER_HOUSE:
            raise Broken(f"The sandbox made too few held-out reports of hospital {house}.")
        yield from found[:PER_HOUSE]
