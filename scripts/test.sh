#!/usr/bin/env bash
# Checks everything: formatting, lints, shell scripts, the Rust tests, and the server in front of real TensorFlow.
#
#   ./scripts/test.sh          ends with a summary; exit code 0 only when nothing failed
#
# SAGEMAKER_TFS_TEST_NO_AUDIT=1 saves building two cargo tools, and leaves the tests of SBOMs out.
#
# The first run installs TensorFlow into .venv and builds everything: some minutes. Every step runs, whatever
# became of the ones before; a step is skipped only when what it needs cannot be had, and then says so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/common.sh
. scripts/common.sh

case ${1-} in
  '') ;;
  -h | --help)
    sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
  *) die "unknown option $1; see $0 --help" ;;
esac

PASSED=()
FAILED=()
SKIPPED=()

# step NAME COMMAND...: runs a command under a heading and notes what became of it.
step() {
  local name=$1 begin=$SECONDS status=0
  shift
  heading "$name"
  "$@" || status=$?
  # Ctrl-C during a step ends the run, not only the step.
  ((status != 130)) || exit 130
  if ((status)); then
    FAILED+=("$name")
    printf -- '--- FAILED: %s (%d s)\n' "$name" $((SECONDS - begin))
  else
    PASSED+=("$name")
    printf -- '--- passed: %s (%d s)\n' "$name" $((SECONDS - begin))
  fi
}

