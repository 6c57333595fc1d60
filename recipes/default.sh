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
# Two free cores: about 60 minutes for the pictures, 520 for the training, 60 for thresholds and figures;
# much less where the processor has AMX. RUN=run-8 or run-9 measures an earlier version at the end.
set -euo pipefail
photos=$1 autoencoder=$2 out=$3
forgemap=${FORGEMAP:-.venv/bin/forgemap} python=${PYTHON:-.venv/bin/python}
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

# Stage 3: honest processing before and after the edit, every autoencoder that ships and the inpainting
# network; latent edits, of which nothing is learned, hardly ever.
edits=$methods,inpaint_learned ae=$autoencoder
methods=${edits/latent_edit,/} autoencoder=nearest,bilinear,transposed,shuffle,$ae
pictures honest train 32 64 14 --vary --benign 0.5
pictures honest-plain train 33 17 4
pictures honest-val val 22 6 2 --vary --benign 0.5
mapfile -t honest < <(data honest honest-plain honest-val varied plain-val)
"${train[@]}" "${honest[@]}" --out "$out/run-3" --init "$out/run-2/model" --steps 4000 --decay 0.7 \
    --lr 0.001 --warmup 50 --validate-every 2000 --validate-on 150 --seed 71 --untouched 0.4 \
    --augment 0.4 --image 0.5 --weights '{splice: 2, copy_move: 1.5, inpaint_telea: 0.7,
    inpaint_ns: 0.7, autoencoder_paste: 1.3, resample: 0.6, blur: 0.3, noise: 0.3, jpeg_region: 0.5,
    latent_edit: 0.2}'

# Stage 4: more of what is still accused; a blurred region is no edit any more.
methods=splice,splice_poisson,copy_move,inpaint_telea,inpaint_ns,inpaint_exemplar
methods+=,autoencoder_paste,inpaint_learned
pictures hard train 35 10 3 --benign 0.8 --processing portrait,logo,text,crop
mapfile -t hard < <(data hard honest honest-plain honest-val plain-val)
"${train[@]}" "${hard[@]}" --out "$out/run-4" --init "$out/run-3/model" --steps 1100 --decay 0.6 \
    --lr 0.0006 --warmup 20 --average 0.99 --validate-every 1100 --validate-on 150 --seed 81 \
    --untouched 0.5 --augment 0.4 --image 0.5 --weights '{splice: 2, copy_move: 1.5,
    inpaint_telea: 0.7, inpaint_ns: 0.7, autoencoder_paste: 1.3, resample: 0.6, blur: 0, noise: 0.3,
    jpeg_region: 0.5}'

# Stage 5: stage 2 finds more, stage 4 accuses less, their average does both. From there on with 40 % of the
# pictures saved without loss.
methods=${edits//latent_edit,/} && methods=${methods/blur,/}
pictures lossless train 44 20 4
mapfile -t statistics < <(data honest honest-plain plain varied hard)
average() { # OUT SHARE MODEL SHARE MODEL
    "$forgemap" train average --out "$out/$1" --models "$3" --shares "$2" --models "$5" --shares "$4" \
        "${statistics[@]}" --crop 208 --batches 70
}
average soup .4 "$out/run-2/model" .6 "$out/run-4/model"
mapfile -t last < <(data lossless plain honest honest-plain hard varied honest-val plain-val)
"${train[@]}" "${last[@]}" --out "$out/run-5" --init "$out/soup" --steps 5000 --decay 0.7 \
    --lr 0.001 --warmup 50 --validate-every 2500 --validate-on 150 --seed 91 --untouched 0.4 \
    --augment 0.3 --image 0.5 --weights '{splice: 2, copy_move: 1.5, inpaint_telea: 0.7,
    inpaint_ns: 0.7, autoencoder_paste: 1.3, resample: 0.6, blur: 0, noise: 0.3, jpeg_region: 0.5,
    latent_edit: 0}'

# Stage 6: logos, which were still taken for edits.
methods=splice,splice_poisson,copy_move,inpaint_telea,inpaint_ns,inpaint_exemplar
methods+=,autoencoder_paste,inpaint_learned
pictures logo train 55 5 2 --benign 0.9 --processing logo
mapfile -t logo < <(data logo hard honest plain lossless varied plain-val)
"${train[@]}" "${logo[@]}" --out "$out/run-6" --init "$out/run-5/model" --steps 600 --decay 0.7 \
    --lr 0.0006 --warmup 20 --average 0.99 --validate-every 600 --validate-on 60 --seed 101 \
    --untouched 0.5 --augment 0.3 --image 0.5 --weights '{splice: 2, copy_move: 1.5,
    inpaint_telea: 0.7, inpaint_ns: 0.7, autoencoder_paste: 1.3, resample: 0.6, blur: 0, noise: 0.3,
    jpeg_region: 0.5}'

