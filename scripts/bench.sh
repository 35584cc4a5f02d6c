#!/usr/bin/env bash
# Measures sagemaker-tfs, with and without Python handlers, against nginx on this machine and prints one Markdown
# table. The exit code is 1 when a figure misses its floor.
#
#   ./scripts/bench.sh            about 8 minutes, after the build
#   ./scripts/bench.sh --quick    about a minute, for a first impression
#   ./scripts/bench.sh --write    also writes the table into docs/BENCHMARKS.md, and its figures and plots to docs/plots;
#                                 other modes write their tables, too
#   ./scripts/bench.sh --plot     instead: draws those plots and that table again from the figures in docs/plots
#   ./scripts/bench.sh --attack   instead: what thousands of idle and dripping connections cost others, 3 minutes
#   ./scripts/bench.sh --workers  instead: what requests cost that wait, as coroutines and on threads, 3 minutes
#   ./scripts/bench.sh --container CHECKOUT
#                                 instead: compares with Amazon's Python container, whose sources are in CHECKOUT, 3
#                                 minutes; its table is in README.md
#
# This file gets nginx, wrk and the executables; scripts/bench/ measures. Handlers run in the python3 on PATH.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib/development.sh
. scripts/lib/development.sh
PATH=$PATH:/usr/sbin # where Debian keeps nginx

missing=()
for argument in "$@"; do
  case $argument in
    -h | --help | --plot) exec python3 -m scripts.bench "$@" ;; # needs no programs
    --container*)
      PYTHON=python3 need_tools container container >&2
      [[ -e /usr/lib/nginx/modules/ngx_http_js_module.so ]] || missing+=(libnginx-mod-http-js)
      ;;
  esac
done
for tool in nginx wrk; do
  command -v "$tool" >/dev/null || missing+=("$tool")
done
if ((${#missing[@]})); then
  # Under systemd the nginx package would start a public server at once: leave that choice to the user.
  if [[ $(id -u) -eq 0 && ! -d /run/systemd/system ]] && command -v apt-get >/dev/null; then
    echo "bench: installing ${missing[*]} with apt" >&2
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
  else
    echo "bench: ${missing[*]} not found. Install with: sudo apt-get install ${missing[*]}" >&2
    exit 1
  fi
fi

cargo build --release --bins --example fake_model_server --example convert_speed >&2
exec python3 -m scripts.bench "$@"
