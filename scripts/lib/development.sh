# shellcheck shell=bash
# What the scripts for developers share: prerequisites, the Python environment in .venv, the models in .models.
# To be sourced under `set -euo pipefail` with the checkout as working directory.

# shellcheck source=scripts/lib/shared.sh
. scripts/lib/shared.sh

REQUIREMENTS=scripts/requirements/development
CLOCK_PID=

heading() { printf '\n==> %s\n' "$*"; }

# The clock must not outlive the script, whatever ends it.
trap 'stop_clock' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# with_clock WHAT COMMAND...: runs a long and quiet command and prints the time every 10 seconds.
with_clock() {
  local what=$1 begin=$SECONDS status=0
  shift
  say "$what"
  clock &
  CLOCK_PID=$!
  "$@" || status=$?
  stop_clock
  ((status)) || say "    done in $((SECONDS - begin)) s"
  return "$status"
}

clock() {
  local begin=$SECONDS nap=
  trap 'kill "$nap" 2>/dev/null; exit 0' TERM
  while :; do
    sleep 10 >/dev/null 2>&1 &
    nap=$!
    wait "$nap"
    say "    ... $((SECONDS - begin)) s"
  done
}

stop_clock() {
  [[ -n $CLOCK_PID ]] || return 0
  kill "$CLOCK_PID" 2>/dev/null || true
  wait "$CLOCK_PID" 2>/dev/null || true
  CLOCK_PID=
}

# alone NAME COMMAND...: runs the command while no other script or part of test.sh runs one under this name.
alone() {
  local name=$1
  shift
  mkdir -p target
  {
    if command -v flock >/dev/null && ! flock -n 8; then
      say "waiting for another script or part: $name"
      flock 8
    fi
    "$@"
  } 8>"target/.$name-lock"
}

# Installs packages with apt. Fails where that is impossible or needs a password.
apt_install() {
  local as_root=(env)
  command -v apt-get >/dev/null || return 1
  if ((EUID != 0)); then
    command -v sudo >/dev/null && sudo -n true 2>/dev/null || return 1
    as_root=(sudo -n env)
  fi
  with_clock "installing with apt: $*" alone apt apt_get "$@"
}

apt_get() {
  "${as_root[@]}" apt-get update -qq </dev/null >/dev/null &&
    "${as_root[@]}" DEBIAN_FRONTEND=noninteractive \
      apt-get install -y -qq --no-install-recommends "$@" </dev/null >/dev/null
}

# install_or_stop WHAT PACKAGE...: installs the packages that contain what is missing, or ends the script.
install_or_stop() {
  local what=$1
  shift
  say "$what is missing"
  apt_install "$@" || fail "$what is missing. Install it with: sudo apt-get install $*"
}

# Installs and makes what the scripts need, unless it exists.
prepare() {
  need_rust
  need_python
  need_python_library
  alone prepare need_environment_and_models
  # Executables are built for this environment's Python, and handlers run in it.
  PATH=$PWD/.venv/bin:$PATH
}

need_environment_and_models() {
  need_environment
  need_models
}

need_rust() {
  if ! command -v cargo >/dev/null && [[ -x $HOME/.cargo/bin/cargo ]]; then
    PATH=$HOME/.cargo/bin:$PATH
  fi
  command -v cargo >/dev/null ||
    fail "Rust is missing. Install it with: curl https://sh.rustup.rs -sSf | sh -s -- -y --profile default"
  command -v cc >/dev/null || install_or_stop "a C compiler (cc)" gcc libc6-dev
}

# Prints the folder of cargo's builds.
target_directory() {
  cargo metadata --format-version 1 --no-deps |
    "$PYTHON" -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])'
}

# Sets PYTHON to a Python that TensorFlow supports: $PYTHON or python3 if supported, otherwise the newest on PATH.
need_python() {
  local candidate found=
  for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11 python3.10; do
    # Run, not looked up: version managers put programs on PATH that only print an error.
    found+=$("$candidate" -c 'import sys; print(" %d.%d.%d" % sys.version_info[:3])' 2>/dev/null || true)
    if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      PYTHON=$candidate
      return
    fi
  done
  [[ -n $found ]] || fail "Python is missing. Install it with: sudo apt-get install python3 python3-venv"
  fail "TensorFlow needs Python 3.10, 3.11, 3.12 or 3.13; found:$found. Install one of them as python3.12, say," \
    "or name one: PYTHON=/path/to/python3.12 $0"
}