# Stage 7: wider material: tables of other encoders, healing and recolouring, frames and watermarks.
methods=splice,splice_poisson,copy_move,inpaint_telea,inpaint_ns,inpaint_exemplar
methods+=,autoencoder_paste,inpaint_learned,resample,noise,jpeg_region,heal,recolour
pictures wide-val val 121 4 1 --vary --benign 0.3
pictures wide-plain train 60 14 3
pictures wide-plain-2 train 64 10 3
pictures wide-varied train 61 14 4 --vary
pictures wide-varied-2 train 65 14 4 --vary
pictures wide-honest train 62 20 5 --vary --benign 0.5
methods=splice,splice_poisson,copy_move,inpaint_telea,inpaint_ns,inpaint_exemplar
methods+=,autoencoder_paste,inpaint_learned,heal
pictures wide-overlay train 63 6 3 --benign 0.9 --processing logo,text,watermark,frame
mapfile -t wide < <(data wide-{plain,plain-2,varied,varied-2,honest,overlay,val} plain-val)
"${train[@]}" "${wide[@]}" --out "$out/run-7" --init "$out/run-6/model" --steps 5000 --decay 0.7 \
    --lr 0.001 --warmup 50 --validate-every 1500 --validate-on 150 --seed 111 --untouched 0.4 \
    --augment 0.45 --image 0.5 --weights '{splice: 2, copy_move: 1.5, inpaint_telea: 0.7,
    inpaint_ns: 0.7, autoencoder_paste: 1.3, resample: 0.6, noise: 0.3, jpeg_region: 0.5}'

# Stage 8: more after portrait blur, which healing looks like, and graphics of endless variety drawn
# over the crops, since logos were still taken for edits.
methods=splice,splice_poisson,copy_move,inpaint_telea,inpaint_ns,inpaint_exemplar
methods+=,autoencoder_paste,inpaint_learned
pictures wide-hard train 66 10 3 --benign 0.9 --processing portrait,logo
mapfile -t last < <(data wide-{plain,plain-2,varied,varied-2,honest,overlay,hard,val} plain-val)
"${train[@]}" "${last[@]}" --out "$out/run-8" --init "$out/run-7/model" --steps 8100 --decay 0.42 \
    --lr 0.001 --warmup 50 --validate-every 1500 --validate-on 60 --seed 141 --untouched 0.42 \
    --graphics 0.18 --augment 0.45 --image 0.5 --weights '{splice: 2, copy_move: 1.5,
    inpaint_telea: 0.7, inpaint_ns: 0.7, autoencoder_paste: 1.3, resample: 0.6, noise: 0.3,
    jpeg_region: 0.5}'

# Stage 9: zebras. Things of a strong texture drawn into the crops, which are then shrunk and saved as JPEG,
# so that being unlike its surroundings is not enough to be an edit. (In the run that was version 6 none
# of them was marked; since then --textures pastes one in three as an edit.)
"${train[@]}" "${last[@]}" --out "$out/run-9" --init "$out/run-8/model" --steps 4000 --decay 0.8 \
    --lr 0.001 --warmup 50 --validate-every 1000 --validate-on 60 --seed 161 --untouched 0.42 \
    --graphics 0.15 --textures 0.12 --augment 0.5 --image 0.5 --weights '{splice: 2, copy_move: 1.5,
    inpaint_telea: 0.7, inpaint_ns: 0.7, autoencoder_paste: 1.3, resample: 0.6, noise: 0.3,
    jpeg_region: 0.5}'

# Stage 10: latent edits, of which nothing was learned among all others; as more than half of the edits for
# a while they are learned at once, but for those of a good autoencoder.
methods=latent_edit autoencoder=nearest,bilinear,transposed,shuffle,$ae
pictures latent train 71 4 3
mapfile -t focus < <(data latent wide-plain plain-val)
"${train[@]}" "${focus[@]}" --out "$out/run-10" --init "$out/run-9/model" --steps 700 --decay 0 \
    --lr 0.001 --warmup 30 --validate-every 350 --validate-on 60 --seed 171 --untouched 0.3 \
    --augment 0.1 --image 0.3 --weights '{latent_edit: 12, inpaint_telea: 0.3, inpaint_ns: 0.3,
    inpaint_learned: 0.3, recolour: 0.5, resample: 0.3, noise: 0.3, jpeg_region: 0.3}'

# Stage 11: the same for what else is left after compression and shrinking.
mapfile -t looks < <(data latent wide-{varied,varied-2,honest,plain,val} plain-val varied-val)
"${train[@]}" "${looks[@]}" --out "$out/run-11" --init "$out/run-10/model" --steps 1600 --decay 0 \
    --lr 0.001 --warmup 30 --validate-every 800 --validate-on 60 --seed 181 --untouched 0.4 \
    --graphics 0.12 --textures 0.08 --augment 0.7 --image 0.4 --weights '{latent_edit: 4, splice: 4,
    splice_poisson: 2, copy_move: 2, recolour: 0.7, heal: 0.7, inpaint_telea: 0.5, inpaint_ns: 0.5,
    inpaint_learned: 0.7, inpaint_exemplar: 0.8, resample: 0.6, noise: 0.3, jpeg_region: 0.3}'

