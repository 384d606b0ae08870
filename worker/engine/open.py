"""Opening the engine that the settings ask for: load, check the golden answer, warm up. Nothing is served before all of that passed."""

from dataclasses import replace
from pathlib import Path

import torch

from core.errors import Broken
from core.settings import WorkerSettings
from worker.engine.adapter import check_golden, verify
from worker.engine.architectures import batches_continuously
from worker.engine.batched import Batched
from worker.engine.cb import ContinuousBatching
from worker.engine.limits import Limits
from worker.engine.openai import OpenAI, Server
from worker.engine.protocol import Engine, Job, Options
from worker.engine.resident import Resident
from worker.engine.static import Static
from worker.engine.weights import digest, load

ENGINES: dict[str, type[Resident]] = {"cb": ContinuousBatching, "generate": Batched, "static": Static}


def open_engine(settings: WorkerSettings, base: Path, adapter: Path | None) -> Engine:
    """An engine that has already answered once. Raises Broken when base or adapter are not intact or do not fit each other.

    Its threads keep the process alive: whoever opens it drains it.
    """
    limits = Limits(
        prompt_tokens=settings.max_input_tokens,
        total_tokens=settings.max_input_tokens + settings.max_new_tokens,
        in_flight=settings.in_flight + settings.stat_threads,
    )
    if settings.engine == "openai":
        return _remote(settings, base, adapter, limits)
    if settings.torch_threads:
        torch.set_num_threads(settings.torch_threads)
    verified = None if adapter is None else verify(adapter, digest(base))
    model, tokenizer = load(base, adapter, weights=settings.weights, device=settings.device)
    if verified is not None:
        check_golden(model, verified)
    # A base whose attention takes no paged cache (Falcon's) is served in plain batches, whatever the settings prefer.
    kind = ENGINES[settings.engine] if batches_continuously(model) else Batched
    engine = kind(model, tokenizer, limits, base=base, weights=settings.weights, adapter=verified)
    try:
        # The first passes lay out the weights and allocate the caches: seconds that no request should wait for.
        engine.submit(Job("warm-up", "CT", Options(max_new_tokens=2))).result()
    except BaseException:
        engine.drain(0)
        raise
    return engine


def _remote(settings: WorkerSettings, base: Path, adapter: Path | None, limits: Limits) -> Engine:
    from transformers import AutoConfig, AutoTokenizer

    if settings.engine_url is None:
        raise Broken("VALUER_ENGINE=openai needs VALUER_ENGINE_URL, the address of the model's server")
    server = Server(
        settings.engine_url,
        settings.engine_model,
        None if settings.engine_key is None else settings.engine_key.get_secret_value(),
        tuple(host.strip() for host in settings.engine_hosts.split(",") if host.strip()),
    )
    context = AutoConfig.from_pretrained(base, local_files_only=True).get_text_config().max_position_embeddings
    fitting = replace(limits, total_tokens=min(limits.total_tokens, int(context)))
    engine = OpenAI(server, AutoTokenizer.from_pretrained(base, local_files_only=True), fitting, base=base)
    try:
        if adapter is not None:
            engine.swap(adapter)
    except BaseException:
        engine.drain(0)
        raise
    return engine
