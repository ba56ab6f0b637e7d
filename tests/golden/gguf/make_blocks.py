#!/usr/bin/env python3
"""Writes blocks.safetensors: random GGML blocks of every type and the values that the `gguf` package decodes.

    pip install gguf==0.19.0 safetensors numpy
    python make_blocks.py blocks.safetensors
"""
import sys

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize
from safetensors.numpy import save_file

BLOCKS = {"F32": 64, "F16": 64, "BF16": 64, "Q8_0": 8, "Q4_0": 8, "Q4_1": 8, "Q5_0": 8, "Q5_1": 8,
          "Q4_K": 6, "Q5_K": 6, "Q6_K": 6}
# Where the half-precision scales of a block lie.
SCALES = {"F16": [0], "Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2],
          "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}

rng = np.random.default_rng(20240607)
tensors = {}
for name, count in BLOCKS.items():
    kind = GGMLQuantizationType[name]
    data = rng.integers(0, 256, (count, GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
    for at in SCALES.get(name, []):
        # Any finite half: clearing an exponent bit of those that are not keeps signs, zeros and subnormals.
        halves = data[:, at:at + 2].copy().view(np.uint16)
        halves[(halves & 0x7C00) == 0x7C00] &= 0xBFFF
        data[:, at:at + 2] = halves.view(np.uint8)
    tensors[f"{name}.blocks"] = data
    with np.errstate(all="ignore"):
        values = dequantize(data, kind).astype(np.float32).reshape(-1)
    # A NaN equals any other NaN.
    values[np.isnan(values)] = np.nan
    tensors[f"{name}.values"] = values
save_file(tensors, sys.argv[1])
