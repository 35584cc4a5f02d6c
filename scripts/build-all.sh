#!/usr/bin/env bash
# Builds images for cpu and gpu with all versions of docker/versions.toml that images can be made with.
#
#   ./scripts/build-all.sh [options of build.sh, but --version and --arch]
#
# Leaves out eia, whose model server must be named, see build.sh. Ends at the first failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib/images.sh
. scripts/lib/images.sh
all_versions build.sh "$@"
