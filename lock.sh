#!/usr/bin/env bash
# Pin every package that pyproject.toml names or brings, for Python 3.11 and later on every system. `make lock` runs
# this. Versions stay as they are unless an argument says otherwise: `./lock.sh --upgrade` takes the newest,
# `./lock.sh --upgrade-package mne` the newest of one package.
#
# The CUDA libraries are constraints: pip takes these versions when it installs a build of PyTorch that needs them,
# and a CPU build needs none. There are no hashes: builds of PyTorch for CPU and CUDA have one version and different
# files, pip refuses a file with hashes for some packages only, and the wheelhouses of clusters build their own files.
set -euo pipefail
cd "$(dirname "$0")"

work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
cat requirements*.txt | grep -v '^-' > "$work/now"
cuda='^(cuda-|nvidia-|triton==)'

# pins FILE GROUP ARGUMENTS...: one line a package, for the dependencies and this group
pins() {
    cp "$work/now" "$work/$1"
    uv pip compile pyproject.toml ${2:+--group "$2"} --universal --python-version 3.11 --quiet \
        --no-header --annotation-style line --output-file "$work/$1" "${@:3}" > /dev/null
}

# without FILE OTHER: the lines of FILE whose package and version are not in OTHER
without() {
    awk 'NR == FNR { seen[$1]; next } !($1 in seen)' "$2" "$1"
}

made="# Made by \`make lock\` from pyproject.toml, which says what each direct dependency is for."
pins all "" "$@"
pins dask dask "$@"
pins board board "$@"
pins dev dev "$@"
pins bench bench "$@"

{ echo "$made"; grep -E "$cuda" "$work/all"; } > requirements-cuda.txt
{ echo "$made"; echo "-c requirements-cuda.txt"; grep -vE "$cuda" "$work/all"; } > requirements.txt
{ echo "$made"; echo "-r requirements.txt"; without "$work/dask" "$work/all"; } > requirements-dask.txt
{ echo "$made"; echo "-r requirements.txt"; without "$work/board" "$work/all"; } > requirements-board.txt
{ echo "$made"; echo "-r requirements.txt"; without "$work/dev" "$work/all"; } > requirements-dev.txt
{ echo "$made"; echo "-r requirements-dev.txt"; without "$work/bench" "$work/dev"; } > requirements-bench.txt
