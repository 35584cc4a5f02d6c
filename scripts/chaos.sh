#!/usr/bin/env bash
# Breaks things on purpose under load and checks every answer: kills and stops TFS, Python workers and their children
# at random, with well-behaved, ill-behaved and hostile clients all the time. Prints one Markdown table; exit code 0 when
# nothing was lost, wrong or let through. docs/RELIABILITY.md says what is promised and what counts.
#
#   ./scripts/chaos.sh            5 minutes, and one to start and to end
#   ./scripts/chaos.sh 30         30 minutes
#   ./scripts/chaos.sh --seed N   the choices of an earlier run once more
#   ./scripts/chaos.sh --write    also writes the table into docs/RELIABILITY.md
#
# This file builds the executables; scripts/chaos/chaos.py does the rest. Handlers run in the python3 on PATH.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

for argument in "$@"; do
  case $argument in
    -h | --help) exec python3 scripts/chaos/chaos.py --help ;;
  esac
done

cargo build --release --bins --example fake_model_server >&2
exec python3 scripts/chaos/chaos.py "$@"
