"""Where in a causal model a zeroth-order step finds signal: gradients and curvature on SST-2, parameter group by group.

    python where_signal_is.py MODEL_DIR sst2/train.jsonl        (needs torch and transformers)

A step of MeZO along a Gaussian direction of a group lowers the loss by lr |g|^2 and raises it by lr^2 |g_B|^2 tr(H) / 2, where g is the
gradient, g_B that of a batch of 16 and H the Hessian, all of the group alone. The best learning rate is |g|^2 / (|g_B|^2 tr(H)), and
what it gains a step |g|^4 / (2 |g_B|^2 tr(H)). |g|^2 is estimated without bias from eight batches, tr(H) from three directions.
"""

import json
import random
import re
import sys

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

BATCHES, SIZE, EPS = 8, 16, 3e-3


def main():
    directory, data = sys.argv[1:]
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    words = [tokenizer(word).input_ids[0] for word in (" terrible", " great")]
    rows = [json.loads(line) for line in open(data)]
    random.Random(0).shuffle(rows)

    def batch(rows):
        texts = [tokenizer(row["sentence"].strip() + " It was").input_ids for row in rows]
        longest = max(map(len, texts))
        ids, mask = torch.zeros(len(texts), longest, dtype=torch.long), torch.zeros(len(texts), longest, dtype=torch.long)
        for row, text in enumerate(texts):
            ids[row, : len(text)], mask[row, : len(text)] = torch.tensor(text), 1
        return ids, mask, torch.tensor([len(text) - 1 for text in texts]), torch.tensor([row["label"] for row in rows])

    def loss(ids, mask, last, labels):
        hidden = model.model(input_ids=ids, attention_mask=mask).last_hidden_state[torch.arange(len(labels)), last]
        return cross_entropy(hidden @ model.lm_head.weight[words].T, labels)

    params, groups = dict(model.named_parameters()), {}
    third = model.config.num_hidden_layers / 3
    for name in params:
        place = re.search(r"layers\.(\d+)\.(?:\w+)\.(\w+)_proj", name)
        group = f"{place[2]} {int(int(place[1]) // third) + 1}/3" if place else "norms" if "norm" in name else "embedding"
        groups.setdefault(group, []).append(name)

    mean = {name: torch.zeros_like(param) for name, param in params.items()}
    of_batch = dict.fromkeys(groups, 0.0)
    for at in range(BATCHES):
        model.zero_grad()
        loss(*batch(rows[at * SIZE : (at + 1) * SIZE])).backward()
        for group, names in groups.items():
            of_batch[group] += sum(params[name].grad.pow(2).sum().item() for name in names) / BATCHES
        for name, param in params.items():
            mean[name] += param.grad / BATCHES

    probe = batch(rows[: 2 * SIZE])
    print(f"{'group':14} {'|g|^2':>9} {'|g_B|^2':>9} {'tr(H)':>9} {'best lr':>9} {'gain':>9}")
    with torch.inference_mode():
        middle = loss(*probe).item()
        for group, names in groups.items():
            trace = 0.0
            for seed in range(3):
                sides = 0.0
                for scale in (EPS, -EPS):
                    torch.manual_seed(seed)
                    kept = {name: params[name].data.clone() for name in names}
                    for name in names:
                        params[name].data.add_(torch.randn_like(params[name]), alpha=scale)
                    sides += loss(*probe).item()
                    for name in names:
                        params[name].data.copy_(kept[name])
                trace += (sides - 2 * middle) / EPS**2 / 3
            square = sum(mean[name].pow(2).sum().item() for name in names)
            signal = max((BATCHES * square - of_batch[group]) / (BATCHES - 1), 0.0)
            noise = of_batch[group] * max(trace, 1e-9)
            print(f"{group:14} {signal:9.3g} {of_batch[group]:9.3g} {trace:9.3g} {signal / noise:9.1g} {signal**2 / noise / 2:9.1g}", flush=True)


main()
