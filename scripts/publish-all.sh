#!/usr/bin/env bash
# Pushes the images of build-all.sh to Amazon ECR.
#
#   ./scripts/publish-all.sh [options of publish.sh, but --version and --arch]
#
# Images for eia are left out, as by build-all.sh. The first failure ends it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib/images.sh
. scripts/lib/images.sh
all_versions publish.sh "$@"
