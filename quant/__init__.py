"""Weight quantization in numpy: schemes, rounding, packing, error measures."""
