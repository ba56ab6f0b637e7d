#!/usr/bin/env python3
"""The tiny tokenizers and chat templates of this folder, and what the reference implementations make of them.

    pip install tokenizers==0.23.3 jinja2==3.1.6
    python make_golden.py

Tokenizers are trained here and used through the Python package `tokenizers`; the older layouts are put together as
transformers converts them. Templates run in the environment of transformers' `utils/chat_template_utils.py`.
"""
import json, os
from datetime import datetime

from jinja2 import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers)

os.chdir(os.path.dirname(os.path.abspath(__file__)))
CORPUS = """The cat sat on the mat, and the dog lay in the sun. It wasn't a bad film; in fact, they've said it's great.
A train leaves at 10:45 and arrives at 12:30: how many minutes does the journey take? The answer is 105 minutes.
She sells sea shells by the sea shore, he'll think that I'm there. What is the meaning of this? Terrible, just terrible.
Größe, naïve café, où est la gare? Привет, мир. 你好，世界。 The quick brown fox jumps over the lazy dog again and again.""".split("\n") * 4
TEXTS = ["", " ", "Hello", "Hello world", " Hello  world \n", "The cat sat on the mat.", "it's they've 123 45", "\t\n\r\n  x",
         "naïve café Größe", "Привет, мир", "你好，世界。", "a\u0301 e\u0301", "🙂👩‍👩‍👧 ok", "\u0000\u0001\u007f\u0085\u00a0\u2028\ufeff",
         "<s>The cat</s>", "a <mask> b", "[CLS] dog [SEP] [MASK]", "ABC def GHI", "don't ... stop!!!", "ﬀ ﷺ ½ ①",
         "x" * 130, "no_such-token @ 50%", "great terrible"]


def save(name, tokenizer):
    tokenizer.save(f"{name}.json", pretty=False)


def cases(tokenizer):
    """Texts, ids, byte offsets (the package counts characters) and the decoded ids."""
    for text in TEXTS:
        bare, whole = tokenizer.encode(text, add_special_tokens=False), tokenizer.encode(text)
        at = [len(text[:i].encode()) for i in range(len(text) + 1)]
        yield {"text": text, "ids": bare.ids, "special_ids": whole.ids,
               "offsets": [[at[a], at[b]] for a, b in whole.offsets],
               "decoded": tokenizer.decode(whole.ids, skip_special_tokens=False),
               "skipped": tokenizer.decode(whole.ids, skip_special_tokens=True)}


def byte_level(use_regex=True):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


golden = {}
SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]

# Byte-level BPE, the layout of GPT-2; the same vocabulary serves the older layouts.
bpe = Tokenizer(models.BPE())
bpe.pre_tokenizer, bpe.decoder = byte_level(), decoders.ByteLevel()
bpe.train_from_iterator(CORPUS, trainers.BpeTrainer(
    vocab_size=420, special_tokens=SPECIALS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
bpe.post_processor = processors.ByteLevel(trim_offsets=False)
# Stored by many trainers; whoever reads the file must not pad or truncate.
bpe.enable_padding(length=40, pad_id=1, pad_token="<pad>")
bpe.enable_truncation(4)
save("byte_level", bpe)
bpe.no_padding(); bpe.no_truncation()
golden["byte_level"] = list(cases(bpe))
model = json.loads(bpe.to_str())["model"]
merges = [tuple(pair) for pair in model["merges"]]
json.dump(model["vocab"], open("vocab.json", "w"), ensure_ascii=False, separators=(",", ":"))
open("merges.txt", "w").write("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))


def from_files(mask_lstrip=False):
    tokenizer = Tokenizer(models.BPE(vocab=model["vocab"], merges=merges))
    tokenizer.pre_tokenizer, tokenizer.decoder = byte_level(), decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False, lstrip=mask_lstrip and t == "<mask>") for t in SPECIALS])
    return tokenizer


opt = from_files()
opt.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 2)])
golden["opt"] = list(cases(opt))
roberta = from_files(mask_lstrip=True)
roberta.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False, trim_offsets=True)
golden["roberta"] = list(cases(roberta))