# sagemaker-tfs-python is linked with Python's library.
need_python_library() {
  local version
  "$PYTHON" -c 'import os, sys, sysconfig
get = sysconfig.get_config_var
places = [get("LIBDIR"), os.path.join(sys.base_prefix, "lib"), get("LIBPL")]
files = [os.path.join(place, get("LDLIBRARY")) for place in places if place]
sys.exit(not any(map(os.path.exists, files)))' && return
  version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  install_or_stop "the library of Python $version" "python$version-dev"
}

# Makes .venv with the required packages, unless it is up to date.
need_environment() {
  local version key
  version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  # Comments may change without a new environment.
  key="Python $version, $(cat "$REQUIREMENTS".txt "$REQUIREMENTS-no-deps.txt" | grep '^[^#]' | checksum)"
  if [[ -f .venv/stamp && $(<.venv/stamp) == "$key" ]] && .venv/bin/python -c '' 2>/dev/null; then
    say "the environment .venv is up to date"
    return
  fi
  "$PYTHON" -c 'import venv, ensurepip' 2>/dev/null ||
    install_or_stop "Python's venv module" "python$version-venv"
  say "making the environment .venv with Python $version"
  rm -rf .venv
  "$PYTHON" -m venv .venv
  with_clock "installing TensorFlow into .venv (about 300 MB to download, a minute or more)" \
    pip_install -r "$REQUIREMENTS.txt"
  pip_install --no-deps -r "$REQUIREMENTS-no-deps.txt"
  say "$key" >.venv/stamp
}

pip_install() {
  .venv/bin/python -m pip --disable-pip-version-check --no-input install --quiet "$@" </dev/null
}

# Makes the models in .models, again when the script that makes them has changed.
need_models() {
  local key
  key=$(checksum <scripts/make_models.py)
  if [[ -f .models/.stamp && $(<.models/.stamp) == "$key" ]]; then
    say "the models in .models are up to date"
    return
  fi
  rm -rf .models
  # TensorFlow announces oneDNN at any log level.
  TF_ENABLE_ONEDNN_OPTS=0 .venv/bin/python scripts/make_models.py .models
  say "$key" >.models/.stamp
}

# The checksum of standard input.
checksum() { "$PYTHON" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'; }

# need_tools NAME REQUIREMENTS: makes target/tools/NAME with these packages, unless it is up to date.
need_tools() { alone "tools-$1" make_tools "$@"; }

make_tools() {
  local folder=target/tools/$1 requirements=scripts/requirements/$2.txt key
  key="$("$PYTHON" --version), $(checksum <"$requirements")"
  [[ ! -f $folder/stamp || $(<"$folder/stamp") != "$key" ]] || return 0
  rm -rf "$folder"
  "$PYTHON" -m venv "$folder" &&
    with_clock "installing the packages of $requirements into $folder" \
      "$folder/bin/python" -m pip --disable-pip-version-check --no-input install --quiet \
      -r "$requirements" </dev/null &&
    say "$key" >"$folder/stamp"
}

# Prints why containers cannot be tested on this machine, after an attempt to install what is missing. Prints nothing
# if they can be tested.
containers_impossible() {
  local release
  command -v docker >/dev/null || {
    say "docker is missing"
    return
  }
  docker version --format '{{.Server.Version}}' >/dev/null 2>&1 || {
    say "no Docker engine answers"
    return
  }
  release=$(. /etc/os-release 2>/dev/null && say "${ID-} ${VERSION_CODENAME-}")
  [[ $release =~ ^(debian|ubuntu)\ .+ ]] || {
    say "images for tests are made of the packages of this machine's release, which must be a Debian or Ubuntu"
    return
  }
  command -v mmdebstrap >/dev/null || apt_install mmdebstrap >/dev/null || {
    say "install mmdebstrap with: sudo apt-get install mmdebstrap"
    return
  }
  # The Python of the python image, with the files for linking.
  [[ -x /usr/bin/python3-config ]] || apt_install python3 python3-dev >/dev/null ||
    say "install the system's Python for developers with: sudo apt-get install python3-dev"
}
