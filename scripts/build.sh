#!/usr/bin/env bash
# Builds an image with sagemaker-tfs and TensorFlow Serving.
#
#   ./scripts/build.sh [--version x.y[.z]] [--arch cpu|gpu|eia] [--flavor python|full|slim] [options]
#
#   --version x.y[.z]          of TensorFlow Serving, one of docker/versions.toml; default: 2.19
#   --arch cpu|gpu|eia         processor type; default: cpu
#   --flavor python|full|slim  with Python for handlers (the default), also with the packages that Amazon's images have, or
#                              without Python
#   --repository NAME          name of the image; default: sagemaker-tensorflow-serving, with -eia for eia
#   --base-image IMAGE         a Debian or Ubuntu, which the image begins with
#   --rust-image IMAGE         the image with Rust for the build stage
#   --python-packages "A B"    Debian packages for handlers, such as python3-grpcio; default: python3-requests, none for full
#   --executables DIR          take the executables from DIR, made by scripts/executables.sh on a system with the
#                              same C library and Python as the base image; default: build them in the image
#   --wheels DIR               take the packages of the flavor full from DIR, where pip has downloaded them for the
#                              Python of the base image; default: download them from PyPI
#   --model-server SOURCE      take tensorflow_model_server from a file, or from a .tar.gz with it; each at a path
#                              or an address (https://, s3://); default: from the image of that version
#   --model-server-image IMAGE the image to take it from
#   --sha256 SUM               checksum of the file of --model-server; required for addresses
#   --no-audit                 without SBOM and crate list: saves some minutes, and a label of the image says so
#   --no-cache                 build every layer anew
#   --dry-run                  print the commands only
#
# To build without a registry, give your own --base-image, --executables and --model-server. docs/DEPLOYING.md has the
# commands.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib/images.sh
. scripts/lib/images.sh

standard_defaults
base_image=
rust_image=
python_packages=
executables=
wheels=
model_server=
model_server_image=
sha256=
audit=on
options=()
while (($#)); do
  standard_option "$@"
  if ((!shifted)); then
    shifted=2
    case $1 in
      --base-image) base_image=$(option_value "$@") ;;
      --rust-image) rust_image=$(option_value "$@") ;;
      --python-packages) python_packages=$(option_value "$@") ;;
      --executables) executables=$(option_value "$@") ;;
      --wheels) wheels=$(option_value "$@") ;;
      --model-server) model_server=$(option_value "$@") ;;
      --model-server-image) model_server_image=$(option_value "$@") ;;
      --sha256) sha256=$(option_value "$@") ;;
      --no-audit) audit=off shifted=1 ;;
      --no-cache) options+=(--no-cache) shifted=1 ;;
      *) fail "unknown option $1; see $0 --help" ;;
    esac
  fi
  shift "$shifted"
done
resolve
[[ -z $model_server || -z $model_server_image ]] ||
  fail "--model-server and --model-server-image exclude each other"
