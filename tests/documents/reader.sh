# shellcheck shell=bash
# Prepares the shell that runs a document's commands: isolated from this system, with the files that its reader would have.
# test_commands.py sources it in namespaces of its own, with SCRATCH naming an empty folder and the document as $1.
set -euo pipefail
mount -t tmpfs tmpfs "$SCRATCH"
mkdir "$SCRATCH/upper" "$SCRATCH/work" "$SCRATCH/home" "$SCRATCH/tmp"
mount -t overlay overlay -o "lowerdir=$PWD,upperdir=$SCRATCH/upper,workdir=$SCRATCH/work" "$PWD"
cd "$PWD"
python3 - <<'UP'
import fcntl, socket, struct
SIOCSIFFLAGS, IFF_UP, IFF_RUNNING = 0x8914, 0x1, 0x40
fcntl.ioctl(socket.socket(), SIOCSIFFLAGS, struct.pack("16sH14s", b"lo", IFF_UP | IFF_RUNNING, b""))
UP
export CARGO_HOME=${CARGO_HOME:-$HOME/.cargo} RUSTUP_HOME=${RUSTUP_HOME:-$HOME/.rustup}
export HOME=$SCRATCH/home TMPDIR=$SCRATCH/tmp
printf '%s\n' silent show-error >"$HOME/.curlrc"
curl() { command curl --fail-with-body "$@"; } # a status above 399 fails a command of a document
server=

stop_server() {
  [[ -n $server ]] || return 0
  kill -INT -- "-$server"
  wait "$server" || {
    echo "the server ended with exit code $?"
    exit 1
  }
  server=
}

# start_server FILE: runs a block that serves, in a session of its own, until /ping answers 200.
start_server() {
  stop_server
  setsid bash -euo pipefail "$1" >"$SCRATCH/server.log" 2>&1 &
  server=$!
  for _ in {1..1200}; do
    command curl --silent --fail --max-time 5 --output /dev/null http://127.0.0.1:8080/ping 2>/dev/null && return
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
  done
  cat "$SCRATCH/server.log"
  echo "the server is not ready"
  exit 1
}

case $1 in
  README.md | docs/SECURITY.md) mkdir -p models && cp -r .models/half_plus_three models/my_model ;;
  docs/GUIDE.md) mkdir -p models && cp -r .models/half_plus_three models/ ;;
  docs/DEPLOYING.md)
    mkdir -p models/code && cp -r .models/half_plus_three models/ && cp -r .models/half_plus_three models/my_model
    touch tensorflow_model_server
    mkdir -p target/executables/sbom
    for name in sagemaker-tfs sagemaker-tfs-python; do
      install /dev/null "target/executables/$name" && touch "target/executables/sbom/$name.cdx.json"
    done
    ;;
esac
