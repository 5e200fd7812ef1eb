#!/usr/bin/env bash
# Measures unsee on one GPU in at most nine minutes and writes perf/results/DEVICE.json with a table beside it.
# Downloads nothing. Options: --only PARTS, --skip PARTS, --out FILE; without a GPU: --device cpu --tiny (a rehearsal).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=.venv/bin/python
[ -x "$python" ] || python=$(command -v python3)
exec "${PYTHON:-$python}" -m perf.gpu run "$@"
