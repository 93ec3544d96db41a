"""A GGUF file of the speaking path's shapes with random weights, for llama.cpp to run.

The same work as ours: a Qwen3 of as many layers, Q4_0, and a Q8_0 head of the speech vocabulary.
Values do not change the time a step takes, so every matrix repeats one pool of quantized rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from antiphon.export.reference.config import LMConfig

Q4_0, Q8_0 = gguf.GGMLQuantizationType.Q4_0, gguf.GGMLQuantizationType.Q8_0
_POOL_ROWS = 1024


def _matrices(c: LMConfig) -> Iterator[tuple[str, int, int, Any]]:
    """Name, outputs, inputs and kind of every matrix."""
    hidden, wide = c.hidden_size, c.intermediate_size
    queries, keys = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    yield "token_embd", c.audio_vocab_size, hidden, Q8_0
    yield "output", c.audio_vocab_size, hidden, Q8_0
    for i in range(c.num_hidden_layers):
        for name, outputs, inputs in (
            ("attn_q", queries, hidden),
            ("attn_k", keys, hidden),
            ("attn_v", keys, hidden),
            ("attn_output", hidden, queries),
            ("ffn_gate", wide, hidden),
            ("ffn_up", wide, hidden),
            ("ffn_down", hidden, wide),
        ):
            yield f"blk.{i}.{name}", outputs, inputs, Q4_0


def _vectors(c: LMConfig) -> Iterator[tuple[str, int]]:
    """Name and length of every norm."""
    yield "output_norm", c.hidden_size
    for i in range(c.num_hidden_layers):
        yield f"blk.{i}.attn_norm", c.hidden_size
        yield f"blk.{i}.ffn_norm", c.hidden_size
        yield f"blk.{i}.attn_q_norm", c.head_dim
        yield f"blk.{i}.attn_k_norm", c.head_dim


def _settings(writer: gguf.GGUFWriter, c: LMConfig) -> None:
    writer.add_block_count(c.num_hidden_layers)
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_key_length(c.head_dim)
    writer.add_value_length(c.head_dim)
    writer.add_rope_freq_base(c.rope_theta)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_vocab_size(c.audio_vocab_size)
    writer.add_tokenizer_model("no_vocab")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)


def write(path: Path, config: LMConfig) -> Path:
    """Write the file, whole or not at all, holding one matrix in memory."""
    pool = np.random.default_rng(0).standard_normal((_POOL_ROWS, config.hidden_size), np.float32)
    coded: dict[Any, NDArray[np.uint8]] = {
        kind: gguf.quants.quantize(pool / 50, kind).reshape(-1) for kind in (Q4_0, Q8_0)
    }
    partial = path.with_suffix(".partial")
    writer = gguf.GGUFWriter(partial, "qwen3")
    _settings(writer, config)
    for name, length in _vectors(config):
        float32 = np.dtype(np.float32)
        writer.add_tensor_info(f"{name}.weight", (length,), float32, 4 * length)
    for name, outputs, inputs, kind in _matrices(config):
        shape = (outputs, _row_bytes(inputs, kind))
        uint8 = np.dtype(np.uint8)
        writer.add_tensor_info(f"{name}.weight", shape, uint8, shape[0] * shape[1], raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, length in _vectors(config):
        writer.write_tensor_data(np.ones(length, np.float32))
    for _, outputs, inputs, kind in _matrices(config):
        writer.write_tensor_data(np.resize(coded[kind], (outputs, _row_bytes(inputs, kind))))
    writer.close()
    return partial.rename(path)


def _row_bytes(inputs: int, kind: Any) -> int:
    values, size = gguf.GGML_QUANT_SIZES[kind]
    return int(inputs // values * size)
