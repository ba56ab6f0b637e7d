#!/usr/bin/env python3
"""What the reference makes of the rows beside this file: `expected.json`.

    pip install tokenizers==0.23.3
    python make_golden.py

Prompts are written as in MeZO's `templates.py` (causal) and LM-BFF's template language (masked), tokens counted as in MeZO's
`encode_prompt`: the length of the whole minus the length of the prompt, both without spaces at the end. `byte_fallback` merges
across spaces, so that the prompt is not always the beginning of the whole: then the first token that ends behind it counts.
"""
import json, os
from tokenizers import AddedToken, Tokenizer

os.chdir(os.path.dirname(os.path.abspath(__file__)))


def upper(text): return text[0].upper() + text[1:]
def lower(text): return text[:1].lower() + text[1:]
def question(text): return upper(text if text.endswith("?") else text + "?")


def inside(text):
    words = text.split(" ")
    return " ".join(words if words[0] == "I" else [words[0].lower()] + words[1:])


def copa(row):
    premise = row["premise"].rstrip()
    return (premise[:-1] if premise.endswith(".") else premise) + {"effect": " so ", "cause": " because "}[row["question"]]


# The prompt, and the candidates as the label numbers them.
CAUSAL = {
    "sst2": (lambda r: f"{r['sentence'].strip()} It was", [" terrible", " great"]),
    "sst5": (lambda r: f"{r['text'].strip()} It was", [" terrible", " bad", " okay", " good", " great"]),
    "trec": (lambda r: f"Question: {r['text'].strip()}\nType:",
             [" Description", " Entity", " Abbreviation", " Human", " Location", " Number"]),
    "rte": (lambda r: f"{r['premise']}\nDoes this mean that \"{r['hypothesis']}\" is true? Yes or No?\n", ["Yes", "No"]),
    "cb": (lambda r: f"Suppose {r['premise']} Can we infer that \"{r['hypothesis']}\"? Yes, No, or Maybe?\n",
           ["Yes", "No", "Maybe"]),
    "boolq": (lambda r: f"{r['passage']} {question(r['question'])}\n", ["No", "Yes"]),
    "wsc": (lambda r: f"{r['text']}\nIn the previous sentence, does the pronoun \"{r['span2_text'].lower()}\" refer to "
                      f"{r['span1_text']}? Yes or No?\n", ["No", "Yes"]),
    "wic": (lambda r: f"Does the word \"{r['word']}\" have the same meaning in these two sentences? Yes, No?\n"
                      f"{r['sentence1']}\n{r['sentence2']}\n", ["No", "Yes"]),
    "multirc": (lambda r: f"{r['paragraph']}\nQuestion: {r['question']}\nI found this answer \"{r['answer']}\". "
                          "Is that correct? Yes or No?\n", ["No", "Yes"]),
    "copa": (copa, lambda r: [inside(r["choice1"]), inside(r["choice2"])]),
    "record": (lambda r: r["passage"].replace("@highlight\n", "- ") + "\n-",
               lambda r: [" " + r["query"].replace("@placeholder", entity) for entity in r["entities"]]),
    "squad": (lambda r: f"Title: {r['title']}\nContext: {r['context']}\nQuestion: {r['question'].strip()}\nAnswer:",
              lambda r: [f" {r['answers']['text'][0]}\n"]),
    "drop": (lambda r: f"Passage: {r['passage']}\nQuestion: {r['question'].strip()}\nAnswer:",
             lambda r: [f" {r['answers_spans']['spans'][0]}\n"]),
    "gsm8k": (lambda r: f"Question: {r['question'].strip()}\nAnswer:", lambda r: [f" {r['answer']}\n\n"]),
}
GOLD = {
    "record": lambda r: [r["entities"].index(answer) for answer in r["answers"]],
    "squad": lambda r: [0],
    "drop": lambda r: [0],
    "gsm8k": lambda r: [0],
}


def was(field): return lambda r: [r[field].strip(), " It was", None, "."]
def this_is(field): return lambda r: [r[field].strip(), " This is", None, "."]
def nli(a, b): return lambda r: [r[a].strip()[:-1], "?", None, ",", " " + lower(r[b].strip())]
def pair(a, b): return lambda r: [r[a].strip(), None, ",", " " + lower(r[b].strip())]


