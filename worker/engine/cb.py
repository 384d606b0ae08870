"""Continuous batching on transformers: jobs join and leave the running batch at every token.

Works around what transformers 5.23 leaves open, each rule where it is applied: lengths are checked before a request can reach the
scheduler (an over-long one kills all), cancelled requests never answer, a dead loop answers at once and for ever, the manager's
thread keeps the process alive until stopped. Sampling is ours (`sampling`), so one greedy manager serves every option and seed.
"""

import itertools
import logging
import threading
from math import ceil
from typing import Any

import torch

from worker.engine.attention import NAME, install
from worker.engine.resident import Flight, Resident
from worker.engine.sampling import choose, impose, row_seed

PAGE_TOKENS = 64
"""Tokens of a cache page: a report and its impression fill a few, so little of the last one is wasted."""
STEP_TOKENS = {"cpu": 512, "cuda": 2048}
"""Tokens of one forward pass at most: long prompts are split, so that running drafts do not wait for them."""
TYPICAL_TOKENS = 1024
"""The cache holds this many tokens for every job in flight (and the longest job twice); beyond it jobs start over when it is full."""
STOP_TIMEOUT_S = 30.0
LAST_WORDS_S = 0.5
"""Seconds that a dying generation loop gets to record what it died of."""


class ContinuousBatching(Resident):
    """Continuous batching with one collector thread that owns all outputs."""

    _numbers = itertools.count()

    def _start_backend(self) -> None:
        self._names: dict[str, Flight] = {}  # backend request id -> flight; a job id may come again, a request id never
        self._requests: dict[int, str] = {}  # id(flight) -> backend request id
        self._stopping = threading.Event()
        self._manager = self._new_manager()
        # Only now: the manager's constructor knows transformers' own names and refuses all others.
        self._own_attention = self._model.config._attn_implementation
        self._model.set_attn_implementation(NAME)
        self._manager.start()
        owned = (self._manager, self._stopping)
        self._collector = threading.Thread(target=self._collect, args=owned, name="collector", daemon=True)
        self._collector.start()

    def _stop_backend(self) -> None:
        self._stopping.set()
        self._manager.stop(block=True, timeout=STOP_TIMEOUT_S, hard_stop=True)
        self._manager.destroy()
        self._collector.join()
        self._model.set_attn_implementation(self._own_attention)

    def _start(self, flight: Flight) -> None:
        options = flight.job.options
        name = f"{next(self._numbers)}"
        self._names[name], self._requests[id(flight)] = flight, name
        # None means dropped, because the loop is dead or stopping; the collector sees that too and fails or restarts the flight.
        self._manager.add_request(
            flight.prompt,
            request_id=name,
            max_new_tokens=options.max_new_tokens,
            streaming=True,
            eos_token_id=sorted(self._ends),
            temperature=float(options.temperature),
            top_k=int(options.top_k),
            top_p=float(options.top_p),
            seed=int(options.seed),
        )

    def _withdraw(self, flight: Flight) -> None:
        name = self._requests.pop(id(flight), None)
        if name is not None and self._names.pop(name, None) is not None and not self._stopping.is_set():
            self._manager.cancel_request(name)  # harmless for one that has just finished

    def _collect(self, manager: Any, stopping: threading.Event) -> None:
        """Take every output of one manager until it is stopped; never asks for a particular id (that starves the others)."""
        while not stopping.is_set():
            try:
                output = manager.get_result(timeout=0.1)
                if output is not None and output.error is None:
                    self._take(output)
                elif output is not None or not manager.is_running():
                    # Our arguments are always valid, so a failing request is a failing loop, which says why only after it has failed them all.
                    # And a stop sets the event before it ends the thread.
                    stopping.wait(LAST_WORDS_S)
                    if not stopping.is_set():
                        raise manager.background_thread_status.fatal_error or RuntimeError("generation loop ended")
            except Exception as error:  # whatever it is, no job may hang
                if not stopping.is_set():
                    self._stopped_by(error)
                return

    def _take(self, output: Any) -> None:
        flight = self._names.get(output.request_id)
        if flight is None:
            return  # landed already: looped or cancelled
        known = len(flight.tokens)
        flight.logprobs = list(output.logprobs)
        for token in output.generated_tokens[known:]:
            flight.tokens.append(token)
            if self._progressed(flight):
                return

    def _new_manager(self) -> Any:
        from transformers import ContinuousBatchingConfig, GenerationConfig

        install()
        # It warns with the first and last tokens of prompts, and writes past our logs; what it says of errors reaches us by `_die`.
        logging.getLogger("ContinuousBatchingLogger").setLevel(logging.CRITICAL)
        manager = self._model.init_continuous_batching(
            generation_config=GenerationConfig(
                do_sample=False, max_new_tokens=self._limits.total_tokens, eos_token_id=sorted(self._ends)
            ),
            continuous_batching_config=ContinuousBatchingConfig(
                page_size=PAGE_TOKENS,
                num_blocks=self._blocks(),  # unset, transformers takes 60 % of the machine's memory
                max_batch_tokens=max(STEP_TOKENS[self._model.device.type], self._limits.in_flight),
                max_requests_per_batch=self._limits.in_flight,
                max_blocks_per_request=0,  # this, graphs and asynchronous batches need flash attention
                allow_block_sharing=True,  # safe: another adapter means another manager, with an empty cache
                use_async_batching=False,
                use_cuda_graph=(False, False),
                return_logprobs=True,
                auto_switch_to_flash=False,  # would fetch a kernel from the hub while serving
            ),
        )
        manager.logit_processor = _Sampling()
        return manager

    def _blocks(self) -> int:
        """Cache blocks: room for every job in flight at a typical length, and for two of the longest."""
        longest = self._limits.total_tokens
        return ceil(max(self._limits.in_flight * min(TYPICAL_TOKENS, longest), 2 * longest) / PAGE_TOKENS)


