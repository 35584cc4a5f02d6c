#!/usr/bin/env bash
# Breaks things on purpose under load and checks every answer: kills and stops TFS, Python workers and their children
# at random, with well-behaved, ill-behaved and hostile clients all the time. Prints one Markdown table; exit code 0 when
# nothing was lost, wrong or let through. docs/RELIABILITY.md says what is promised and what counts.
#
#   ./scripts/chaos.sh [MINUTES] [--seed N] [--write]
#
#   ./scripts/chaos.sh            2 minutes of faults, and about as long to start and to end
#   ./scripts/chaos.sh 30         30 minutes
#   ./scripts/chaos.sh --seed N   the choices of an earlier run once more
#   ./scripts/chaos.sh --write    also writes the table into docs/RELIABILITY.md
#
# This file builds the executables; tests/chaos/ does the rest. Handlers run in the python3 on PATH.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

for argument in "$@"; do
  case $argument in
    -h | --help)
      sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
  esac
done

cargo build --release --bins --example fake_model_server --example chaos >&2
exec cargo run --quiet --release --example chaos -- "$@"
