#!/usr/bin/env bash
# Queue 18 experiments: learning rate x mask ratio x size of the network. Then `dvc queue start -j 2` and
# `make table`. More options go to `dvc exp run`, such as  sweeps/pretraining.sh -S pretrain.steps=500
set -euo pipefail
cd "$(dirname "$0")/.."
# The targets leave out quantize and benchmark: timings of runs side by side mean nothing.
dvc exp run --queue \
    -S 'pretrain.learning_rate=3e-4,1e-3,3e-3' \
    -S 'pretrain.mask_fraction=0.3,0.5,0.7' \
    -S 'model.size=tiny,small' \
    "$@" challenge1 challenge2
