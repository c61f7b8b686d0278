#!/bin/sh
# Put into a folder what `make setup TORCH=cpu` installs, for machines without a network.
#
#   sh tools/wheelhouse.sh FOLDER [LOCK]   fill it: once, with a network, on a machine of the same system and Python
#   . FOLDER/use.sh; make setup TORCH=cpu  on every other machine
#
# The packages of the lock (default: requirements.lock) are files that pip reads. PyTorch without CUDA comes from where uv
# knows it, and stays in uv's own cache.
set -eu
[ $# -ge 1 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2; }
mkdir -p "$1"
house=$(cd "$1" && pwd -P)
cd "$(dirname "$0")/.."
lock=${2:-requirements.lock}
py=.venv/bin/python
[ -x "$py" ] || { echo "first make an environment: make setup TORCH=cpu" >&2; exit 1; }

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
sh tools/environment.sh --without-torch "$lock" >"$scratch/lock"
"$py" -m pip download -q --require-hashes --no-deps --no-build-isolation --dest "$house/wheels" -r "$scratch/lock"

pins=$(sed -n 's/^\(\(torch\|torchvision\)==[^ ;]*\).*/\1/p' "$lock")
if [ -n "$pins" ]; then
    # shellcheck disable=SC2086 # two words
    "$py" -m uv pip install -q --cache-dir "$house/uv" --torch-backend cpu --target "$scratch/torch" $pins
fi

# read by `.`: where the folder lies is known when it is used
cat >"$house/use.sh" <<'USE'
# In a shell:  . FOLDER/use.sh   From then on pip and uv take packages from this folder alone.
house=${WHEELHOUSE:-$PWD/wheelhouse}
[ -d "$house/wheels" ] || echo "there is no $house/wheels: name the folder in WHEELHOUSE" >&2
export PIP_NO_INDEX=1 PIP_FIND_LINKS="$house/wheels" UV_OFFLINE=1 UV_CACHE_DIR="$house/uv"
USE
echo "the wheelhouse: $house"
