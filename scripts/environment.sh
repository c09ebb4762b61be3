# Sourced by the scripts beside it: makes a virtual environment, installs the project, and leaves $python pointing into it.
# Usage: . scripts/environment.sh GROUP      GROUP: "" (what users need), "test" or "dev" of pyproject.toml
# Set VENV to use another folder than .venv, PYTHON for another interpreter than python3.

group=$1
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
venv=${VENV:-$root/.venv}
python=$venv/bin/python

"${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    { echo "expected Python 3.11 or newer, got $("${PYTHON:-python3}" --version): set PYTHON to a newer one" >&2; exit 1; }

make_venv() {
    # Debian ships Python without ensurepip; virtualenv, installed aside, needs neither root nor python3-venv
    "${PYTHON:-python3}" -m venv "$venv" 2>/dev/null && return
    rm -rf "$venv"
    local aside
    aside=$(mktemp -d)
    "${PYTHON:-python3}" -m pip install --quiet --target "$aside" virtualenv
    PYTHONPATH=$aside "${PYTHON:-python3}" -m virtualenv --quiet "$venv"
    rm -rf "$aside"
}

stamp=$venv/.installed-${group:-user}
if [ ! -e "$stamp" ] || [ "$root/pyproject.toml" -nt "$stamp" ]; then
    echo "installing into $venv (PyTorch is large: the first time takes minutes)" >&2
    [ -x "$python" ] || make_venv
    "$python" -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'  # knows dependency groups
    "$python" -m pip install --quiet --disable-pip-version-check --editable '.[mnist5k]' ${group:+--group "$group"}
    touch "$stamp"
fi
