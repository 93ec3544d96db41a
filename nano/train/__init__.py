"""Training of nano, one module per stage: tokenizer, vocoder, codes, flow, lm."""
