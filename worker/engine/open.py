"""Opening the engine that the settings ask for: load, check the golden answer, warm up. Nothing is served before all of that passed."""

from pathlib import Path

import torch

from core.settings import WorkerSettings
from worker.engine.adapter import check_golden, verify
from worker.engine.batched import Batched
from worker.engine.cb import ContinuousBatching
from worker.engine.protocol import Engine, Job, Options
from worker.engine.resident import Limits
from worker.engine.weights import digest, load

ENGINES = {"cb": ContinuousBatching, "generate": Batched}


def open_engine(settings: WorkerSettings, base: Path, adapter: Path | None) -> Engine:
    """An engine that has already answered once. Raises Broken when base or adapter are not intact or do not fit each other.

    Its threads keep the process alive: whoever opens it drains it.
    """
    if settings.torch_threads:
        torch.set_num_threads(settings.torch_threads)
    verified = None if adapter is None else verify(adapter, digest(base))
    model, tokenizer = load(base, adapter, weights=settings.weights, device=settings.device)
    if verified is not None:
        check_golden(model, verified)
    limits = Limits(
        prompt_tokens=settings.max_input_tokens,
        total_tokens=settings.max_input_tokens + settings.max_new_tokens,
        in_flight=settings.in_flight + settings.stat_threads,
    )
    engine = ENGINES[settings.engine](model, tokenizer, limits, base=base, weights=settings.weights, adapter=verified)
    try:
        # The first passes lay out the weights and allocate the caches: seconds that no request should wait for.
        engine.submit(Job("warm-up", "CT", Options(max_new_tokens=2))).result()
    except BaseException:
        engine.drain(0)
        raise
    return engine
