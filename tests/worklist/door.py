"""The worklist as its tests meet it: an application with everybody who comes to it, and a browser as far as the page needs one."""

import re
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from fastapi.testclient import TestClient
from sqlmodel import Session, select

from core import db, leases
from core.db import new_id
from core.states import Reason
from core.tables import Draft, DraftIssue, DraftRequest, Generation
from tests.builders import QUEUE, body
from worklist import access

DRAFT = "1、右肺上叶小结节；\n2、左侧胸腔积液。"
LABEL = "AI 草稿，须医师审核"


@dataclass
class Door:
    """The application and everybody who comes to it."""

    app: Any
    client: TestClient
    engine: sa.Engine
    keys: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)

    def call(self, method: str, path: str, who: str | None = "system", **options: Any) -> Any:
        """A call of the API by the key or token called `who`."""
        headers = dict(options.pop("headers", {}))
        if who is not None:
            headers["Authorization"] = f"Bearer {self.keys.get(who) or self.tokens[who]}"
        return self.client.request(method, path, headers=headers, **options)

    def send(self, who: str = "system", **changes: Any) -> str:
        """Sends a request; returns its id."""
        answer = self.call("POST", "/v1/requests", who, json=body(**changes))
        assert answer.status_code in (200, 202), answer.text
        return str(answer.json()["id"])

    def settle(
        self,
        text: str | None = DRAFT,
        *,
        issues: list[dict[str, Any]] | None = None,
        reason: Reason | None = None,
        hidden: bool = False,
    ) -> UUID:
        """Does what a worker does with the best waiting request: a draft with these issues, or none for this reason."""
        with db.transaction(self.engine) as session:
            held = leases.claim(session, "test", QUEUE)
            assert held is not None
            if reason is not None:
                leases.settle_without(session, held, reason)
            else:
                assert text is not None
                _drafted(session, held, text, issues or [], hidden)
            return held.request.id

    def sent_and_drafted(self, **changes: Any) -> str:
        """A request with a draft."""
        made = self.send(**changes)
        self.settle()
        return made

    def state(self, request_id: str) -> str:
        """Where a request stands, from the database."""
        with db.transaction(self.engine) as session:
            return str(session.exec(select(DraftRequest).where(DraftRequest.id == UUID(request_id))).one().state)

    def browser(self, login: str = "li") -> "Browser":
        """A browser in which this person has signed in, by a link."""
        browser = Browser(TestClient(self.app, base_url="http://worklist.test"))
        with db.transaction(self.engine) as session:
            link = access.create_link(session, access.find_user(session, login), by="test")
        answer = browser.client.get(link, follow_redirects=False)
        assert answer.status_code == 303
        return browser


@dataclass
class Browser:
    """A browser as far as the page needs one: cookies, forms with their hidden fields, and the headers of a navigation."""

    client: TestClient

    def get(self, path: str, **headers: str) -> Any:
        return self.client.get(path, headers={"Accept": "text/html", **headers})

    def post(self, path: str, fields: dict[str, Any], **headers: str) -> Any:
        sent = {"Accept": "text/html", "Origin": "http://worklist.test", "Sec-Fetch-Site": "same-origin", **headers}
        return self.client.post(path, data=fields, headers=sent, follow_redirects=False)

    def csrf(self, path: str = "/") -> str:
        """The session's token, as a form of this page carries it."""
        found = re.search(r'name="csrf" value="([^"]+)"', self.get(path).text)
        assert found is not None
        return found[1]


def _drafted(session: Session, held: leases.Claim, text: str, issues: list[dict[str, Any]], hidden: bool) -> None:
    versions = {"model_version": "demo-1", "prompt_version": "p1", "checks_version": "c1"}
    generation = Generation(
        id=new_id(),
        request_id=held.request.id,
        attempt_id=held.lease,
        rung=0,
        seed=0,
        text=text,
        finish="stop",
        prompt_tokens=10,
        new_tokens=10,
        seconds=0.1,
        passed=True,
        **versions,
    )
    draft = Draft(id=new_id(), impression=text, label=LABEL, generation_id=generation.id, version=0, **versions)
    rows = [DraftIssue(draft_id=draft.id, rule="test", **issue) for issue in issues]
    assert leases.settle_drafted(session, held, draft, rows, [generation], hidden=hidden)
