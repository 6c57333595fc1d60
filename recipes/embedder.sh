#!/usr/bin/env bash
# The bundled embedder from photographs to weights, thresholds and figures, and the experiment of
# docs/experiments/embedder.md. Resumable: run it again after a stop.
#
#   recipes/embedder.sh PHOTOS AUTOENCODER OUT
#
# PHOTOS       a folder with sub-folders camera_originals, camera_exif (large camera files) and
#              bsds500, coco128, imagenet_samples (small web pictures)
# AUTOENCODER  a folder with a latent-diffusion autoencoder, such as TAEF2: the fifth family
# OUT          data, runs and results
#
# Two free cores: about 25 minutes for the pictures, 25 for the embedder that ships, and 60 for the
# six shorter runs, each of which leaves one family out (or none).
set -euo pipefail
photos=$1 autoencoder=$2 out=$3
forgemap=${FORGEMAP:-.venv/bin/forgemap}
families=(nearest bilinear transposed shuffle "$(basename "$autoencoder")")
export OMP_NUM_THREADS=1

# Every picture as it is and as each autoencoder gives it back, processed and encoded alike.
pictures() { # NAME SPLIT SEED [FLAG...]
    local common=(--whole --autoencoder "nearest,bilinear,transposed,shuffle,$autoencoder")
    common+=(--crop 320 --split "$2" --seed "$3" --workers 2 "${@:4}")
    "$forgemap" synth "$photos/camera_originals" "$photos/camera_exif" "${common[@]}" \
        --per-photo 8 --out "$out/camera-$1"
    "$forgemap" synth "$photos/bsds500" "$photos/coco128" "$photos/imagenet_samples" \
        "${common[@]}" --per-photo 2 --out "$out/small-$1"
}
pictures train train 1 --vary
pictures val val 2 --vary
pictures test test 3 --vary
pictures plain-test test 6

train() { # NAME BATCH EPOCHS [FLAG...]
    "$forgemap" train embedder --data "$out/camera-train" --data "$out/small-train" \
        --held-out "$out/camera-val" --held-out "$out/small-val" \
        --model '{layers: 4, stem: spectra, image_size: 160}' --window 0 --encodings none \
        --batch "$2" --epoch-steps 50 --warmup-epochs 2 --lr 0.0008 --average 0.99 --seed 1 \
        --precision bf16-mixed --accelerator cpu --workers 1 --checkpoint-every 50 \
        --validate-on 400 --fit-on 800 --epochs "$3" --out "$out/run-$1" "${@:4}"
}
train all 16 12 --validate-every 2
for family in "${families[@]}"; do
    train "without-$family" 8 5 --validate-every 5 --leave-out "$family"
done
train short 8 5 --validate-every 5

"$forgemap" calibrate "$out/run-all/model" "$out/camera-val" "$out/small-val" --photos "$photos"
for set in test plain-test; do
    for kind in camera small; do
        "$forgemap" evaluate "$out/run-all/model" "$out/$kind-$set" --recompress 90,75 \
            --crops five --out "$out/results-$kind-$set"
    done
done
.venv/bin/python -m benchmarks.embedder_experiment "$out"
