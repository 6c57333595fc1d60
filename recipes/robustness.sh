#!/usr/bin/env bash
# The figures of docs/experiments/robustness.md and baselines.md, made anew. Resumable, like its parts.
#
#   recipes/robustness.sh PHOTOS AUTOENCODER OUT [MODEL]
#
# PHOTOS, AUTOENCODER: as for default.sh. In the environment: LIMIT, how many pictures are measured
# (130, evenly over the methods; each variant of --robustness is one pass over them); PARTS, the parts
# of --robustness; ALARMS, how many photographs go through the benign processing (78: all); HOSTILE,
# how many pictures are attacked (20); COMPARED, how many the baselines are measured on (240); TRAINED,
# the folder of a network of a fixed input size to stand beside them; WORKERS, processes (2). A finished
# step is not repeated: give another model another OUT.
set -euo pipefail
photos=$1 autoencoder=$2 out=$3 model=${4:-default}
limit=${LIMIT:-130} parts=${PARTS:-jpeg,resize,pipelines} alarms=${ALARMS:-78} hostile=${HOSTILE:-20}
compared=${COMPARED:-240} workers=${WORKERS:-2}
forgemap=${FORGEMAP:-.venv/bin/forgemap} python=${PYTHON:-.venv/bin/python}
export OMP_NUM_THREADS=1

methods=splice,splice_poisson,copy_move,inpaint_telea,inpaint_ns,inpaint_exemplar
methods+=,autoencoder_paste,latent_edit,resample,blur,noise,jpeg_region
pictures() { # SPLIT PER_PHOTO
    "$forgemap" synth "$photos" --crop 512 --untouched --autoencoder "$autoencoder" --per-photo "$2" \
        --methods "$methods" --seed 4 --split "$1" --workers "$workers" --out "$out/$1"
}
pictures val 1
pictures test 6 # as in default.sh

"$forgemap" evaluate "$model" "$out/test" --robustness --parts "$parts" --limit "$limit" \
    --workers "$workers" --out "$out/robustness"
# One untouched crop of each photograph.
grep '"method": "none"' "$out/test/manifest.jsonl" |
    awk -F'"source": "' '{ split($2, part, "\""); if (!seen[part[1]]++) print }' > "$out/test/untouched.jsonl"
"$forgemap" evaluate "$model" "$out/test/untouched.jsonl" --robustness --parts benign \
    --limit "$alarms" --workers "$workers" --out "$out/alarms"
"$python" -m benchmarks.baselines "$out/test" --val "$out/val" --model "$model" --limit "$compared" \
    ${TRAINED:+--trained "$TRAINED"} --out "$out/baselines"
"$python" -m benchmarks.fooling "$out/test" --model "$model" --limit "$hostile" --out "$out/fooling"

"$python" -m benchmarks.into_docs docs/experiments/robustness.md \
    "robustness=$out/robustness/robustness.md" "alarms=$out/alarms/robustness.md" "fooling=$out/fooling/fooling.md"
"$python" -m benchmarks.into_docs docs/experiments/baselines.md "baselines=$out/baselines/baselines.md"
cp "$out/robustness/flips.png" docs/experiments/robustness-flips.png
cp "$out/alarms/benign.png" docs/experiments/robustness-benign.png
