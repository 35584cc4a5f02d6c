#!/usr/bin/env bash
# Stops a container that start.sh has started, as SageMaker does: SIGTERM first, which lets it finish its requests.
#
#   ./scripts/stop.sh [--version x.y[.z]] [--arch cpu|gpu|eia] [--flavor python|full|slim] [--repository NAME]
#                     [--name NAME] [--dry-run]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib/images.sh
. scripts/lib/images.sh

standard_defaults
name=
while (($#)); do
  standard_option "$@"
  if ((!shifted)); then
    shifted=2
    case $1 in
      --name) name=$(option_value "$@") ;;
      *) fail "unknown option $1; see $0 --help" ;;
    esac
  fi
  shift "$shifted"
done
resolve
container=${name:-$container}
need_docker
((dry_run)) || docker container inspect "$container" >/dev/null 2>&1 || fail "there is no container $container"
run docker stop --time "$STOP_SECONDS" "$container"
((dry_run)) || say "exit code $(docker container inspect --format '{{.State.ExitCode}}' "$container")"
run docker rm "$container"
