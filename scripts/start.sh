#!/usr/bin/env bash
# Starts a container of an image that build.sh has built, as SageMaker does, and waits until it serves.
#
#   ./scripts/start.sh [--version x.y[.z]] [--arch cpu|gpu|eia] [--flavor python|full|slim] [options]
#
#   --model-dir DIR     the models; default: the example half_plus_three, once demo.sh has made it in .models
#   --multi-model       multi-model mode: DIR becomes /opt/ml/models, and models are loaded with POST /models
#   --port PORT         on the loopback address of this machine; default: 8080
#   --env NAME=VALUE    a variable for the server; may be repeated
#   --name NAME         of the container; default: repository and tag
#   --repository NAME   name of the image; default: sagemaker-tensorflow-serving, with -eia for eia
#   --dry-run           print the commands only
#
# curl.sh sends it requests, stop.sh stops it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib/images.sh
. scripts/lib/images.sh

# SageMaker gives a container 8 minutes to become healthy.
READY_SECONDS=480

standard_defaults
port=8080
name=
options=()
inside=/opt/ml/model
while (($#)); do
  standard_option "$@"
  if ((!shifted)); then
    shifted=2
    case $1 in
      --multi-model) inside=/opt/ml/models options+=(--env SAGEMAKER_MULTI_MODEL=true) shifted=1 ;;
      --port) port=$(option_value "$@") ;;
      --env) options+=(--env "$(option_value "$@")") ;;
      --name) name=$(option_value "$@") ;;
      *) fail "unknown option $1; see $0 --help" ;;
    esac
  fi
  shift "$shifted"
done
resolve
container=${name:-$container}
if [[ -z $model_dir ]]; then
  model_dir=.models/half_plus_three
  [[ -d $model_dir ]] || ((dry_run)) ||
    fail "give --model-dir; for an example run ./scripts/demo.sh first, which makes models in .models"
  inside+=/half_plus_three
fi
[[ -d $model_dir ]] || ((dry_run)) || fail "there is no folder $model_dir"
[[ ! -d $model_dir ]] || model_dir=$(cd "$model_dir" && pwd)
[[ $arch != gpu ]] || options+=(--gpus all)
need_docker
if ! ((dry_run)) && docker container inspect "$container" >/dev/null 2>&1; then
  fail "there is a container $container already; ./scripts/stop.sh --name $container ends it"
fi

run docker run --detach --name "$container" --publish "127.0.0.1:$port:8080" \
  --volume "$model_dir:$inside:ro" ${options[@]+"${options[@]}"} "$image" serve
((dry_run)) && exit
give_up() {
  docker logs --tail 20 "$container" >&2
  docker rm --force "$container" >/dev/null
  fail "$1; above are its last lines"
}
until curl --silent --fail --max-time 2 "http://127.0.0.1:$port/ping"; do
  [[ $(docker container inspect --format '{{.State.Running}}' "$container") == true ]] ||
    give_up "the container has ended with exit code $(docker container inspect --format '{{.State.ExitCode}}' "$container")"
  ((SECONDS < READY_SECONDS)) || give_up "the container is not ready after $READY_SECONDS s"
  sleep 0.2
done
say "$container serves at http://127.0.0.1:$port"
