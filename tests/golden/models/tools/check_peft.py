#!/usr/bin/env python3
"""Load adapters that zofo exported by PEFT, and the model they were folded into by `transformers`; compare with zofo's answers.

    pip install torch transformers safetensors peft
    python check_peft.py ADAPTER_DIR MERGED_DIR ANSWERS.safetensors

ANSWERS has `input_ids` [B, T] and `logits` (f32: [B, T, V], or [B, C] for a classifier), zofo's with adapters. Checked are

- the base is found by the path in adapter_config.json; adapters stand in exactly the layers of the file, bit for bit, and
  with them what PEFT keeps beside (a classifier);
- logits agree within 1e-4, or 1e-5 of the largest, with PEFT and with the merged model: all add in f32, each in its order.
"""
import json, sys
import torch
import transformers
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file

adapter, merged, answers = sys.argv[1], sys.argv[2], load_file(sys.argv[3])
config = json.load(open(f"{adapter}/adapter_config.json"))
base = config["base_model_name_or_path"]
name = json.load(open(f"{base}/config.json"))["architectures"][0]
of = getattr(transformers, name)


def load(directory):
    return of.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()


def difference(model, what):
    with torch.no_grad():
        found = model(input_ids=answers["input_ids"]).logits
    difference, largest = (found - answers["logits"]).abs().max().item(), answers["logits"].abs().max().item()
    assert difference <= max(1e-4, 1e-5 * largest), f"{what}: logits differ by {difference}, the largest is {largest}"
    return difference


model = PeftModel.from_pretrained(load(base), adapter).eval()
file = load_file(f"{adapter}/adapter_model.safetensors")
state = get_peft_model_state_dict(model)
assert state.keys() == file.keys(), f"only on one side: {sorted(state.keys() ^ file.keys())}"
changed = [k for k, v in file.items() if not torch.equal(state[k], v)]
assert not changed, f"loading changed {changed}"
plain = difference(load(merged), "merged")
with model.disable_adapter(), torch.no_grad():
    moved = (model(input_ids=answers["input_ids"]).logits - answers["logits"]).abs().max().item()
assert moved > 1e-2, f"the adapters change logits by {moved} only"
print(f"{name}: {len(file)} tensors bit for bit; logits within {difference(model, 'PEFT'):.2e} by PEFT, "
      f"{plain:.2e} merged; without adapters {moved:.2f} away")