# Byte-level BPE with an expression of its own: the layout of Llama 3 and Qwen2.
split = Tokenizer(models.BPE(vocab=model["vocab"], merges=merges, ignore_merges=True))
split.normalizer = normalizers.NFC()
expression = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
split.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(expression), "isolated"), byte_level(False)])
split.decoder = decoders.ByteLevel()
split.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIALS])
split.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
    single="<s> $A", special_tokens=[("<s>", 0)])])
save("split", split)
golden["split"] = list(cases(split))

# BPE over characters with bytes to fall back to: the layout of Llama 2 and Mistral.
llama = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
llama.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
llama.train_from_iterator(CORPUS[:3], trainers.BpeTrainer(
    vocab_size=400, special_tokens=["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)], show_progress=False))
fallback = json.loads(llama.to_str())
fallback["added_tokens"] = fallback["added_tokens"][:3]     # bytes are tokens of the model, not added ones
llama = Tokenizer.from_str(json.dumps(fallback))
llama.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
llama.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
save("byte_fallback", llama)
golden["byte_fallback"] = list(cases(llama))

# Unigram with sentencepiece's spaces: the layout of T5 and XLNet.
unigram = Tokenizer(models.Unigram())
unigram.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
unigram.pre_tokenizer, unigram.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
unigram.train_from_iterator(CORPUS, trainers.UnigramTrainer(
    vocab_size=160, special_tokens=["<unk>", "</s>"], unk_token="<unk>", show_progress=False))
unigram.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
save("unigram", unigram)
golden["unigram"] = list(cases(unigram))

# WordPiece, the layout of BERT: tokenizer.json and vocab.txt.
wordpiece = Tokenizer(models.WordPiece(unk_token="[UNK]"))
wordpiece.normalizer, wordpiece.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
wordpiece.train_from_iterator(CORPUS, trainers.WordPieceTrainer(
    vocab_size=300, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False))
wordpiece.decoder = decoders.WordPiece()
wordpiece.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
save("wordpiece", wordpiece)
golden["wordpiece"] = list(cases(wordpiece))
vocabulary = wordpiece.get_vocab()
open("vocab.txt", "w").write("".join(f"{token}\n" for token in sorted(vocabulary, key=vocabulary.get)))
wordpiece.normalizer = normalizers.BertNormalizer(lowercase=False)
golden["wordpiece_cased"] = list(cases(wordpiece))

json.dump(golden, open("encodings.json", "w"), ensure_ascii=True, separators=(",", ":"))


# --- chat templates ---------------------------------------------------------------------------------

class AssistantTracker(Extension):
    """What transformers does with `{% generation %}`, less the tracking."""
    tags = {"generation"}

    def parse(self, parser):
        from jinja2 import nodes
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    def _render(self, caller):
        return caller()


def environment():
    def raise_exception(message):
        raise TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    jinja = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[AssistantTracker, loopcontrols])
    jinja.filters["tojson"] = tojson
    jinja.globals["raise_exception"] = raise_exception
    jinja.globals["strftime_now"] = datetime(2024, 7, 26).strftime
    return jinja


def conversation(*turns):
    return [{"role": role, "content": content} for role, content in turns]


user = ("user", "What is 2 + 2?\n<b>\"quoted\" & 'so'</b> é 🙂")
CONVERSATIONS = {
    "user": conversation(user),
    "system": conversation(("system", " Be brief. "), user),
    "turns": conversation(user, ("assistant", "<think>\nsum\n</think>\n\n4"), ("user", "  Sure?\n")),
    "system_turns": conversation(("system", "Be brief."), user, ("assistant", "4"), ("user", "Sure?"), ("assistant", "Yes.")),
    "assistant_first": conversation(("assistant", "Hello"), user),
}
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
chat = []
for file in sorted(os.listdir("templates")):
    template = environment().from_string(open(f"templates/{file}", newline="").read())
    for name, messages in CONVERSATIONS.items():
        for prompt in (False, True):
            case = {"template": file, "messages": messages, "add_generation_prompt": prompt}
            try:
                case["text"] = template.render(messages=messages, tools=None, documents=None, add_generation_prompt=prompt, **TOKENS)
            except TemplateError as error:
                case["error"] = str(error)
            chat.append(case)
json.dump(chat, open("conversations.json", "w"), ensure_ascii=True, separators=(",", ":"))
