#!/usr/bin/env bash
# Builds the executables for images: optimized, with the list of their crates embedded, and with an SBOM (CycloneDX)
# for each.
#
#   ./scripts/executables.sh [--out DIR] [--flavor slim|python] [--python PROGRAM] [--no-audit]
#
#   --out DIR          folder of the results; default: target/executables
#   --flavor slim      only the server, without downloads from S3; default: also sagemaker-tfs-python
#   --python PROGRAM   a Python of the version in the image; default: python3
#   --no-audit         no lists, no SBOMs, and none of the tools for them
#
# The Dockerfiles run this script in their build stage; run it by hand for `build.sh --executables DIR`. An executable
# needs a C library at least as new as that of the system that built it. The first run builds two cargo tools into
# target/tools, which takes some minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib/images.sh
. scripts/lib/images.sh

# Tool versions are part of what makes two builds equal.
CARGO_AUDITABLE=0.7.7
CARGO_CYCLONEDX=0.5.9

out=target/executables
flavor=python
python=python3
audit=1
while (($#)); do
  case $1 in
    --out) out=$(option_value "$@"); shift 2 ;;
    --flavor) flavor=$(option_value "$@"); shift 2 ;;
    --python) python=$(option_value "$@"); shift 2 ;;
    --no-audit) audit=0; shift ;;
    -h | --help) usage_and_exit ;;
    *) fail "unknown option $1; see $0 --help" ;;
  esac
done
[[ $flavor == slim || $flavor == python ]] || fail "--flavor is $flavor; it can be slim or python"
command -v cargo >/dev/null || fail "cargo is missing; the executables are built with Rust"

# Not the folder of everyday builds: flags and Python differ, so each build would undo the other.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target/image}
# Two builds of the same sources in the same folder are equal: executables contain no paths, and the SBOM contains no
# time. (The compiler lays out code in an order that depends on the folder.)
export RUSTFLAGS="--remap-path-prefix=$PWD=/sagemaker-tfs --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-0}

tools=$PWD/target/tools
# tool NAME VERSION: installs a cargo tool unless target/tools has this version.
tool() {
  [[ -x $tools/bin/$1 && -f $tools/$1-$2 ]] && return
  say "installing $1 $2 into target/tools"
  # Our RUSTFLAGS are for the executables. Unoptimized, a tool is built in a third of the time.
  env -u RUSTFLAGS CARGO_TARGET_DIR="$tools/build" CARGO_PROFILE_DEV_DEBUG=0 \
    cargo install --quiet --locked --force --profile dev --root "$tools" "$1@$2"
  rm -rf "$tools/build"
  touch "$tools/$1-$2"
}

build=(cargo build)
if ((audit)); then
  tool cargo-auditable $CARGO_AUDITABLE
  tool cargo-cyclonedx $CARGO_CYCLONEDX
  PATH=$tools/bin:$PATH
  build=(cargo auditable build)
else
  say "NOT AUDITABLE: no SBOM of the crates, no list of them in the executables (--no-audit)"
fi

# sbom NAME FEATURES...: writes the SBOM of an executable.
sbom() {
  local name=$1
  shift
  ((audit)) || return 0
  cargo cyclonedx --quiet --format json --no-build-deps --target "$host" --override-filename "$name.cdx" "$@"
  sed "s|file://$PWD|file:///sagemaker-tfs|g" "$name.cdx.json" >"$new/sbom/$name.cdx.json"
  rm "$name.cdx.json"
}

host=$(rustc -vV | sed -n 's/^host: //p')
mkdir -p "$out"
new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT
mkdir "$new/sbom"
# Two builds, so that the list inside the server names only crates of the server.
server=(--no-default-features)
[[ $flavor == slim ]] || server+=(--features s3)
"${build[@]}" --release --locked --bin sagemaker-tfs "${server[@]}"
cp "$CARGO_TARGET_DIR/release/sagemaker-tfs" "$new/"
sbom sagemaker-tfs "${server[@]}"
if [[ $flavor == python ]]; then
  PYO3_PYTHON=$(command -v "$python") || fail "there is no $python"
  export PYO3_PYTHON
  "${build[@]}" --release --locked --bin sagemaker-tfs-python
  cp "$CARGO_TARGET_DIR/release/sagemaker-tfs-python" "$new/"
  sbom sagemaker-tfs-python
fi
rm -rf "$out/sbom" "$out/sagemaker-tfs" "$out/sagemaker-tfs-python"
cp -R "$new"/. "$out/"
chmod 755 "$out"
ls -l "$out" "$out/sbom"
