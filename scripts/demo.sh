#!/usr/bin/env bash
# Serves small models on this machine, sends requests to them and shows the answers.
#
#   ./scripts/demo.sh          ends by itself; exit code 0 when every answer was right
#   ./scripts/demo.sh --keep   stays up after the requests, for your own; Ctrl-C ends it
#   ./scripts/demo.sh --multi-model
#                              loads, lists, asks and unloads models while the server runs; also with --keep
#
# The model server is scripts/tensorflow_model_server, a stand-in for TensorFlow Serving on TensorFlow from PyPI.
# The first run installs TensorFlow into .venv and builds the server: some minutes. Later runs take seconds.
# This script gets everything ready, and scripts/demo/demo.py does the rest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib/development.sh
. scripts/lib/development.sh

for argument in "$@"; do
  case $argument in
    --keep | --multi-model) ;;
    -h | --help) usage_and_exit ;;
    *) fail "unknown option $argument; see $0 --help" ;;
  esac
done

heading "Preparing"
prepare

heading "Building the server"
cargo build --release --bins # with sagemaker-tfs-python, so that handlers work

heading "Running"
exec .venv/bin/python -m scripts.demo.demo --server "$(target_directory)/release/sagemaker-tfs" "$@"