# together NAME COMMAND [NAME COMMAND]...: steps that wait most of their time, all at once. Each one's output is shown as it
# comes, but not before the steps before it are done.
together() {
  local names=() pids=() index
  OUTPUTS=$(mktemp -d)
  trap 'rm -rf "$OUTPUTS"' EXIT
  while (($#)); do
    (
      trap - INT
      "$2"
    ) >"$OUTPUTS/${#pids[@]}" 2>&1 </dev/null &
    pids+=($!)
    names+=("$1")
    shift 2
  done
  for index in "${!pids[@]}"; do
    step "${names[index]}" follow "${pids[index]}" "$OUTPUTS/$index"
  done
}

# follow PID FILE: shows the output of a command in the background until it ends; its exit code.
follow() {
  tail --pid="$1" --lines=+1 --follow "$2" && wait "$1"
}

skip() {
  heading "$1"
  printf -- '--- SKIPPED: %s: %s\n' "$1" "$2"
  SKIPPED+=("$1")
}

need_component() {
  cargo "$1" --version >/dev/null 2>&1 && return
  command -v rustup >/dev/null || {
    say "cargo $1 is missing; it comes with Rust from https://rustup.rs"
    return 1
  }
  rustup component add "$2"
}

formatting() { need_component fmt rustfmt && cargo fmt --check; }

lints() {
  need_component clippy clippy && cargo clippy --all-targets -- -D warnings &&
    cargo clippy --no-default-features -- -D warnings # the server of images without Python
}

shell_scripts() {
  local files=(.ci/run scripts/*.sh scripts/tensorflow_model_server docker/stages/*.sh)
  say "shellcheck ${files[*]}"
  shellcheck --external-sources "${files[@]}"
}

# The newest that builds with the oldest Rust we do.
CARGO_DENY=0.20.2
TOOLS=target/tools

# Gets cargo-deny into a folder of ours. Unoptimised it is built in a third of the time and checks as quickly.
need_cargo_deny() {
  [[ $("$TOOLS/bin/cargo-deny" --version 2>/dev/null) == "cargo-deny $CARGO_DENY" ]] ||
    with_clock "installing cargo-deny $CARGO_DENY into $TOOLS (a minute or two)" install_cargo_deny
}

install_cargo_deny() {
  CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --profile dev --root "$TOOLS" \
    --target-dir "$TOOLS/build" "cargo-deny@$CARGO_DENY" </dev/null || return
  rm -rf "$TOOLS/build"
}

dependencies() { "$TOOLS/bin/cargo-deny" --locked check licenses bans sources; }

# Whether the database, a git repository, could be had; if not, WHY_NO_ADVISORIES says why.
fetch_advisories() {
  local said
  say "fetching the database of advisories"
  said=$(GIT_TERMINAL_PROMPT=0 timeout 120 "$TOOLS/bin/cargo-deny" fetch db 2>&1 </dev/null) && return
  say "$said"
  WHY_NO_ADVISORIES="their database cannot be fetched: $(grep '^fatal: ' <<<"$said" | tail -n 1)"
  return 1
}

# What was just fetched is not fetched again: no network, no failed check.
advisories() { "$TOOLS/bin/cargo-deny" --locked --offline check advisories; }

# Requests as coroutines, as they are unless something is set; then the tests of the whole program once more with a
# thread for each request.
rust_tests() { cargo test; }
integration_tests_with_threads() { SAGEMAKER_TFS_TEST_WORKERS=threads cargo test --test integration; }

build_for_python_tests() {
  cargo build --bins --example fake_model_server
}

local_model_server_tests() {
  .venv/bin/python -m unittest discover -s tests/local_model_server
}

handler_tests() {
  .venv/bin/python -m unittest discover --verbose -s tests/handlers
}

real_tensorflow_and_multi_model_tests() {
  local status=0 folder
  for folder in real_tensorflow multi_model; do
    .venv/bin/python -m unittest discover --verbose -s "tests/$folder" || status=$?
  done
  return "$status"
}

dockerfiles() {
  need_image_checkers && target/tools/lint/bin/hadolint docker/*/Dockerfile && say "no remarks"
}

deployment_tests() {
  target/tools/lint/bin/python -m unittest discover --verbose -s tests/deployment
}

image_executables() {
  local options=(--out target/executables --python /usr/bin/python3)
  [[ -z ${SAGEMAKER_TFS_TEST_NO_AUDIT-} ]] || options+=(--no-audit)
  ./scripts/executables.sh "${options[@]}"
  ./scripts/executables.sh "${options[@]}" --flavor slim --out target/executables-slim
}

container_tests() {
  SAGEMAKER_TFS_TEST_EXECUTABLES=$PWD/target/executables \
    .venv/bin/python -m unittest discover --verbose -s tests/containers
}

begin=$SECONDS
heading "Preparing"
prepare
target=$(target_directory)
# Most tests wait most of their time.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((2 * $(nproc)))}
export SAGEMAKER_TFS_TEST_MODELS=$PWD/.models
export SAGEMAKER_TFS_TEST_SERVER=$target/debug/sagemaker-tfs
export SAGEMAKER_TFS_TEST_FAKE_MODEL_SERVER=$target/debug/examples/fake_model_server

step "formatting (cargo fmt)" formatting
step "lints (cargo clippy)" lints
if command -v shellcheck >/dev/null || apt_install shellcheck; then
  step "shell scripts (shellcheck)" shell_scripts
else
  skip "shell scripts (shellcheck)" "install it with: sudo apt-get install shellcheck"
fi
if need_cargo_deny; then
  step "dependencies: licences, duplicates, sources (cargo-deny)" dependencies
  if fetch_advisories; then
    step "dependencies: advisories (cargo-deny)" advisories
  else
    skip "dependencies: advisories (cargo-deny)" "$WHY_NO_ADVISORIES"
  fi
else
  skip "dependencies (cargo-deny)" "it cannot be installed, see above"
fi
step "Rust tests, requests as coroutines (cargo test)" rust_tests
step "building for the next steps" build_for_python_tests
together "integration tests, requests on threads (cargo test)" integration_tests_with_threads \
  "local model server" local_model_server_tests
together "handlers on real TensorFlow" handler_tests \
  "sagemaker-tfs with real TensorFlow; multi-model mode, its handler from S3" real_tensorflow_and_multi_model_tests
step "Dockerfiles (hadolint)" dockerfiles
step "scripts for images, manifests, workflows, documents" deployment_tests
reason=$(containers_impossible)
if [[ -z $reason ]]; then
  step "building the executables of images" image_executables
  step "containers" container_tests
else
  skip "containers" "$reason"
fi

heading "Summary, after $((SECONDS - begin)) s"
for name in ${FAILED[@]+"${FAILED[@]}"}; do say "FAILED: $name"; done
for name in ${SKIPPED[@]+"${SKIPPED[@]}"}; do say "SKIPPED: $name"; done
say "${#PASSED[@]} passed, ${#FAILED[@]} failed, ${#SKIPPED[@]} skipped"
((${#FAILED[@]} == 0))
