#!/usr/bin/env bash
# The bundled default from photographs to weights and figures. Resumable: run it again after a stop.
#
#   recipes/default.sh PHOTOS AUTOENCODER OUT
#
# PHOTOS       a folder with sub-folders camera_originals, camera_exif (large camera files) and
#              bsds500, coco128, imagenet_samples (small web pictures)
# AUTOENCODER  a folder with a latent-diffusion autoencoder, such as TAEF2
# OUT          data, runs and results
#
# Two cores: about 25 minutes for the pictures, STEPS1 + STEPS2 training steps at about one a second.
set -euo pipefail
photos=$1 autoencoder=$2 out=$3
forgemap=${FORGEMAP:-.venv/bin/forgemap}
steps1=${STEPS1:-5000} steps2=${STEPS2:-2000}
here=$(dirname "$0")
camera=("$photos/camera_originals" "$photos/camera_exif")
small=("$photos/bsds500" "$photos/coco128" "$photos/imagenet_samples")
export OMP_NUM_THREADS=1

# Pictures of every split: crops at native resolution with varied processing, an equally processed
# untouched twin beside every edited one. Camera files are large: more crops of each.
crops=(--crop 448 --vary --untouched --autoencoder "$autoencoder" --workers 2)
"$forgemap" synth "${camera[@]}" "${crops[@]}" --per-photo 14 --seed 1 --split train --out "$out/camera-1"
"$forgemap" synth "${small[@]}" "${crops[@]}" --per-photo 3 --seed 1 --split train --out "$out/small-1"
"$forgemap" synth "${camera[@]}" "${crops[@]}" --per-photo 10 --seed 2 --split val --out "$out/camera-val"
"$forgemap" synth "${small[@]}" "${crops[@]}" --per-photo 3 --seed 2 --split val --out "$out/small-val"
"$forgemap" synth "${camera[@]}" "${crops[@]}" --per-photo 20 --seed 3 --split train --out "$out/camera-2"
"$forgemap" synth "${small[@]}" "${crops[@]}" --per-photo 4 --seed 3 --split train --out "$out/small-2"
# Test: whole photographs, edited once by every method and saved without loss.
"$forgemap" synth "$photos" --autoencoder "$autoencoder" --workers 2 --untouched \
    --per-photo 13 --seed 4 --split test --out "$out/test"

val=(--data "$out/camera-val" --data "$out/small-val")
train=("$forgemap" train localizer --config "$here/default.yaml" --devices 2 --accelerator cpu)
"${train[@]}" --data "$out/camera-1" --data "$out/small-1" "${val[@]}" \
    --steps "$steps1" --decay 0 --out "$out/run-1"
"${train[@]}" --data "$out/camera-1" --data "$out/small-1" --data "$out/camera-2" \
    --data "$out/small-2" "${val[@]}" --init "$out/run-1/model" --seed 2 \
    --steps "$steps2" --decay 0.5 --out "$out/run-2"

"$forgemap" calibrate "$out/run-2/model" "$out/camera-val" "$out/small-val" --photos "$photos"
"$forgemap" evaluate "$out/run-2/model" "$out/test" --recompress 90,75 --out "$out/results"