[[ -z $sha256 || $sha256 =~ ^[0-9a-f]{64}$ ]] || fail "--sha256 is $sha256; it must have 64 digits, 0-9 and a-f"
[[ -z $sha256 || -n $model_server ]] || fail "--sha256 is for --model-server"
[[ $model_server != *://* || -n $sha256 ]] || fail "--model-server with an address needs --sha256"
[[ $arch != eia || -n $model_server ]] ||
  fail "for eia take the newest archive of $(version_value "$short_version" eia) (list it with \"aws s3 ls\")" \
    "and name it: --model-server s3://... --sha256 ..."
[[ $model_server != s3://* ]] || ((dry_run)) || command -v aws >/dev/null || fail "the AWS CLI (aws) is missing"
[[ $flavor != slim || -z $python_packages ]] || fail "--python-packages is for images with Python; --flavor slim has none"
[[ $flavor == full || -z $wheels ]] || fail "--wheels is for --flavor full"
[[ -z $wheels || -n $(compgen -G "$wheels/*.whl") ]] || fail "there are no wheels in $wheels; docs/DEPLOYING.md has the command"
if [[ -n $executables ]]; then
  wanted=(sagemaker-tfs)
  [[ $flavor == slim ]] || wanted+=(sagemaker-tfs-python)
  for name in "${wanted[@]}"; do
    [[ -x $executables/$name ]] || fail "$executables/$name is missing; scripts/executables.sh --out $executables makes it"
    [[ $audit == off || -f $executables/sbom/$name.cdx.json ]] ||
      fail "$executables/sbom/$name.cdx.json is missing; make it with scripts/executables.sh, or give --no-audit"
  done
fi
need_docker

if ((dry_run)); then
  context=/tmp/sagemaker-tfs-context
  run mkdir "$context"
else
  context=$(mktemp -d)
  trap 'rm -rf "$context"' EXIT
fi

# What Docker gets: sources, and what was given in files. Nothing else of this folder matters, or is sent.
run cp -R Cargo.toml Cargo.lock build.rs src docker scripts "$context/"
if [[ -n $executables ]]; then
  run cp -R "$executables"/. "$context/docker/input/"
fi
if [[ -n $wheels ]]; then
  run mkdir "$context/docker/input/wheels"
  run cp "$wheels"/*.whl "$context/docker/input/wheels/"
fi
if [[ -n $model_server ]]; then
  fetched=$context/docker/input/model-server
  case $model_server in
    s3://*) run aws s3 cp --only-show-errors "$model_server" "$fetched" ;;
    *://*) run curl --fail --silent --show-error --location --output "$fetched" "$model_server" ;;
    *) run cp "$model_server" "$fetched" ;;
  esac
  if [[ -n $sha256 ]] && ! ((dry_run)); then
    found=$(sha256sum <"$fetched")
    [[ ${found%% *} == "$sha256" ]] || fail "$model_server has the checksum ${found%% *}, not $sha256"
  fi
fi

arguments=(
  TFS_VERSION="$full_version"
  TFS_SHORT_VERSION="$short_version"
  FLAVOR="$flavor"
  AUDIT="$audit"
)
revision=$(git describe --always --dirty --abbrev=40 --exclude '*' 2>/dev/null || true)
[[ -z $revision ]] || arguments+=(REVISION="$revision")
if [[ -z $model_server ]]; then
  from=$(version_value "$short_version" "$arch")
  model_server_image=${model_server_image:-${from/FULL/$full_version}}
  arguments+=(MODEL_SERVER_IMAGE="$model_server_image")
  if [[ $arch == gpu && -z $base_image ]]; then
    # It begins with TensorFlow Serving's: that has the CUDA libraries the program was made for, and the program.
    base_image=$model_server_image
    arguments+=(MODEL_SERVER=base)
  fi
else
  arguments+=(MODEL_SERVER=file)
  [[ $arch != gpu || -n $base_image ]] || fail "--model-server for gpu needs --base-image with the CUDA libraries it uses"
fi
[[ -z $base_image ]] || arguments+=(BASE_IMAGE="$base_image")
[[ -z $rust_image ]] || arguments+=(RUST_IMAGE="$rust_image")
# The flavor full has its packages from PyPI.
[[ -z $python_packages && $flavor != full ]] || arguments+=(PYTHON_PACKAGES="$python_packages")
[[ -z $executables ]] || arguments+=(EXECUTABLES=input)
# Docker's old builder makes every stage, also those that nothing is taken from: they begin with the base image then.
if [[ -n $base_image ]]; then
  [[ -z $executables || -n $rust_image ]] || arguments+=(RUST_IMAGE="$base_image")
  [[ -z $model_server ]] || arguments+=(MODEL_SERVER_IMAGE="$base_image")
fi
for argument in "${arguments[@]}"; do options+=(--build-arg "$argument"); done

[[ $audit == on ]] || say "NOT AUDITABLE: the image has no SBOM of the crates (--no-audit)"
run docker build "${options[@]}" --file "$context/docker/$arch/Dockerfile" \
  --tag "$image" --tag "$repository:$full_tag" "$context"
((dry_run)) || say "built $image"
