#!/usr/bin/env python3
"""Load a directory that zofo exported as `transformers` does by default and compare it with zofo's own answers.

    pip install torch transformers safetensors
    python check_export.py EXPORT_DIR ANSWERS.safetensors

ANSWERS has `input_ids` [B, T] and `logits` [B, T, V] (f32), zofo's on the tuned weights. Checked are

- every parameter is loaded with the bits that the files have: nothing is rounded on the way;
- logits agree within 1e-4, or 1e-5 of the largest: both sides add in f32, each in its own order;
- the type named in config.json is what saves the bits: naming bfloat16 there makes `transformers` 5 round F32 tensors
  without a word (version 4 loads F32 whatever stands there). An export in the checkpoint's own type is loaded in that
  type, and only its bits are compared.
"""
import json, os, shutil, sys, tempfile
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

directory, answers = sys.argv[1], load_file(sys.argv[2])


def stored():
    files = sorted(name for name in os.listdir(directory) if name.endswith(".safetensors"))
    return {k: v for name in files for k, v in load_file(f"{directory}/{name}").items()}


def load(directory):
    return AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager").eval()


def changed(model, tensors):
    """Names of parameters whose bits are not those of the files (widening is no change)."""
    state = model.state_dict()
    return [k for k, v in tensors.items() if not torch.equal(state[k].float(), v.float())]


tensors, model = stored(), load(directory)
rounded = changed(model, tensors)
assert not rounded, f"loading changed {len(rounded)} tensors, among them {rounded[0]}"
f32 = any(v.dtype == torch.float32 for v in tensors.values())
if f32:
    assert model.dtype == torch.float32, model.dtype
    with torch.no_grad():
        found = model(answers["input_ids"]).logits
    difference = (found - answers["logits"]).abs().max().item()
    largest = answers["logits"].abs().max().item()
    assert difference <= max(1e-4, 1e-5 * largest), f"logits differ by {difference}, the largest is {largest}"

    with tempfile.TemporaryDirectory() as scratch:
        other = shutil.copytree(directory, f"{scratch}/other")
        config = json.load(open(f"{other}/config.json"))
        for name in {"dtype", "torch_dtype"} & set(config):
            config[name] = "bfloat16"
        json.dump(config, open(f"{other}/config.json", "w"))
        lost = len(changed(load(other), tensors))
    print(f"{len(tensors)} tensors bit for bit; logits within {difference:.2e} (largest {largest:.2f}); "
          f"naming bfloat16 would round {lost} tensors")
else:
    print(f"{len(tensors)} tensors bit for bit, loaded as {model.dtype}")
