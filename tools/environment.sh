#!/bin/sh
# Make .venv and install exactly what requirements.lock pins. `make` calls this; it works alone, too.
#
#   tools/environment.sh              the environment, ready when .venv/ready exists
#   tools/environment.sh LOCK         what another lock pins, into the same environment
#   tools/environment.sh --is-stale   exit 0 when there is an environment that must be made again
#   tools/environment.sh --without-torch LOCK   that lock without what comes from elsewhere when TORCH=cpu
#
# PYTHON names the interpreter; TORCH is "default" (what pip gives) or "cpu" (no CUDA libraries; remembered).
set -eu
cd "$(dirname "$0")/.."
unset PYTHONPATH PYTHONHOME || true
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1

venv=.venv
py=$venv/bin/python
here=$(pwd -P)
starts() { "$py" -c '' 2>/dev/null; }
remembered=$(cat "$venv/torch" 2>/dev/null || true)
torch=${TORCH:-${remembered:-default}}

say() { printf '%s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

if [ "${1:-}" = --is-stale ]; then
    [ -e "$venv/ready" ] || exit 1
    starts && [ "$torch" = "$remembered" ] && [ "$here" = "$(cat "$venv/place")" ] && exit 1
    exit 0
fi

case $torch in default | cpu) ;; *) fail "TORCH is default or cpu, and '$torch' was given." ;; esac

# The lock without torch, torchvision and what only they need: they come from elsewhere when TORCH=cpu.
without_torch() { awk '/^[a-z0-9]/ { skip = /^(torch|torchvision|triton|nvidia-[a-z0-9-]*|cuda-[a-z-]*)==/ } !skip' "$1"; }

if [ "${1:-}" = --without-torch ]; then
    without_torch "$2"
    exit
fi

supported() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

find_python() {
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11 python; do
        if supported "$candidate"; then printf '%s' "$candidate"; return; fi
        if [ -n "${PYTHON:-}" ]; then break; fi # a Python that was asked for is not replaced by another
    done
    asked=${PYTHON:-python3}
    found=$("$asked" -c 'import platform; print("is", platform.python_version())' 2>/dev/null || echo "can't be started")
    fail "Python 3.11, 3.12 or 3.13 is needed, and '$asked' $found: install one, or name it with PYTHON=/path/to/python3.12."
}

make_venv() {
    python=$(find_python)
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "'$python' lacks venv, which makes environments: install it (Debian, Ubuntu: sudo apt install python3-venv)."
    "$python" -m venv --clear "$venv"
}

pinned() { sed -n "s/^\($1==[^ ;]*\).*/\1/p" requirements.lock; }

install() {
    quiet=-q
    [ -t 1 ] && quiet=
    if [ "$torch" = cpu ]; then
        without_torch "$1" >"$venv/lock"
        "$py" -m pip install $quiet --require-hashes --no-deps --no-build-isolation --use-pep517 -r "$venv/lock"
        # uv knows where the CPU builds lie. Their hashes are not those of the lock; their versions are.
        "$py" -m uv pip install --python "$py" --torch-backend cpu "$(pinned torch)" "$(pinned torchvision)"
    else
        "$py" -m pip install $quiet --require-hashes --no-deps --no-build-isolation --use-pep517 -r "$1"
    fi
}

if [ -n "${1:-}" ]; then
    say "installing what $1 pins"
    install "$1"
    exit
fi

# What was interrupted is not mended but made again (pip keeps what it has downloaded). So is an environment of
# another place, because the folder was moved or copied, and one with another torch.
place=$(cat "$venv/place" 2>/dev/null || true)
if [ -e "$venv/unfinished" ] || ! starts || [ "$here" != "$place" ] || [ "$torch" != "${remembered:-$torch}" ]; then
    make_venv
    printf '%s\n' "$here" >"$venv/place"
fi
rm -f "$venv/ready" "$venv/ready-bench" "$venv/ready-site"
: >"$venv/unfinished"
say "installing the packages of requirements.lock into $venv (once, some minutes; PyTorch is large)"
install requirements.lock
"$py" -m pip install -q --no-deps --no-build-isolation -e .
"$py" -m pip check >"$venv/check" 2>&1 || fail "the installed packages do not fit together: $(cat "$venv/check")"
printf '%s\n' "$torch" >"$venv/torch"
rm -f "$venv/unfinished" "$venv/check" "$venv/lock"
: >"$venv/ready"
say "ready: $venv with $("$py" --version)"
