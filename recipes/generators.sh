#!/usr/bin/env bash
# The generators that ship, from photographs: four autoencoders and an inpainting network.
# Resumable: run it again after a stop.
#
#   recipes/generators.sh PHOTOS OUT [STEPS]
#
# PHOTOS  a folder of photographs (its train split is learned, its val split measured)
# OUT     runs; OUT/<name>/model is what `forgemap synth --autoencoder` takes
# STEPS   go on to so many steps after those that were shipped (DECAY=0.5 lets the rate of `nearest`
#         fall, which had not begun to)
#
# One core: half a minute for the crops, then 0.08 s a step for an autoencoder and 0.15 s for the
# inpainting network: about seven minutes.
set -euo pipefail
photos=$1 out=$2 more=${3:-}
forgemap=${FORGEMAP:-.venv/bin/forgemap}
export OMP_NUM_THREADS=1

run() { # NAME SEED "STEPS…" COMMAND…: in stages, over the second half of each of which the rate falls
    local steps
    for steps in $3 $more; do
        "$forgemap" train "${@:4}" --data "$photos" --out "$out/$1" --cache "$out/crops" \
            --seed "$2" --steps "$steps" --precision bf16-mixed --accelerator cpu \
            --validate-every 250
    done
}
run nearest 1 "250" autoencoder --architecture nearest --decay "${DECAY:-0}"
run bilinear 2 "200 1000" autoencoder --architecture bilinear
run transposed 3 "100" autoencoder --architecture transposed
run shuffle 4 "100" autoencoder --architecture shuffle
run inpaint 5 "300 1500" inpainter
