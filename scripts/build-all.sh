#!/usr/bin/env bash
# Builds images for all versions of docker/versions.toml that there can be any for, for cpu and gpu.
#
#   ./scripts/build-all.sh [options of build.sh, but --version and --arch]
#
# Images for eia are left out: their model server must be named, see build.sh. The first failure ends it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib/images.sh
. scripts/lib/images.sh
all_versions build.sh "$@"
