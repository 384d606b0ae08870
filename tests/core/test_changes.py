"""The change feed shows every change, also when transactions commit out of order."""

import pytest
import sqlalchemy as sa

from core import answers, db
from core.errors import Invalid
from core.identity import Keyring
from tests.builders import SYSTEM, accept, institution


def test_the_change_feed_waits_for_transactions_that_are_still_open(database: sa.Engine, keyring: Keyring) -> None:
    with db.transaction(database) as session:
        institution(session)
    with db.transaction(database) as early:
        accept(early, keyring, accession="slow")
        early.flush()
        with db.transaction(database) as late:
            accept(late, keyring, accession="fast")
        with db.transaction(database) as reader:
            seen, cursor = answers.changes(reader, SYSTEM, None)
        assert seen == []  # showing `fast` now would move the cursor past `slow`
    with db.transaction(database) as reader:
        seen, cursor = answers.changes(reader, SYSTEM, cursor)
        assert len(seen) == 2
        assert answers.changes(reader, SYSTEM, cursor)[0] == []


def test_the_change_feed_pages_without_loss(database: sa.Engine, keyring: Keyring) -> None:
    with db.transaction(database) as session:
        institution(session)
        ids = {str(accept(session, keyring, accession=f"A-{n}").id) for n in range(7)}
    seen: list[str] = []
    cursor = None
    with db.transaction(database) as reader:
        for _ in range(4):
            page, cursor = answers.changes(reader, SYSTEM, cursor, limit=2)
            seen += [entry["id"] for entry in page]
    assert sorted(seen) == sorted(ids)
    with db.transaction(database) as reader, pytest.raises(Invalid):
        answers.changes(reader, SYSTEM, "nonsense")
