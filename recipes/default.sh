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
# Two free cores: about 15 minutes for the pictures, 90 for the training, 20 for thresholds and figures.
set -euo pipefail
photos=$1 autoencoder=$2 out=$3
forgemap=${FORGEMAP:-.venv/bin/forgemap}
here=$(dirname "$0")
camera=("$photos/camera_originals" "$photos/camera_exif")
small=("$photos/bsds500" "$photos/coco128" "$photos/imagenet_samples")
export OMP_NUM_THREADS=1

# Crops at native resolution, an equally processed untouched twin beside every edited one. "plain":
# edited and saved without loss; "varied": processed and compressed before and after. Camera files are
# large, so more crops are made of each.
methods=splice,splice_poisson,copy_move,inpaint_telea,inpaint_ns,inpaint_exemplar
methods+=,autoencoder_paste,latent_edit,resample,blur,noise,jpeg_region
pictures() { # NAME SPLIT SEED CAMERA_CROPS SMALL_CROPS [FLAG...]
    local common=(--crop 448 --untouched --autoencoder "$autoencoder" --workers 2 --methods "$methods")
    common+=(--split "$2" --seed "$3" "${@:6}")
    "$forgemap" synth "${camera[@]}" "${common[@]}" --per-photo "$4" --out "$out/camera-$1"
    "$forgemap" synth "${small[@]}" "${common[@]}" --per-photo "$5" --out "$out/small-$1"
}
pictures varied train 1 14 3 --vary
pictures varied-val val 2 10 3 --vary
pictures plain train 5 8 3
pictures plain-val val 6 13 2

# Test: every photograph (crops of at most 512 px: the small ones whole), and whole camera files.
"$forgemap" synth "$photos" --crop 512 --untouched --autoencoder "$autoencoder" --workers 2 \
    --methods "$methods" --per-photo 6 --seed 4 --split test --out "$out/test"
"$forgemap" synth "${camera[@]}" --untouched --methods splice,copy_move,inpaint_ns --workers 2 \
    --per-photo 2 --seed 5 --split test --out "$out/test-whole"

data() { # NAME...: the flags for its two manifests, one word a line
    local name
    for name in "$@"; do printf '%s\n' --data "$out/camera-$name" --data "$out/small-$name"; done
}
train=("$forgemap" train localizer --config "$here/default.yaml")
# Stage 1: lossless pictures; the clear case first lets the filters form.
mapfile -t plain < <(data plain plain-val)
"${train[@]}" "${plain[@]}" --out "$out/run-1" --steps 2000 --decay 0 --lr 0.0012 --warmup 100 \
    --validate-every 500 --validate-on 130 --seed 11 --untouched 0.25 --augment 0.1 --weights '{
    splice: 2, autoencoder_paste: 1.5, copy_move: 1.5, latent_edit: 0.5, splice_poisson: 0.8,
    inpaint_exemplar: 0.7, blur: 0.2, noise: 0.2, resample: 0.5, jpeg_region: 0.3}'
# Stage 2: everything, and more untouched pictures; the last average is what ships.
mapfile -t all < <(data plain plain-val varied varied-val)
"${train[@]}" "${all[@]}" --out "$out/run-2" --init "$out/run-1/model" --steps 6000 --decay 0.7 \
    --lr 0.001 --warmup 50 --validate-every 6000 --validate-on 260 --seed 41 --untouched 0.35 \
    --augment 0.35 --weights '{splice: 2, autoencoder_paste: 1.5, copy_move: 1.5, latent_edit: 2,
    inpaint_exemplar: 0.8, inpaint_telea: 0.8, inpaint_ns: 0.8, blur: 0.3, noise: 0.3,
    resample: 0.6, jpeg_region: 0.4}'

# Thresholds on the val split: lossless, varied, and with honest processing, edited by every method and
# every autoencoder that ships. Figures on the test split.
methods+=,inpaint_learned autoencoder=nearest,bilinear,transposed,shuffle,$autoencoder
pictures cal-honest val 22 6 2 --vary --benign 0.5
pictures cal-plain val 26 6 2
pictures cal-varied val 28 6 2 --vary
"$forgemap" calibrate "$out/run-2/model" "$out"/{camera,small}-cal-{varied,plain,honest} \
    --photos "$photos"
"$forgemap" evaluate "$out/run-2/model" "$out/test" --recompress 90,75 --workers 2 --out "$out/results"
"$forgemap" evaluate "$out/run-2/model" "$out/test-whole" --workers 2 --out "$out/results-whole"
