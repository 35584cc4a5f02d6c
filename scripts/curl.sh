#!/usr/bin/env bash
# Sends requests to a container that start.sh has started, and prints them with their answers.
#
#   ./scripts/curl.sh [--port PORT] [--dry-run]
#                     examples for the model half_plus_three, one of every format
#   ./scripts/curl.sh [--port PORT] --data DATA|@FILE [--type TYPE] [--model NAME] [--path PATH] [--dry-run]
#                     your own request
#
#   --port PORT         default: 8080
#   --data DATA|@FILE   the body, or a file with it
#   --type TYPE         its Content-Type; default: application/json
#   --model NAME        the model it is for; default: the server's
#   --path PATH         default: /invocations
#
# The script ignores other options of start.sh. The exit code is 0 only if every answer has status 200.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib/images.sh
. scripts/lib/images.sh

standard_defaults
port=8080
data=
type=application/json
model=
path=/invocations
while (($#)); do
  standard_option "$@"
  if ((!shifted)); then
    shifted=2
    case $1 in
      --port) port=$(option_value "$@") ;;
      --data) data=$(option_value "$@") ;;
      --type) type=$(option_value "$@") ;;
      --model) model=$(option_value "$@") ;;
      --path) path=$(option_value "$@") ;;
      --name) option_value "$@" >/dev/null ;;
      *) fail "unknown option $1; see $0 --help" ;;
    esac
  fi
  shift "$shifted"
done
resolve

# request PATH [OPTION...]
request() {
  local command=(curl --silent --show-error --fail-with-body --max-time 70 "${@:2}" "http://127.0.0.1:$port$1")
  if ((dry_run)); then
    run "${command[@]}"
    return
  fi
  say "$ $(quoted "${command[@]}")"
  "${command[@]}"
  say ""
}

# post TYPE BODY [OPTION...]
post() { request "$path" --header "Content-Type: $1" --data-binary "$2" "${@:3}"; }

attributes=()
[[ -z $model ]] || attributes=(--header "X-Amzn-SageMaker-Custom-Attributes: tfs-model-name=$model")
if [[ -n $data ]]; then
  post "$type" "$data" ${attributes[@]+"${attributes[@]}"}
  exit
fi
request /ping
post application/json '{"instances": [1.0, 2.0, 5.0]}'
post application/json '[[1.0, 2.0, 5.0], [10.0]]'
post text/csv $'1.0\n2.0\n5.0\n'
post application/jsonlines $'1.0\n2.0\n5.0\n'
post application/json '{"instances": [1.0, 2.0, 5.0]}' --header 'Accept: application/jsonlines'
post application/json '{"instances": [1.0]}' \
  --header 'X-Amzn-SageMaker-Custom-Attributes: tfs-model-name=half_plus_three,tfs-model-version=123'
request /execution-parameters
request /tfs/v1/models/half_plus_three
