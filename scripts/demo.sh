#!/usr/bin/env bash
# Serves small models on this machine, sends requests to them and shows the answers.
#
#   ./scripts/demo.sh          ends by itself; exit code 0 when every answer was right
#   ./scripts/demo.sh --keep   stays up after the requests, for your own; Ctrl-C ends it
#   ./scripts/demo.sh --multi-model
#                              loads, lists, asks and unloads models while the server runs; also with --keep
#
# The model server is scripts/tensorflow_model_server, a stand-in for TensorFlow Serving on TensorFlow from PyPI.
# The first run installs TensorFlow into .venv and builds the server: some minutes. Later ones take seconds.
# This file gets everything ready; scripts/demo/demo.py does the rest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/common.sh
. scripts/common.sh

for argument in "$@"; do
  case $argument in
    --keep | --multi-model) ;;
    -h | --help)
      sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    *) die "unknown option $argument; see $0 --help" ;;
  esac
done

heading "Preparing"
prepare

heading "Building the server"
cargo build --release --bins # with sagemaker-tfs-python, so that handlers work

heading "Running"
exec .venv/bin/python scripts/demo/demo.py --server "$(target_directory)/release/sagemaker-tfs" "$@"