# Stage 12: everything together again.
mapfile -t together < <(data latent wide-{plain,plain-2,varied,varied-2,honest,overlay,hard,val} \
    plain-val varied-val)
"${train[@]}" "${together[@]}" --out "$out/run-12" --init "$out/run-11/model" --steps 4200 --decay 0.8 \
    --lr 0.001 --warmup 50 --validate-every 4200 --validate-on 75 --seed 191 --untouched 0.42 \
    --graphics 0.15 --textures 0.08 --augment 0.5 --image 0.5 --weights '{splice: 2.5, latent_edit: 2,
    copy_move: 2, splice_poisson: 1.3, autoencoder_paste: 1.3, heal: 0.8, recolour: 0.8,
    inpaint_telea: 0.5, inpaint_ns: 0.5, inpaint_learned: 0.7, resample: 0.6, noise: 0.3,
    jpeg_region: 0.4}'

# Stage 13: latent edits of the good autoencoder alone, where no trace can stand in for content.
content=(--crop 320 --untouched --autoencoder "$ae" --workers 2 --methods latent_edit)
"$forgemap" synth "${small[@]}" "${camera[@]}" "${content[@]}" --split train --seed 81 \
    --per-photo 2 --out "$out/content"
"$forgemap" synth "${small[@]}" "${content[@]}" --split val --seed 82 --per-photo 1 \
    --out "$out/content-val"
"${train[@]}" --data "$out/content" --data "$out/small-wide-plain" --data "$out/content-val" \
    --out "$out/run-13" --init "$out/run-12/model" --steps 900 --decay 0 --lr 0.001 \
    --warmup 30 --validate-every 300 --validate-on 60 --seed 201 --untouched 0.3 --augment 0.1 --image 0.3 --weights '{latent_edit: 14,
    recolour: 0.5, inpaint_telea: 0.3, inpaint_ns: 0.3, inpaint_learned: 0.3, resample: 0.3,
    noise: 0.3, jpeg_region: 0.3}'

# Stage 14: all of it, with more of what sets the thresholds; the last average is what ships.
methods=splice,splice_poisson,copy_move,inpaint_telea,inpaint_ns,inpaint_exemplar
methods+=,autoencoder_paste,inpaint_learned,recolour
autoencoder=nearest,bilinear,transposed,shuffle,$ae
pictures wide-negative train 74 9 3 --benign 0.9 --processing grain,stitch,avif
mapfile -t all < <(data latent wide-{plain,plain-2,varied,varied-2,honest,overlay,hard,val} \
    wide-negative plain-val varied-val)
"${train[@]}" "${all[@]}" --data "$out/content" --out "$out/run-14" \
    --init "$out/run-13/model" --steps 5200 --decay 0.7 --lr 0.001 --warmup 50 \
    --validate-every 1700 --validate-on 75 --seed 211 --untouched 0.42 \
    --graphics 0.15 --textures 0.1 --augment 0.45 --image 0.5 --weights '{splice: 2.5,
    latent_edit: 4, copy_move: 2, splice_poisson: 1.3, autoencoder_paste: 1.5, inpaint_exemplar: 1.3,
    heal: 0.8, recolour: 0.8, inpaint_telea: 0.6, inpaint_ns: 0.6, inpaint_learned: 0.6,
    resample: 0.7, noise: 0.4, jpeg_region: 0.5}'

# Thresholds on the val split, as made and after each kind of honest processing. Figures on the test
# split: as made, after JPEG, whole camera files, and what other tools make of other photographs.
methods=$edits run=${RUN:-run-14}
pictures cal-honest val 22 6 2 --vary --benign 0.5
pictures cal-plain val 26 6 2
pictures cal-varied val 28 6 2 --vary
"$forgemap" calibrate "$out/$run/model" "$out"/{camera,small}-cal-{varied,plain,honest} \
    --photos "$photos" --processing all --alarms 0.02 --processed 0.04 --flagged 0.004 \
    --manipulated-at 0.98 --doubts 0.2 --workers 2 --out "$out/calibration"
"$forgemap" evaluate "$out/$run/model" "$out/test" --recompress 90,75 --workers 2 --out "$out/results"
"$forgemap" evaluate "$out/$run/model" "$out/test-whole" --workers 2 --out "$out/results-whole"
"$python" -m benchmarks.foreign "$photos" --out "$out/foreign"
"$forgemap" evaluate "$out/$run/model" "$out/foreign" --workers 2 --out "$out/results-foreign"
