#!/bin/sh
# Stage `executables`, in the checkout: builds the executables (EXECUTABLES=build) or takes them from docker/input
# (EXECUTABLES=input), and lays out in /out what goes into the image.
set -eu

case $EXECUTABLES in
  build)
    packages="ca-certificates gcc libc6-dev"
    [ "$FLAVOR" = slim ] || packages="$packages python3-dev"
    apt-get update -qq
    # shellcheck disable=SC2086  # several packages
    apt-get install -y -qq --no-install-recommends $packages
    export CARGO_HOME=/usr/local/cargo RUSTUP_HOME=/usr/local/rustup
    export PATH="$CARGO_HOME/bin:$PATH"
    # The flavor full has the executables of the flavor python.
    case $FLAVOR in full) built=python ;; *) built=$FLAVOR ;; esac
    set -- --out /built --flavor "$built"
    [ "$AUDIT" = on ] || set -- "$@" --no-audit
    scripts/executables.sh "$@"
    from=/built
    ;;
  input) from=docker/input ;;
  *)
    echo "error: EXECUTABLES is $EXECUTABLES; it can be build or input" >&2
    exit 1
    ;;
esac

names=sagemaker-tfs
[ "$FLAVOR" = slim ] || names="$names sagemaker-tfs-python"
share=/out/usr/local/share/sagemaker-tfs
mkdir -p /out/usr/local/bin "$share/sbom"
# SageMaker puts models here. With empty folders, a container without models says what it expects there.
mkdir -p /out/opt/ml/model /out/opt/ml/models
for name in $names; do
  if [ ! -f "$from/$name" ]; then
    echo "error: $from/$name is missing; scripts/executables.sh --out $from makes it" >&2
    exit 1
  fi
  install -m 755 "$from/$name" /out/usr/local/bin/
  [ "$AUDIT" = off ] || install -m 644 "$from/sbom/$name.cdx.json" "$share/sbom/"
done
install -m 755 docker/stages/check.sh "$share/"
