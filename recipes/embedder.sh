#!/usr/bin/env bash
# The bundled embedder from photographs to weights, thresholds and figures, and the experiment of
# docs/experiments/embedder.md. Resumable: run it again after a stop.
#
#   recipes/embedder.sh PHOTOS AUTOENCODER OUT [experiment]
#
# PHOTOS       a folder with sub-folders camera_originals, camera_exif (large camera files) and
#              bsds500, coco128, imagenet_samples (small web pictures)
# AUTOENCODER  a folder with a latent-diffusion autoencoder, such as TAEF2: the fifth family
# OUT          data, runs and results
#
# Some three to four hours on two free cores, by its parts (it was not timed as a whole); most of it
# pictures and the three runs that lead to the embedder that ships. "experiment": also six shorter
# runs, each of which leaves one family out (or none): more than an hour more.
set -euo pipefail
photos=$1 autoencoder=$2 out=$3 part=${4:-}
forgemap=${FORGEMAP:-.venv/bin/forgemap}
families=(nearest bilinear transposed shuffle "$(basename "$autoencoder")")
export OMP_NUM_THREADS=1

# Every picture as it is and as each autoencoder gives it back, processed and encoded alike.
pictures() { # NAME SPLIT SEED LARGE SMALL CROP SMALLCROP [FLAG...]: pictures of each photograph
    local common=(--whole --autoencoder "nearest,bilinear,transposed,shuffle,$autoencoder")
    common+=(--split "$2" --seed "$3" --workers 2 "${@:8}")
    "$forgemap" synth "$photos/camera_originals" "$photos/camera_exif" "${common[@]}" \
        --per-photo "$4" --crop "$6" --out "$out/camera-$1"
    "$forgemap" synth "$photos/bsds500" "$photos/coco128" "$photos/imagenet_samples" \
        "${common[@]}" --per-photo "$5" --crop "$7" --out "$out/small-$1"
}
# Small photographs have less room: their plain crops are 192 pixels, so that some are reduced.
pictures plain train 11 12 2 256 192 --latent-noise 0.3
pictures varied train 1 2 1 256 256 --vary
pictures train train 1 8 2 320 320 --vary
pictures val val 2 8 2 320 320 --vary
pictures test test 3 8 2 320 320 --vary
pictures plain-test test 6 8 2 320 320

contrast() { # NAME BATCH EPOCHS [FLAG...]: on spectra, by CoDE's loss
    "$forgemap" train embedder --data "$out/camera-train" --data "$out/small-train" \
        --held-out "$out/camera-val" --held-out "$out/small-val" \
        --model '{layers: 4, stem: spectra, image_size: 160}' --window 0 --encodings none \
        --batch "$2" --epoch-steps 50 --warmup-epochs 2 --lr 0.0008 --average 0.99 --seed 1 \
        --precision bf16-mixed --accelerator cpu --workers 1 --checkpoint-every 50 \
        --validate-on 400 --fit-on 800 --epochs "$3" --out "$out/run-$1" "${@:4}"
}
label() { # NAME [FLAG...]: by the class of a photograph and its twin
    OMP_NUM_THREADS=2 "$forgemap" train embedder --data "$out/camera-plain" \
        --data "$out/small-plain" --data "$out/camera-varied" --data "$out/small-varied" \
        --held-out "$out/camera-val" --held-out "$out/small-val" \
        --objective label --twins --augment 0.6 --graphics 0.1 --encodings none \
        --weight-decay 0.001 --accelerator cpu --workers 1 --measure auc \
        --validate-on 600 --fit-on 2000 --epoch-steps 100 --out "$out/$1" "${@:2}"
}
good=$(basename "$autoencoder")
contrast all 16 12 --validate-every 2
label run-traces --model '{layers: 2, stem: traces, image_size: 160}' --stem-weights default \
    --often "{$good: 4}" --batch 12 --epochs 30 --warmup-epochs 0.5 --lr 0.001 --average 0.997 \
    --seed 1 --precision bf16-mixed --checkpoint-every 100 --validate-every 5
label run --model '{layers: 2, stem: both, image_size: 160, spectra_layers: 4}' \
    --stem-weights "$out/run-traces/model" --spectra-weights "$out/run-all/model" --stem-frozen \
    --benign 0.3 --often "{$good: 3}" --batch 16 --epochs 9 --warmup-epochs 0.3 --lr 0.0007 \
    --average 0.99 --seed 2 --checkpoint-every 50 --validate-every 3

figures() { # MODEL [FLAG...]: thresholds, and what they give on the test split
    "$forgemap" calibrate "$1" "$out/camera-val" "$out/small-val" --photos "$photos" "${@:2}"
    for set in test plain-test; do
        for kind in camera small; do
            "$forgemap" evaluate "$1" "$out/$kind-$set" --recompress 90,75 --crops five \
                --out "$out/results-$kind-$set"
        done
    done
}
figures "$out/run/model" --processing all --alarms 0.01 --processed 0.03
for set in test plain-test; do
    .venv/bin/python -m benchmarks.embedder_experiment "$out" \
        --results "$out/results-camera-$set" --results "$out/results-small-$set"
done
.venv/bin/python -m benchmarks.generated_alarms "$photos" --model "$out/run/model"
[ "$part" = experiment ] || exit 0

for family in "${families[@]}"; do
    contrast "without-$family" 8 5 --validate-every 5 --leave-out "$family"
done
contrast short 8 5 --validate-every 5
.venv/bin/python -m benchmarks.embedder_experiment "$out"
