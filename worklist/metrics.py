"""What Prometheus may know of this process and of the queue: counts and durations. No label ever holds an id, a name or a text."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlmodel import col

from core import db
from core.states import UNCLOSED, RequestState
from core.tables import DraftRequest


class _Queue(Collector):
    """Looks at the queue when it is scraped; says nothing of it when the database is away, and the scrape then fails as a whole."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def describe(self) -> Iterator[GaugeMetricFamily]:
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        age = sa.func.extract("epoch", sa.func.clock_timestamp() - sa.func.min(col(DraftRequest.accepted_at)))
        query = sa.select(col(DraftRequest.state), col(DraftRequest.is_stat), sa.func.count(), age).where(
            col(DraftRequest.state).in_(sorted(UNCLOSED))
        )
        with db.transaction(self._engine) as session:
            rows = session.execute(query.group_by(col(DraftRequest.state), col(DraftRequest.is_stat))).all()
        found = {
            (str(state), "stat" if is_stat else "routine"): (count, seconds) for state, is_stat, count, seconds in rows
        }
        amounts = GaugeMetricFamily("valuer_requests", "Requests that are not closed", labels=["state", "lane"])
        oldest = GaugeMetricFamily(
            "valuer_request_oldest_seconds", "Age of the oldest request in this state", labels=["state", "lane"]
        )
        for state in sorted(UNCLOSED):
            for lane in ("stat", "routine"):
                count, seconds = found.get((str(state), lane), (0, 0.0))
                amounts.add_metric([str(state), lane], count)
                if state in (RequestState.QUEUED, RequestState.DRAFTING):
                    oldest.add_metric([str(state), lane], float(seconds))
        yield amounts
        yield oldest


@dataclass(frozen=True)
class Metrics:
    """The registry of one application and what its guard counts."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    answers: Counter = field(init=False)
    seconds: Histogram = field(init=False)

    def __post_init__(self) -> None:
        labels = ["method", "route"]
        answers = Counter("valuer_http_answers", "HTTP answers", [*labels, "status"], registry=self.registry)
        seconds = Histogram("valuer_http_seconds", "Seconds until the answer began", labels, registry=self.registry)
        object.__setattr__(self, "answers", answers)
        object.__setattr__(self, "seconds", seconds)

    def watch_queue(self, engine: sa.Engine) -> None:
        """Adds the queue's gauges."""
        self.registry.register(_Queue(engine))
