"""Drafting in fixed places: a cache of one size for each job in flight, so that on a card a whole step is one CUDA graph.

A step of a 7B model launches some two thousand kernels, and with few jobs in flight the launching takes longer than the work; a graph
launches them at once. Graphs need tensors that never move: hence places, each as long as the longest job, which costs memory that
`cb` does not need. For few jobs at once and short waits. Prompts are read one by one, between steps. On a CPU the same steps run without graphs, which
is how this is tested; **the graphs themselves have not been run on a card yet**, and where capturing fails the steps run without.
"""

from typing import Any

import torch

from core.errors import Broken
from worker.engine.resident import Flight
from worker.engine.sampling import choose, row_seed
from worker.engine.turns import Turns

SPAN = 256
"""Keys are read in multiples of this many: few graphs, and little reading of places that are empty yet."""


class Static(Turns):
    """One thread that fills free places and steps all of them together."""

    def _start_backend(self) -> None:
        places, device = self._limits.in_flight, self._model.device
        self._places: list[Flight | None] = [None] * places
        self._cache = _Cache(self._model, places, -(-self._limits.total_tokens // SPAN) * SPAN)
        self._state = torch.zeros(3, places, dtype=torch.int64, device=device)  # token, its position, seed of the next
        self._options = torch.zeros(3, places, device=device)  # temperature, top-k, top-p
        self._graphs: dict[tuple[int, int, bool], tuple[Any, tuple[torch.Tensor, torch.Tensor]]] = {}
        self._pool: Any = None  # one for all graphs: they run one after the other, and what they give is read at once
        self._capturing = device.type == "cuda"
        super()._start_backend()

    def _stop_backend(self) -> None:
        super()._stop_backend()
        self._graphs.clear()
        self._pool = None
        self._cache.release()

    def _turn(self) -> None:
        self._fill()
        self._step()

    def _fill(self) -> None:
        """Free the places of jobs that are over and read the prompts of waiting ones into free places."""
        while True:
            self._places = [None if one is None or one.future.done() else one for one in self._places]
            with self._work:
                if not any(self._places):
                    self._work.wait_for(lambda: self._waiting or self._stopping)
                if self._stopping or not self._waiting or None not in self._places:
                    return
                flight = self._waiting.pop(0)
            place = self._places.index(None)
            self._places[place] = flight
            self._read(place, flight)

    def _read(self, place: int, flight: Flight) -> None:
        """The prompt's keys and values into its place, and the first token."""
        options = flight.job.options
        arguments = [options.temperature, float(options.top_k), options.top_p]
        self._options[:, place] = torch.tensor(arguments, device=self._options.device)
        ids = torch.tensor([flight.prompt], device=self._model.device)
        self._cache.reading(place)
        logits = self._model(input_ids=ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1).logits[:, -1]
        self._state[2, place] = row_seed(options.seed, len(flight.prompt))
        tokens, logprobs = self._choose(logits, slice(place, place + 1), options.temperature > 0)
        self._take(flight, int(tokens[0]), float(logprobs[0]))

    def _step(self) -> None:
        """One more token for every job in its place."""
        flying = [(place, flight) for place, flight in enumerate(self._places) if flight is not None]
        flying = [(place, flight) for place, flight in flying if flight.tokens and not flight.future.done()]
        if not flying:
            return
        rows = min(1 << flying[-1][0].bit_length(), len(self._places))  # a power of two that holds the last place
        state = torch.zeros(3, rows, dtype=torch.int64)
        for place, flight in flying:
            length = len(flight.prompt) + len(flight.tokens)
            seed = row_seed(flight.job.options.seed, length)
            state[:, place] = torch.tensor([flight.tokens[-1], length - 1, seed])
        self._state[:, :rows].copy_(state)  # one transfer for all
        longest = max(len(flight.prompt) + len(flight.tokens) for _, flight in flying)
        sampled = any(flight.job.options.temperature > 0 for _, flight in flying)
        tokens, logprobs = self._replayed(rows, -(-longest // SPAN) * SPAN, sampled)
        written, chances = tokens.tolist(), logprobs.tolist()
        for place, flight in flying:
            self._take(flight, written[place], chances[place])

    def _take(self, flight: Flight, token: int, logprob: float) -> None:
        flight.tokens.append(token)
        flight.logprobs.append(logprob)
        self._progressed(flight)

    def _replayed(self, rows: int, span: int, sampled: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """The step by its graph, captured when it is first asked for."""
        key = (rows, span, sampled)
        if key in self._graphs:
            graph, made = self._graphs[key]
            graph.replay()
            return made
        made = self._forward(
            *key
        )  # also what warms kernels and allocator up; doing it again writes the same into the same place
        if not self._capturing:
            return made
        answer = tuple(each.clone() for each in made)
        try:
            graph = torch.cuda.CUDAGraph()
            torch.cuda.synchronize()
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                captured = self._forward(*key)
            self._graphs[key], self._pool = (graph, captured), graph.pool()
        except RuntimeError:
            self._capturing = False
        return answer[0], answer[1]

    def _forward(self, rows: int, span: int, sampled: bool) -> tuple[torch.Tensor, torch.Tensor]:
        positions = self._state[1, :rows]
        self._cache.stepping(rows, span, positions)
        logits = self._model(
            input_ids=self._state[0, :rows, None],
            position_ids=positions[:, None],
            attention_mask=self._cache.mask(span, positions, self._model.dtype),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        return self._choose(logits, slice(0, rows), sampled)

    def _choose(self, logits: torch.Tensor, rows: slice, sampled: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens [rows] and the model's own log-probabilities of them."""
        logits = logits.float()
        temperature, top_k, top_p = self._options[:, rows]
        tokens = choose(logits, temperature, top_k, top_p, self._state[2, rows]) if sampled else logits.argmax(dim=-1)
        return tokens, logits.log_softmax(dim=-1).gather(1, tokens[:, None])[:, 0]


class _Cache:
    """Keys and values [places, key heads, tokens, head size] of every layer, which a model fills and reads as its `past_key_values`."""

    is_compileable = False

    def __init__(self, model: Any, places: int, length: int) -> None:
        config = model.config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (config.num_hidden_layers, 2, places, heads, length, size)
        needed = 2 * places * heads * length * size * config.num_hidden_layers * model.dtype.itemsize
        if model.device.type == "cuda":
            torch.cuda.empty_cache()  # what the allocator keeps for us does not count as free
            if needed > torch.cuda.mem_get_info(model.device)[0]:
                raise Broken(
                    f"{places} places of {length} tokens need {needed / 1e9:.0f} GB of the card, more than is free: lower "
                    "VALUER_IN_FLIGHT or VALUER_MAX_INPUT_TOKENS, or take VALUER_ENGINE=cb"
                )
        self._held = torch.zeros(shape, dtype=model.dtype, device=model.device)
        self._window = (
            config.sliding_window if "sliding_attention" in (getattr(config, "layer_types", None) or ()) else None
        )
        self._all = torch.arange(max(places, length), device=model.device)
        self._place: int | None = None
        self._rows, self._span, self._positions = 0, 0, self._all

    def release(self) -> None:
        """Give the memory back: the next cache is made before this one is forgotten."""
        self._held = self._held.new_empty(0)

    def reading(self, place: int) -> None:
        """What comes next is a prompt for this place."""
        self._place = place

    def stepping(self, rows: int, span: int, positions: torch.Tensor) -> None:
        """What comes next is one token for each of the first places, at `positions` [rows]; the first `span` keys are read."""
        self._place, self._rows, self._span, self._positions = None, rows, span, positions

    def mask(self, span: int, positions: torch.Tensor, dtype: torch.dtype) -> torch.Tensor | dict[str, torch.Tensor]:
        """What each row may see of its place [rows, 1, 1, span], by the kind of layer where there are two."""
        seen, last = self._all[:span], positions[:, None]
        full = self._bias(seen <= last, dtype)
        if self._window is None:
            return full
        return {
            "full_attention": full,
            "sliding_attention": self._bias((seen <= last) & (seen > last - self._window), dtype),
        }

    @staticmethod
    def _bias(allowed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        blocked = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
        return blocked.masked_fill(~allowed, torch.finfo(dtype).min)[:, None, None]

    # what transformers asks of a cache

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = self._held[layer]
        if self._place is not None:
            keys[self._place, :, : key.shape[2]], values[self._place, :, : key.shape[2]] = key[0], value[0]
            return key, value
        rows = self._all[: self._rows]
        keys[rows, :, self._positions], values[rows, :, self._positions] = key[:, :, 0], value[:, :, 0]
        return keys[: self._rows, :, : self._span], values[: self._rows, :, : self._span]

    def get_seq_length(self, *_: Any) -> int:
        return 0

    def get_query_offset(self, *_: Any) -> int:
        return 0

    def get_mask_sizes(self, query: int, *_: Any) -> tuple[int, int]:
        """Of a prompt, which sees itself: its length, from its beginning."""
        return query, 0