class _Sampling:
    """Stands where the manager keeps its logits processors (`ContinuousBatchingLogitsProcessorList`): one row of arguments each.

    The stock processors sort the whole vocabulary twice per step, which costs more than the model does on a CPU, and need the
    manager to sample, which then cannot be exactly greedy.
    """

    tensors_required = 4  # temperature, top-k, top-p, seed
    do_processing = True

    def check_kwargs(self, kwargs: dict[str, Any]) -> None:
        if kwargs.keys() != {"temperature", "top_k", "top_p", "seed"}:
            raise ValueError("every request carries exactly our four sampling arguments")

    def fill_defaults(self, storage: torch.Tensor) -> None:
        storage.zero_()

    def prepare_tensor_args(self, requests_in_batch: list[Any], arg_storage: torch.Tensor) -> torch.Tensor:
        arguments = [
            (state.logit_processor_kwargs, row_seed(state.logit_processor_kwargs["seed"], state.position_offset))
            for state in (request.state for request in requests_in_batch if request.has_new_token)
        ]
        rows = torch.stack(
            [
                torch.tensor([kwargs["temperature"] for kwargs, _ in arguments], dtype=torch.float32).view(torch.int32),
                torch.tensor([kwargs["top_k"] for kwargs, _ in arguments], dtype=torch.int32),
                torch.tensor([kwargs["top_p"] for kwargs, _ in arguments], dtype=torch.float32).view(torch.int32),
                torch.tensor([seed for _, seed in arguments], dtype=torch.int32),
            ]
        )
        arg_storage[:, : len(arguments)] = rows.to(arg_storage.device)
        return arg_storage

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, arguments: torch.Tensor) -> torch.Tensor:
        arguments = arguments[:, : scores.shape[0]]
        temperature = arguments[0].contiguous().view(torch.float32)
        if scores.device.type == "cpu" and not bool((temperature > 0).any()):
            return scores  # on a GPU the look would cost a synchronisation and could not be captured in a graph
        top_p = arguments[2].contiguous().view(torch.float32)
        tokens = choose(scores, temperature, arguments[1], top_p, arguments[3])
        return impose(scores, tokens, temperature > 0)
