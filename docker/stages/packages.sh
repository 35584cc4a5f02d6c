#!/bin/sh
# Stage `packages`: leaves in /out the Python packages of the flavor full, with the versions and checksums of
# docker/full/lock.txt, and TensorFlow's protocol buffers. The packages come from docker/input/wheels if that exists,
# otherwise from PyPI.
set -eu

share=/usr/local/share/sagemaker-tfs
mkdir -p "/out$share"
# Also keeps /out from being empty: Docker's old builder fails on a COPY that changes nothing.
list=/out$share/pypi-packages.txt
echo "# Packages from PyPI" >"$list"
[ "$FLAVOR" = full ] || exit 0

set --
[ ! -d /docker/input/wheels ] || set -- --no-index --find-links /docker/input/wheels
# As variables: old versions of pip do not know these as options.
export PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1
# All that the packages need is in the lock: tensorflow-serving-api must not bring TensorFlow.
python3 -m pip install --quiet --no-cache-dir --no-compile --root /out --ignore-installed --no-deps \
  --only-binary :all: --require-hashes "$@" --requirement /docker/full/lock.txt
packages=$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
PYTHONPATH=/out$packages python3 -B /docker/full/protos.py write /docker/full/tensorflow.binpb "/out$share/protos"
# At the end of Python's path: TensorFlow itself, wherever a handler's archive brings it, comes first.
echo "$share/protos" >"/out$packages/sagemaker-tfs-protos.pth"
python3 -m pip list --path "/out$packages" --format freeze >>"$list"
