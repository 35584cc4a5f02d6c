#!/usr/bin/env bash
# Measures sagemaker-tfs, with and without Python handlers, against nginx on this machine and prints one Markdown
# table.
#
#   ./scripts/bench.sh            about 8 minutes, after the build
#   ./scripts/bench.sh --quick    about 2.5 minutes, for a first impression
#   ./scripts/bench.sh --write    also writes the table into docs/BENCHMARKS.md
#   ./scripts/bench.sh --attack   instead: what thousands of idle and dripping connections cost others, 2 minutes
#   ./scripts/bench.sh --workers  instead: what requests cost that wait, as coroutines and on threads, 3 minutes
#
# This file gets the tools and the executables; scripts/bench/bench.py measures. Handlers run in the python3 on PATH.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH=$PATH:/usr/sbin # where Debian keeps nginx

program=bench
case ${1-} in
  --attack | --workers)
    program=${1#--}
    shift
    ;;
esac
for argument in "$@"; do
  case $argument in
    -h | --help) exec python3 "scripts/bench/$program.py" --help ;;
  esac
done

missing=()
for tool in nginx wrk; do
  command -v "$tool" >/dev/null || missing+=("$tool")
done
if ((${#missing[@]})); then
  # Under systemd the nginx package would start a public server at once: leave that choice to the user.
  if [[ $(id -u) -eq 0 && ! -d /run/systemd/system ]] && command -v apt-get >/dev/null; then
    echo "bench: installing ${missing[*]}" >&2
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
  else
    echo "bench: missing: ${missing[*]}. Install with: sudo apt-get install ${missing[*]}" >&2
    exit 1
  fi
fi

cargo build --release --bins --example fake_model_server --example convert_speed >&2
exec python3 "scripts/bench/$program.py" "$@"
