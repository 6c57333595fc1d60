#!/usr/bin/env bash
# The paper's network from scratch, on what the bundled default learned from; see docs/experiments/baselines.md.
#
#   recipes/xception.sh OUT
#
# OUT    the folder of recipes/default.sh, whose pictures must be there. Half an hour on two cores with AMX.
set -euo pipefail
out=$1
forgemap=${FORGEMAP:-.venv/bin/forgemap}
export OMP_NUM_THREADS=1

data=()
for name in wide-{plain,plain-2,varied,varied-2,val} plain-val; do
    data+=(--data "$out/camera-$name" --data "$out/small-$name")
done
"$forgemap" train localizer "${data[@]}" --out "$out/xception-conv-4" --architecture declip --backbone xception \
    --decoder conv-4 --model '{image_size: 208}' --crop 208 --batch 16 --precision bf16-mixed --devices 2 \
    --accelerator cpu --steps 1400 --decay 0.5 --lr 0.001 --warmup 50 --validate-every 700 --validate-on 60 \
    --choice iou --seed 161 --untouched 0.25 --augment 0.2 --average 0.99 --weights '{splice: 2,
    autoencoder_paste: 1.5, copy_move: 1.5, noise: 0.3, resample: 0.6, jpeg_region: 0.5}'
