#!/bin/sh
# Stage `model-server`: leaves tensorflow_model_server in /out, from this image (MODEL_SERVER=image), from
# docker/input/model-server (MODEL_SERVER=file: the program, or a .tar.gz with it), or not at all (MODEL_SERVER=base:
# the base image has it).
set -eu

file=/docker/input/model-server
share=/out/usr/local/share/sagemaker-tfs
mkdir -p /out/usr/bin "$share"
# Also keeps /out from being empty: Docker's old builder fails on a COPY that changes nothing.
echo "tensorflow_model_server: from $MODEL_SERVER" >"$share/model-server.txt"
case $MODEL_SERVER in
  base) exit 0 ;;
  image) found=$(command -v tensorflow_model_server || true) ;;
  file)
    found=$file
    if tar -tzf "$file" >/dev/null 2>&1; then
      mkdir /unpacked
      tar -xzf "$file" -C /unpacked
      # Amazon's builds are named amazonei_tensorflow_model_server.
      found=$(find /unpacked -type f -name '*tensorflow_model_server' | head -n 1)
    fi
    ;;
  *)
    echo "error: MODEL_SERVER is $MODEL_SERVER; it can be image, file or base" >&2
    exit 1
    ;;
esac
if [ ! -f "$found" ]; then
  echo "error: there is no tensorflow_model_server (MODEL_SERVER=$MODEL_SERVER)" >&2
  exit 1
fi
install -m 755 "$found" /out/usr/bin/tensorflow_model_server
