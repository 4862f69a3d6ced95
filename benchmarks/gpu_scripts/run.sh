#!/bin/sh
# Measures with the packed Python, without a network: gpu.md, gpu.png and gpu.json in `figures`. A second run goes on.
set -e
cd "$(dirname "$0")"
here=$(pwd)
# This machine's PyTorch, if it has one: to be measured as well, and for its CUDA libraries.
torch=$(python3 -c 'import importlib.util as util; print(util.find_spec("torch").origin)' 2>/dev/null || true)
if [ -n "$torch" ]; then
    set -- --pytorch "$(command -v python3)" "$@"
    cuda=$(find "${torch%/torch/*}/nvidia" -name '*.so*' -path '*/nvidia/*/lib/*' -printf '%h\n' | sort -u | tr '\n' ':')
fi
[ ! -d official ] || set -- --official-backend official "$@"
export LD_LIBRARY_PATH="$here/python/lib:$cuda$LD_LIBRARY_PATH"
export PATH="$here/python/bin:$PATH" PYTHONUNBUFFERED=1
export PYTHONPATH="$here/code/client:$here/code/export:$here/code/gateway:$here/code/server:$here/code"
exec python3 -m benchmarks.gpu --packed . --out figures "$@"
