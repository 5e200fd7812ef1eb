#!/usr/bin/env bash
# Teaches a pretrained language model on one GPU (224 px, 200 people, all weights), then runs the tests for GPUs and the engine's
# ratios on lab-smol, in at most ten minutes together. Downloads nothing; needs `make smol`. Without a GPU: --device cpu --tiny.
set -uo pipefail   # a part that fails or is too slow must not cost the others
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=.venv/bin/python
[ -x "$python" ] || python=$(command -v python3)
python=${PYTHON:-$python}
out=${OUT:-runs/gpu_smol}
export PYTHONPATH="$PWD/src:$PWD${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1
mkdir -p "$out"
failed=0
timeout 390 "$python" scripts/gpu_smol.py --out "$out" "$@" || failed=1
timeout 60 "$python" -m pytest -q -m gpu tests || failed=1
timeout 150 "$python" -m perf --model smol --dtype bf16 --budget 2 --only npo_lora,kl_lora,npo_frozen,evaluation \
    --out "$out/perf.json" || failed=1
exit $failed
