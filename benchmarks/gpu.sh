#!/usr/bin/env bash
# Everything that needs a CUDA card, in one call of under ten minutes: check every CUDA path against its oracle, then
# measure the step beside TRL and Liger.
#   benchmarks/gpu.sh [RESULT_FOLDER]     (default: the current folder)
# Wheels in .whl/ are installed next to the environment, not into it.
set -euo pipefail
cd "$(dirname "$0")/.."
out="${1:-.}"
python="${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}"
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1
if compgen -G ".whl/*.whl" >/dev/null; then
  site="$(mktemp -d)"
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --target "$site" .whl/*.whl
  export PYTHONPATH="$site:$PYTHONPATH"
fi
exec "$python" benchmarks/gpu.py --out "$out" --seconds "${SECONDS_LIMIT:-560}"
