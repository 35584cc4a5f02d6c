#!/usr/bin/env bash
# Pushes an image that build.sh has built to a repository of your account in Amazon ECR.
#
#   ./scripts/publish.sh [--version x.y[.z]] [--arch cpu|gpu|eia] [--flavor python|full|slim] [options]
#
#   --region REGION     default: AWS_REGION, AWS_DEFAULT_REGION, or the AWS CLI's
#   --account ACCOUNT   default: the one of your credentials
#   --repository NAME   of the image, and in ECR, where it is made if it is missing;
#                       default: sagemaker-tensorflow-serving, with -eia for eia
#   --dry-run           print the commands only; needs no credentials
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib/images.sh
. scripts/lib/images.sh

standard_defaults
while (($#)); do
  standard_option "$@"
  ((shifted)) || fail "unknown option $1; see $0 --help"
  shift "$shifted"
done
resolve
need_docker
((dry_run)) || docker image inspect "$image" >/dev/null 2>&1 || fail "there is no image $image; build.sh builds it"
need_aws

if ((dry_run)); then
  run aws ecr describe-repositories --region "$region" --repository-names "$repository"
  say "# if there is none:"
  run aws ecr create-repository --region "$region" --repository-name "$repository"
  say "$(quoted aws ecr get-login-password --region "$region") | $(quoted docker login --username AWS --password-stdin "$registry")"
else
  found=$(aws ecr describe-repositories --region "$region" --repository-names "$repository" 2>&1) ||
    # Another error, such as a missing permission, says nothing about the repository.
    if [[ $found == *RepositoryNotFoundException* ]]; then
      aws ecr create-repository --region "$region" --repository-name "$repository" >/dev/null
      say "made the repository $repository"
    else
      fail "$found"
    fi
  aws ecr get-login-password --region "$region" |
    docker login --username AWS --password-stdin "$registry"
fi
for one in "$tag" "$full_tag"; do
  run docker tag "$image" "$registry/$repository:$one"
  run docker push "$registry/$repository:$one"
done
((dry_run)) || say "published $registry/$repository:$tag"
