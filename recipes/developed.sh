#!/usr/bin/env bash
# Photographs that never were a JPEG: what a model does with them, and run "ap" of the log, trained on them.
#
#   recipes/developed.sh PHOTOS AUTOENCODER OUT [MODEL]
#
# PHOTOS, AUTOENCODER: as for default.sh. In the environment: TRAIN=1 trains from MODEL as run ap did, some
# 20 minutes on two cores after 5 for the pictures. Resumable: run it again after a stop.
set -euo pipefail
photos=$1 autoencoder=nearest,bilinear,transposed,shuffle,$2 out=$3 model=${4:-default}
forgemap=${FORGEMAP:-.venv/bin/forgemap} python=${PYTHON:-.venv/bin/python}
camera=("$photos/camera_originals" "$photos/camera_exif")
small=("$photos/bsds500" "$photos/coco128" "$photos/imagenet_samples")
export OMP_NUM_THREADS=1

pictures() { # NAME SPLIT SEED PER_PHOTO CROP PHOTOS_AND_FLAGS...
    "$forgemap" synth "${@:6}" --untouched --autoencoder "$autoencoder" --workers 2 \
        --methods "$methods" --split "$2" --seed "$3" --per-photo "$4" --crop "$5" --out "$out/$1"
}
methods=splice,splice_poisson,copy_move,inpaint_telea,inpaint_ns,inpaint_exemplar
methods+=,autoencoder_paste,inpaint_learned,resample,noise,jpeg_region,heal,recolour
developed=(--benign 1 --processing developed)
pictures camera-val val 301 20 1000 "${camera[@]}" "${developed[@]}"
pictures small-val val 302 1 1000 "${small[@]}" "${developed[@]}"
for set in camera-val small-val; do
    "$forgemap" evaluate "$model" "$out/$set" --split val --workers 2 --out "$out/results-$set"
done
for origin in camera reduced; do
    "$python" -m benchmarks.foreign "${camera[@]}" --per-photo 4 --origin "$origin" \
        --out "$out/foreign-$origin"
    "$forgemap" evaluate "$model" "$out/foreign-$origin" --workers 2 --out "$out/results-$origin"
done
[ -n "${TRAIN:-}" ] || exit 0

pictures camera train 303 12 1000 "${camera[@]}" "${developed[@]}"
pictures small train 304 1 1000 "${small[@]}" "${developed[@]}"
pictures camera-varied train 305 6 1000 "${camera[@]}" "${developed[@]}" --vary
pictures camera-native train 306 6 448 "${camera[@]}"
pictures small-native train 307 2 448 "${small[@]}"
methods=splice,splice_poisson,copy_move,inpaint_telea,inpaint_ns,inpaint_exemplar
methods+=,autoencoder_paste,inpaint_learned,heal
# Run ap drew these from the 27 kinds that there were before "developed".
pictures together train 414 3 512 "$photos" --vary --benign 0.6
mapfile -t data < <(printf -- "--data\n$out/%s\n" camera small camera-varied {camera,small}-native \
    {camera,small}-val together)
init=$model && [ "$init" != default ] || init=$(dirname "$0")/../src/forgemap/weights/default
"$forgemap" train localizer --config "$(dirname "$0")/default.yaml" "${data[@]}" --out "$out/run" \
    --init "$init" --precision 32-true --steps 520 --decay 0.75 --lr 0.0006 --warmup 40 \
    --validate-every 520 --validate-on 30 --seed 311 --untouched 0.45 --graphics 0.12 --textures 0.08 \
    --augment 0.45 --image 0.5 --weights '{splice: 2.5, copy_move: 2, splice_poisson: 1.3,
    autoencoder_paste: 1.5, inpaint_exemplar: 1.3, heal: 0.8, recolour: 0.8, inpaint_telea: 0.6,
    inpaint_ns: 0.6, inpaint_learned: 0.6, resample: 0.7, noise: 0.4, jpeg_region: 0.5}'
