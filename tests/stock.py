"""The language model as transformers has it: trunk and one branch as one stock Qwen3."""

import pytest


def qwen3(lm, branch):
    """Qwen3ForCausalLM with the weights of the trunk and of a branch, "text" or "audio"."""
    transformers = pytest.importorskip("transformers")
    c = lm.config
    rows = c.vocab_size if branch == "text" else c.audio_vocab_size
    config = transformers.Qwen3Config(
        vocab_size=rows,
        hidden_size=c.hidden_size,
        intermediate_size=c.intermediate_size,
        num_hidden_layers=c.num_hidden_layers,
        num_attention_heads=c.num_attention_heads,
        num_key_value_heads=c.num_key_value_heads,
        head_dim=c.head_dim,
        rms_norm_eps=c.rms_norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta},
        tie_word_embeddings=False,
        attn_implementation="eager",
    )
    state = {}
    for name, tensor in lm.state_dict().items():
        parts = name.split(".")
        if parts[1] in ("shared_block", f"{branch}_block"):
            shift = 0 if parts[1] == "shared_block" else c.num_shared_layers
            state[".".join(["model", "layers", str(int(parts[3]) + shift), *parts[4:]])] = tensor
    state["model.norm.weight"] = lm.get_parameter(f"model.{branch}_norm.weight")
    state["lm_head.weight"] = lm.get_parameter(f"{branch}_lm_head.weight")
    embedding = "embed_tokens" if branch == "text" else "audio_embed"
    state["model.embed_tokens.weight"] = lm.get_parameter(f"model.{embedding}.weight")
    stock = transformers.Qwen3ForCausalLM(config).eval()
    stock.load_state_dict(state, strict=True)
    return stock
