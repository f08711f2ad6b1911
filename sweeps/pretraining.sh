#!/usr/bin/env bash
# Queue 18 experiments: learning rate x width of the targets x size of the network. Then `dvc queue start -j 2` and
# `make table`. More options go to `dvc exp run`, such as  sweeps/pretraining.sh -S pretrain.steps=500
set -euo pipefail
cd "$(dirname "$0")/.."
# The targets leave out quantize and benchmark: timings of runs side by side mean nothing.
dvc exp run --queue \
    -S 'pretrain.learning_rate=3e-4,1e-3,3e-3' \
    -S 'pretrain.event_sd_s=0.05,0.1,0.2' \
    -S 'model.size=tiny,small' \
    "$@" challenge1 challenge2
