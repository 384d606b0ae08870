"""The load: as many jobs in flight as asked for, the next one as soon as one ends, and what came of it.

Throughput is by wall clock from the first submit to the last end; latency is each job's own, waiting included. CPU seconds are those of
this process: on a machine that does other work too they say more than the wall.
"""

import resource
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from worker.engine.protocol import Engine, Generation, Job, Options


@dataclass(frozen=True, slots=True)
class Load:
    """What one run measured. Memory is the process's peak on a CPU, the allocator's on a card, in MB."""

    jobs: int
    seconds: float
    cpu_seconds: float
    p50_s: float
    p95_s: float
    prompt_tokens: float
    new_tokens: float
    peak_memory_mb: float

    @property
    def impressions_per_s(self) -> float:
        return self.jobs / self.seconds

    @property
    def tokens_per_s(self) -> float:
        return self.jobs * self.new_tokens / self.seconds


def run(engine: Engine, prompts: Sequence[str], count: int, in_flight: int, max_new_tokens: int, device: str) -> Load:
    """Draft `count` times, prompts in turn, greedily."""
    waiting = [
        Job(f"job-{number}", prompts[number % len(prompts)], Options(max_new_tokens=max_new_tokens))
        for number in range(count)
    ]
    _forget_peak(device)
    began, cpu = time.perf_counter(), time.process_time()
    flying: set[Future[Generation]] = {engine.submit(waiting.pop()) for _ in range(min(in_flight, count))}
    ended: list[Generation] = []
    while flying:
        done, flying = wait(flying, return_when=FIRST_COMPLETED)
        ended += [future.result() for future in done]
        flying |= {engine.submit(waiting.pop()) for _ in range(min(len(done), len(waiting)))}
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    latencies = sorted(one.seconds for one in ended)
    return Load(
        jobs=count,
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        p50_s=statistics.median(latencies),
        p95_s=latencies[min(len(latencies) - 1, int(0.95 * len(latencies)))],
        prompt_tokens=statistics.fmean(one.prompt_tokens for one in ended),
        new_tokens=statistics.fmean(one.new_tokens for one in ended),
        peak_memory_mb=_peak_mb(device),
    )


def _forget_peak(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):  # where it cannot be, the mark is that of all runs so far
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the high-water mark begins anew


def _peak_mb(device: str) -> float:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 1e6
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
