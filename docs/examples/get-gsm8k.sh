#!/usr/bin/env bash
# Fetches the training questions of GSM8K (Cobbe et al., 2021, arXiv:2110.14168) as prompts with completions: 500 drawn at random
# in valid.jsonl, the other 6,973 in train.jsonl, and the 500 as they were in questions.jsonl, for `zofo evaluate --task gsm8k`.
set -euo pipefail

SOURCE=https://raw.githubusercontent.com/openai/grade-school-math/3101c7d5072418e28b9008a6636bde82a006892c/grade_school_math/data/train.jsonl
SHA256=17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465
SET_ASIDE=500

if [[ $# -gt 2 || ${1:-} == -* ]]; then
    echo "usage: get-gsm8k.sh [DIRECTORY [FILE]]     default: gsm8k, of FILE instead of the network" >&2
    exit 2
fi
directory=${1:-gsm8k} file=${2:-}
mkdir -p "$directory"
drawn=$(mktemp)
trap 'rm -f "$drawn"' EXIT

if [[ -z $file ]]; then
    file=$directory/source.jsonl
    curl --fail --silent --show-error --location "$SOURCE" >"$file"
fi
echo "$SHA256  $file" | sha256sum --check --quiet

# The words of the task gsm8k. Training puts a model's chat template, if it has one, around them; the task does not.
as_completions() {
    sed -E 's/^\{"question": "(.*)", "answer": "(.*)"\}$/{"prompt": "Question: \1\\nAnswer:", "completion": " \2"}/'
}

# In the order of keyed MD5 sums of the lines: random, and the same everywhere.
LC_ALL=C sort --random-sort --random-source=<(yes zofo) "$file" >"$drawn"
head -n "$SET_ASIDE" "$drawn" >"$directory/questions.jsonl"
as_completions <"$directory/questions.jsonl" >"$directory/valid.jsonl"
tail -n +"$((SET_ASIDE + 1))" "$drawn" | as_completions >"$directory/train.jsonl"
