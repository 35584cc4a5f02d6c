#!/usr/bin/env bash
# Pushes the images of build-all.sh to Amazon ECR.
#
#   ./scripts/publish-all.sh [options of publish.sh, but --version and --arch]
#
# Leaves out eia, as build-all.sh does. Ends at the first failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib/images.sh
. scripts/lib/images.sh
all_versions publish.sh "$@"
