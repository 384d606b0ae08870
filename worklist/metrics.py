"""What Prometheus may know of this process and of the queue: counts and durations. No label ever holds an id, a name or a text."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import UUID

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeHistogramMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
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


_BUCKETS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 300.0, 600.0, 1800.0)


class _Drafting(Collector):
    """What the drafting of the last day was like, read from the rows that it left; every worker on every machine is in it."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def describe(self) -> Iterator[GaugeMetricFamily]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        with db.transaction(self._engine) as session:
            since = {"since": _a_day_ago()}
            written = session.execute(_GENERATIONS, since).one()
            reasons = session.execute(_REASONS, since).all()
            attempts = session.execute(_ATTEMPTS, since).all()
            lanes = session.execute(_LANES, {**since, "buckets": list(_BUCKETS)}).all()
        count = written.generations or 0
        for name, part, what in (
            ("valuer_generation_end_ratio", written.ended, "Generations that ended by themselves"),
            ("valuer_generation_loop_ratio", written.looped, "Generations that were stopped in a loop"),
            ("valuer_generation_null_ratio", written.empty, "Generations without any text"),
        ):
            yield GaugeMetricFamily(name, f"{what}, share of the last day", value=part / count if count else 0.0)
        speed = written.tokens / written.seconds if written.seconds else 0.0
        yield GaugeMetricFamily("valuer_generations", "Generations of the last day", value=count)
        yield GaugeMetricFamily(
            "valuer_request_tokens_per_second",
            "New tokens over the seconds of their generations, last day",
            value=speed,
        )
        without = GaugeMetricFamily(
            "valuer_requests_without_draft", "Requests settled in the last day", labels=["reason"]
        )
        for reason, number in reasons:
            without.add_metric([reason], number)
        yield without
        claims = GaugeMetricFamily("valuer_attempts", "Leases of the last day by how they ended", labels=["state"])
        for state, number in attempts:
            claims.add_metric([state], number)
        yield claims
        took = GaugeHistogramMetricFamily(
            "valuer_request_seconds", "From acceptance to the draft, last day", labels=["lane"]
        )
        for lane, within, total in lanes:
            took.add_metric([lane], [*zip([str(edge) for edge in (*_BUCKETS, "+Inf")], within, strict=True)], total)
        yield took


def _a_day_ago() -> UUID:
    """The smallest UUIDv7 of the last day: ids are in the order of time, so that the primary key finds the day's rows."""
    return UUID(int=(time.time_ns() // 1_000_000 - 86_400_000) << 80)


_GENERATIONS = sa.text(
    "SELECT count(*) AS generations, count(*) FILTER (WHERE finish = 'stop') AS ended, count(*) FILTER (WHERE finish = 'looped') AS looped,"
    " count(*) FILTER (WHERE btrim(text) = '') AS empty, coalesce(sum(new_tokens), 0)::float AS tokens,"
    " coalesce(sum(seconds), 0)::float AS seconds FROM generations WHERE id > :since"
)
_REASONS = sa.text(
    "SELECT reason, count(*) FROM draft_requests WHERE reason IS NOT NULL AND id > :since GROUP BY reason"
)
_ATTEMPTS = sa.text("SELECT state, count(*) FROM attempts WHERE id > :since GROUP BY state")
_LANES = sa.text(
    "SELECT lane, array_agg(within ORDER BY edge), max(total) FROM ("
    " SELECT CASE WHEN is_stat THEN 'stat' ELSE 'routine' END AS lane, edge,"
    "  count(*) FILTER (WHERE seconds <= edge)::float AS within, sum(seconds)::float AS total"
    "  FROM (SELECT is_stat, extract(epoch FROM settled_at - accepted_at)::float AS seconds FROM draft_requests"
    "   WHERE draft_version IS NOT NULL AND settled_at IS NOT NULL AND id > :since) settled,"
    "  unnest(CAST(:buckets AS float[]) || 'Infinity'::float) AS edge GROUP BY is_stat, edge) counted GROUP BY lane"
)
"""Seconds by lane, cumulative as Prometheus wants buckets."""


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
        """Adds what the database tells of the queue and of the drafting."""
        self.registry.register(_Queue(engine))
        self.registry.register(_Drafting(engine))
