"""Models of a given shape with random weights, made on the device in the form that serves: weights do not change speed.

No fp32 copy exists at any time and nothing but one layer's bf16 matrix beside the finished model, so a 7B shape in NF4 needs 4 GB of
the card and none of the host. A tokenizer of one token per character comes with it, so that a prompt has exactly the length asked for.
"""

from typing import Any

import torch

from worker.engine.beside import lighten

SHAPES: dict[str, dict[str, int]] = {
    "tiny": {
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "vocab_size": 4096,
    },
    # meta-llama/Llama-2-7b-chat-hf, the paper's base
    "llama-2-7b": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 32000,
    },
}
RANK = 64
"""Of the adapter, on all linear layers: the paper's rank."""
FIRST_CHARACTER = 0x3400


def build(shape: str, weights: str, device: str) -> tuple[Any, Any]:
    """Model and tokenizer of a shape: "nf4+adapter" (NF4, double quantisation, LoRA in fp32 beside it) or "bf16-merged"."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(**SHAPES[shape], max_position_embeddings=4096, bos_token_id=0, eos_token_id=1, pad_token_id=1)
    torch.manual_seed(11)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
    model.model.rotary_emb = type(model.model.rotary_emb)(config).to(device)
    for name, module in list(model.named_modules()):
        for part, child in list(module.named_children()):
            if isinstance(child, torch.nn.Linear):
                weight = _random(child.weight, device)
                setattr(module, part, _linear(weight, weights == "nf4+adapter" and "lm_head" not in f"{name}{part}"))
        for part, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_meta:
                value = torch.ones_like(parameter, device=device) if parameter.ndim == 1 else _random(parameter, device)
                setattr(module, part, torch.nn.Parameter(value, requires_grad=False))
    if weights == "nf4+adapter":
        model = _with_adapter(model, device)
    return model.requires_grad_(False).eval(), _tokenizer(config.vocab_size)


def _random(like: torch.Tensor, device: str) -> torch.Tensor:
    return torch.empty(like.shape, dtype=torch.bfloat16, device=device).normal_(0, 0.02)


def _linear(weight: torch.Tensor, four_bits: bool) -> Any:
    import bitsandbytes

    out, width = weight.shape
    if not four_bits:
        plain = torch.nn.Linear(width, out, bias=False, device="meta")
        plain.weight = torch.nn.Parameter(weight, requires_grad=False)
        return plain
    layer = bitsandbytes.nn.Linear4bit(
        width, out, bias=False, compute_dtype=torch.bfloat16, compress_statistics=True, quant_type="nf4", device="meta"
    )
    layer.weight = bitsandbytes.nn.Params4bit(
        weight, requires_grad=False, quant_type="nf4", compress_statistics=True, module=layer
    )
    return layer.to(weight.device)  # quantises


def _with_adapter(model: Any, device: str) -> Any:
    from peft import LoraConfig, get_peft_model

    model.is_loaded_in_4bit = True  # how peft recognises such a model
    settings = LoraConfig(
        r=RANK, lora_alpha=RANK // 4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False
    )
    wrapped = get_peft_model(model, settings)
    return lighten(wrapped) if device.startswith("cuda") else wrapped  # as a worker serves it


def _tokenizer(vocabulary: int) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {"<bos>": 0, "<eos>": 1, "<unk>": 2}
    words.update({chr(FIRST_CHARACTER + number): number for number in range(3, vocabulary)})
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    inner.decoder = decoders.Fuse()
    inner.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<bos>", eos_token="<eos>", pad_token="<eos>")
