#!/usr/bin/env bash
# Writes docker/full/lock.txt: versions and checksums of the packages of docker/full/packages*.txt, the newest that fit
# Python 3.10 to 3.13; and docker/full/tensorflow.binpb, the protocol buffers that tensorflow-serving-api needs.
#
#   ./scripts/lock.sh
#
# It needs .venv, which test.sh makes, and a network.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib/development.sh
. scripts/lib/development.sh
while (($#)); do
  case $1 in
    -h | --help) usage_and_exit ;;
    *) fail "unknown option $1; see $0 --help" ;;
  esac
done
need_python
need_tools lock lock

# compile NAME [OPTION...]: locks docker/full/NAME.txt. Only wheels: images have no compilers.
compile() {
  target/tools/lock/bin/uv pip compile --quiet --universal --python-version 3.10 --no-build --generate-hashes \
    --no-annotate --no-header "${@:2}" "docker/full/$1.txt"
}

new=docker/full/lock.txt.new
{
  echo "# Made by scripts/lock.sh. Do not edit."
  compile packages
  compile packages-no-deps --no-deps
} >"$new"
mv "$new" docker/full/lock.txt
.venv/bin/python docker/full/protos.py read docker/full/tensorflow.binpb
git --no-pager diff --stat -- docker/full