GRADES = ["terrible", "great"]
# The parts, which LM-BFF encodes one by one, with None for the mask token, and the label words.
MASKED = {
    "sst2": (was("sentence"), GRADES), "mr": (was("text"), GRADES), "cr": (was("text"), GRADES),
    "mpqa": (was("text"), GRADES), "sst5": (was("text"), ["terrible", "bad", "okay", "good", "great"]),
    "mnli": (nli("premise", "hypothesis"), ["Yes", "Maybe", "No"]),
    "snli": (nli("premise", "hypothesis"), ["Yes", "Maybe", "No"]),
    "rte": (nli("premise", "hypothesis"), ["Yes", "No"]), "qnli": (nli("question", "sentence"), ["Yes", "No"]),
    "trec": (lambda r: [None, ":", " " + r["text"].strip()],
             ["Description", "Entity", "Expression", "Human", "Location", "Number"]),
    "cola": (this_is("sentence"), ["incorrect", "correct"]), "subj": (this_is("text"), ["subjective", "objective"]),
    "mrpc": (pair("sentence1", "sentence2"), ["No", "Yes"]), "qqp": (pair("question1", "question2"), ["No", "Yes"]),
}


def rows(task):
    return [json.loads(line) for line in open(f"{task}.jsonl")]


def tokenizer(name):
    loaded = Tokenizer.from_file(f"../text/{name}.json")
    loaded.no_padding(); loaded.no_truncation()
    return loaded


def start(t, prompt, whole, alone):
    """MeZO's count of the prompt, or where a merge crosses its end the first token that ends behind it."""
    whole = t.encode(whole)
    if whole.ids[:len(alone)] == alone:
        return len(alone)
    return next(i for i, (_, end) in enumerate(whole.offsets) if end > len(prompt))


crossing = {}
tokenizers = {name: tokenizer(name) for name in ["byte_level", "split", "byte_fallback"]}
expected = {"causal": {}, "masked": {}}
for task, (prompt_of, candidates_of) in CAUSAL.items():
    cases = expected["causal"][task] = []
    for row in rows(task):
        prompt = prompt_of(row)
        candidates = candidates_of(row) if callable(candidates_of) else candidates_of
        wholes = [(prompt + candidate).strip(" ") for candidate in candidates]
        prompt = prompt.strip(" ")
        spans = {}
        for name, t in tokenizers.items():
            alone = t.encode(prompt).ids
            ids = [t.encode(whole).ids for whole in wholes]
            crossing[name] = crossing.get(name, 0) + sum(whole[:len(alone)] != alone for whole in ids)
            spans[name] = [[start(t, prompt, whole, alone), len(ids)] for whole, ids in zip(wholes, ids)]
        cases.append({"prompt": prompt, "candidates": [whole[len(prompt):] for whole in wholes],
                      "gold": GOLD.get(task, lambda r: [r["label"]])(row), "spans": spans})

# The tiny vocabulary has few whole words: the label words are added to it, each with its space.
words = sorted({word for _, words in MASKED.values() for word in words})
masked = tokenizer("byte_level")
masked.add_tokens([AddedToken(f" {word}", normalized=False) for word in words])
expected["words"] = {word: masked.token_to_id(f" {word}") for word in words}
for task, (parts_of, words) in MASKED.items():
    cases = expected["masked"][task] = []
    for row in rows(task):
        ids = [masked.token_to_id("<s>")]
        for part in parts_of(row):
            ids += [masked.token_to_id("<mask>")] if part is None else masked.encode(part, add_special_tokens=False).ids
        ids.append(masked.token_to_id("</s>"))
        cases.append({"ids": ids, "position": ids.index(masked.token_to_id("<mask>")), "gold": row["label"],
                      "words": [expected["words"][word] for word in words]})

with open("expected.json", "w") as out:
    json.dump(expected, out, ensure_ascii=False, separators=(",", ":"))
    out.write("\n")
print("prompts that a merge crosses:", crossing)
