# shellcheck shell=bash
# What the scripts for images share: their options, the table of versions, names of images and containers, AWS.
# To be sourced under `set -euo pipefail` with the checkout as working directory.
# shellcheck disable=SC2034  # variables are for the scripts that source this

# shellcheck source=scripts/lib/shared.sh
. scripts/lib/shared.sh

VERSIONS_FILE=docker/versions.toml
# The name of SageMaker's container for TensorFlow 1 and 2.
DEFAULT_REPOSITORY=sagemaker-tensorflow-serving
DEFAULT_VERSION=2.19
# The platform kills a container 30 s after SIGTERM; the server needs at most 28 s.
STOP_SECONDS=30

# Runs a command. With --dry-run prints it in a form that a shell takes.
run() {
  if ((dry_run)); then
    printf '%s\n' "$(quoted "$@")"
  else
    "$@"
  fi
}

# The words of a command as a shell takes them.
quoted() {
  local word line=
  for word in "$@"; do
    if [[ ! $word =~ ^[A-Za-z0-9_./:=@%+,-]+$ ]]; then
      if [[ $word == *[\'[:cntrl:]]* ]]; then printf -v word '%q' "$word"; else word="'$word'"; fi
    fi
    line+="${line:+ }$word"
  done
  printf '%s' "$line"
}

# The options that all scripts take.
standard_defaults() {
  version=$DEFAULT_VERSION
  arch=cpu
  flavor=python
  region=
  account=
  repository=
  model_dir=
  dry_run=0
}

# standard_option WORD...: takes an option and sets $shifted to the number of its words, 0 for an unknown option.
standard_option() {
  shifted=2
  case $1 in
    -v | --version) version=$(option_value "$@") ;;
    -a | --arch) arch=$(option_value "$@") ;;
    -f | --flavor) flavor=$(option_value "$@") ;;
    -r | --region) region=$(option_value "$@") ;;
    --account) account=$(option_value "$@") ;;
    --repository) repository=$(option_value "$@") ;;
    --model-dir) model_dir=$(option_value "$@") ;;
    --dry-run) dry_run=1 shifted=1 ;;
    -h | --help) usage_and_exit ;;
    *) shifted=0 ;;
  esac
}

# version_value VERSION KEY: prints the entry in the table of versions, if any.
version_value() {
  awk -v table="[versions.\"$1\"]" -v key="$2" '
    /^\[/ { inside = ($0 == table) }
    inside && $1 == key && $2 == "=" { sub(/^[^"]*"/, ""); sub(/"[^"]*$/, ""); print }
  ' "$VERSIONS_FILE"
}

# Prints the versions that images can be made with.
servable_versions() {
  local candidate
  while read -r candidate; do
    [[ -n $(version_value "$candidate" refused) ]] || say "$candidate"
  done < <(sed -n 's/^\[versions\."\(.*\)"\]$/\1/p' "$VERSIONS_FILE")
}

# Checks version, processor type and flavor, and sets what follows from them:
# short_version full_version repository tag image container
resolve() {
  local reason
  [[ $version =~ ^([0-9]+\.[0-9]+)(\.[0-9]+)?$ ]] || fail "--version is $version; it must look like 2.19 or 2.19.0"
  short_version=${BASH_REMATCH[1]}
  full_version=$version
  [[ -n ${BASH_REMATCH[2]-} ]] || full_version=$(version_value "$short_version" full)
  [[ -n $(version_value "$short_version" full) ]] ||
    fail "TensorFlow Serving $short_version is not in $VERSIONS_FILE, which has $(servable_versions | paste -sd ' ')"
  reason=$(version_value "$short_version" refused)
  [[ -z $reason ]] || fail "TensorFlow Serving $short_version cannot be used: $reason"
  [[ $arch =~ ^(cpu|gpu|eia)$ ]] || fail "--arch is $arch; it can be cpu, gpu or eia"
  [[ -n $(version_value "$short_version" "$arch") ]] ||
    fail "there is no TensorFlow Serving $short_version for $arch; $VERSIONS_FILE says which there are"
  [[ $flavor =~ ^(python|full|slim)$ ]] || fail "--flavor is $flavor; it can be python, full or slim"

  # SageMaker's names: the processor type is part of the repository for eia only, and of the tag for the others.
  if [[ -z $repository ]]; then
    repository=$DEFAULT_REPOSITORY
    [[ $arch != eia ]] || repository+=-eia
  fi
  local suffix=
  [[ $arch == eia ]] && suffix=-cpu || suffix=-$arch
  [[ $flavor == python ]] || suffix+=-$flavor
  tag=$short_version$suffix
  full_tag=$full_version$suffix
  image=$repository:$tag
  # Names of containers have no slashes.
  container=${repository//\//-}-$tag
}

need_docker() {
  ((dry_run)) && return
  command -v docker >/dev/null || fail "docker is missing"
  docker version --format '{{.Server.Version}}' >/dev/null || fail "no Docker engine answers"
}

# Sets region and account from options, the environment, or the AWS CLI, and registry from both. A dry run puts names
# in place of unknown values.
need_aws() {
  local domain=amazonaws.com
  region=${region:-${AWS_REGION:-${AWS_DEFAULT_REGION:-}}}
  if command -v aws >/dev/null; then
    [[ -n $region ]] || region=$(aws configure get region 2>/dev/null || true)
    if [[ -z $account ]] && ! ((dry_run)); then
      account=$(aws sts get-caller-identity --query Account --output text) ||
        fail "the AWS CLI has no credentials; see \"aws configure\""
    fi
  elif ! ((dry_run)); then
    fail "the AWS CLI (aws) is missing"
  fi
  if ((dry_run)); then
    region=${region:-REGION} account=${account:-ACCOUNT}
  fi
  [[ -n $region ]] || fail "no AWS region is known: give --region, or set AWS_REGION"
  [[ $account =~ ^([0-9]{12}|ACCOUNT)$ ]] || fail "the AWS account is $account; it must have 12 digits"
  [[ $region != cn-* ]] || domain+=.cn
  registry=$account.dkr.ecr.$region.$domain
}

# all_versions SCRIPT [OPTION...]: runs the script for cpu and gpu with every version that images can be made with.
all_versions() {
  local script=$1 one processor
  shift
  for one in "$@"; do
    case $one in
      -h | --help) usage_and_exit ;;
      -v | --version | -a | --arch) fail "$one is not for $0, which takes all versions and processor types; use scripts/$script" ;;
    esac
  done
  for one in $(servable_versions); do
    for processor in cpu gpu; do
      say "# $one $processor"
      "scripts/$script" --version "$one" --arch "$processor" "$@"
    done
  done
}
