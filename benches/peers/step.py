"""Steps of MeZO and AdamW in PyTorch and transformers, as their users run them, for `benches/pytorch.rs`.

    python step.py CHECKPOINT THREADS mezo|adamw

Reads a job of one line from standard input for every step, and answers the seconds that the step took and its loss, by MeZO the
mean of both sides:

    {"sequences": [[token, ...], ...], "scored": [[first, end], ...], "gold": [candidate, ...]}

`scored` are the positions whose tokens the loss is about; `gold` is empty for the mean loss of all of them, or names the
right candidate of every group of sequences, whose loss is the cross-entropy over length-normalised scores.

MeZO's step is that of Malladi et al., 2023 (arXiv:2305.17333): reset the seed, move every parameter by +eps z; loss; reset,
-2 eps z; loss; reset, +eps z; reset, update. Sequences are padded on the left, and logits are those of every position:
what `transformers` computes. AdamW's is backpropagation and `torch.optim.AdamW`, fused: what `Trainer` runs.
"""

import json
import os
import sys
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch  # noqa: E402
from torch.nn.functional import cross_entropy, log_softmax  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

EPS, LR = 1e-3, 1e-6
ADAMW_LR = 1e-9  # AdamW moves a weight by about this: the loss stays comparable


def batch(job):
    """Left-padded ids, their mask, and the mask of positions that are scored."""
    longest = max(map(len, job["sequences"]))
    ids, mask, scored = (torch.zeros(len(job["sequences"]), longest, dtype=torch.long) for _ in range(3))
    for row, (tokens, (first, end)) in enumerate(zip(job["sequences"], job["scored"])):
        start = longest - len(tokens)
        ids[row, start:] = torch.tensor(tokens)
        mask[row, start:] = 1
        scored[row, start + first : start + end] = 1
    return ids, mask, scored.bool()


def token_loss(model, ids, mask, scored):
    return model(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(~scored, -100)).loss


def loss(model, ids, mask, scored, gold):
    if not gold:
        return token_loss(model, ids, mask, scored).item()
    logits = model(input_ids=ids, attention_mask=mask).logits
    log_probs = log_softmax(logits[:, :-1], dim=-1)
    scored = scored[:, 1:]
    log_probs = log_probs.gather(-1, ids[:, 1:].unsqueeze(-1)).squeeze(-1)
    scores = (log_probs * scored).sum(-1) / scored.sum(-1)
    return cross_entropy(scores.view(len(gold), -1), torch.tensor(gold)).item()


def move(params, seed, scale):
    torch.manual_seed(seed)
    for param in params:
        z = torch.normal(mean=0, std=1, size=param.data.size(), dtype=param.data.dtype)
        param.data = param.data + scale * z


def mezo(model):
    params = list(model.parameters())

    @torch.inference_mode()
    def step(seed, job):
        inputs = (*batch(job), job["gold"])
        move(params, seed, EPS)
        plus = loss(model, *inputs)
        move(params, seed, -2 * EPS)
        minus = loss(model, *inputs)
        move(params, seed, EPS)
        move(params, seed, -LR * (plus - minus) / (2 * EPS))
        return (plus + minus) / 2

    return step


def adamw(model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=ADAMW_LR, weight_decay=0.0, fused=True)

    def step(_, job):
        optimizer.zero_grad()
        mean = token_loss(model, *batch(job))
        mean.backward()
        optimizer.step()
        return mean.item()

    return step


def main():
    checkpoint, threads, optimizer = sys.argv[1:]
    torch.set_num_threads(int(threads))
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    step = {"mezo": mezo, "adamw": adamw}[optimizer](model)
    print(torch.__version__, flush=True)
    for seed, line in enumerate(sys.stdin):
        job = json.loads(line)
        begin = time.perf_counter()
        mean = step(seed, job)
        print(time.perf_counter() - begin, mean, flush=True)


main()
