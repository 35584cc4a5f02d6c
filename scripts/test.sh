#!/usr/bin/env bash
# Checks everything: formatting, lints, shell scripts, the Rust tests, and the server in front of real TensorFlow.
#
#   ./scripts/test.sh          all parts; exit code 0 only when nothing failed
#   ./scripts/test.sh NAME...  these parts; --help lists the names
#
# SAGEMAKER_TFS_TEST_NO_AUDIT=1 saves building two cargo tools, and leaves the tests of SBOMs out.
#
# The first run installs TensorFlow into .venv and builds everything: some minutes. A failed part does not end the
# run. A part is skipped, with the reason, only when something that it needs cannot be had.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib/development.sh
. scripts/lib/development.sh

# The parts in their order; those of one line run at the same time, since most tests wait most of their time.
GROUPS_OF_PARTS=(
  formatting
  lints
  "rustdoc shell dockerfiles deployment"
  dependencies
  advisories
  structure
  rust
  build
  "threads model_server handler_scripts handlers real_tensorflow multi_model documents containers"
)
read -ra PARTS <<<"${GROUPS_OF_PARTS[*]}"
# These need the executables of `build`.
NEED_BUILD=" handler_scripts handlers real_tensorflow multi_model containers "
# The newest cargo-deny that builds with the oldest Rust that we support.
CARGO_DENY=0.20.2
TOOLS=target/tools

# ---- The parts: functions whose first line is their text in --help.

part_formatting() { # layout of the Rust sources (cargo fmt)
  need_component fmt rustfmt
  cargo fmt --check
}

part_lints() { # lints of the Rust sources (cargo clippy), with all features and without
  need_component clippy clippy
  cargo clippy --all-targets -- -D warnings
  cargo clippy --no-default-features -- -D warnings
}

part_rustdoc() { # documentation of the Rust sources, its links and completeness (cargo doc)
  RUSTDOCFLAGS="-D warnings -D missing_docs" cargo doc --no-deps --lib
  RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --bin sagemaker-tfs-python
}

part_shell() { # all shell scripts (shellcheck)
  local files=(.ci/run scripts/*.sh scripts/lib/*.sh docker/stages/*.sh)
  files+=(scripts/tensorflow_model_server scripts/bench/nginx_model_server tests/documents/reader.sh tests/documents/stubs/{aws,docker,kubectl,mmdebstrap})
  command -v shellcheck >/dev/null || apt_install shellcheck ||
    skip "install shellcheck with: sudo apt-get install shellcheck"
  say "shellcheck ${files[*]}"
  shellcheck --external-sources "${files[@]}"
}

part_dependencies() { # licenses, duplicates and sources of crates (cargo-deny)
  need_cargo_deny
  "$TOOLS/bin/cargo-deny" --locked check licenses bans sources
}

part_advisories() { # known weaknesses of crates (cargo-deny, from a database that it fetches)
  local output
  need_cargo_deny
  say "fetching the database of advisories"
  output=$(GIT_TERMINAL_PROMPT=0 timeout 120 "$TOOLS/bin/cargo-deny" fetch db 2>&1 </dev/null) || {
    say "$output"
    skip "the database cannot be fetched: $(grep '^fatal: ' <<<"$output" | tail -n 1)"
  }
  # Offline: what was just fetched is not fetched again.
  "$TOOLS/bin/cargo-deny" --locked --offline check advisories
}

part_structure() { # layers of the Rust sources, lengths of files and functions, unsafe code (cargo test)
  cargo test --test structure
}

part_rust() { # units, structure, and the whole program with requests as coroutines (cargo test)
  cargo test
}

part_threads() { # the whole program once more, with a thread for each request
  SAGEMAKER_TFS_TEST_WORKERS=threads cargo test --test integration
}

part_build() { # the executables for the Python suites (cargo build)
  cargo build --bins --example fake_model_server
}

part_model_server() { # the stand-in for TensorFlow Serving
  suite local_model_server
}

part_handler_scripts() { # Python handlers as users write them
  suite handlers --pattern "test_c*.py"
}

part_handlers() { # Python handlers that run together, crash, hang
  suite handlers --pattern "test_[!c]*.py"
}

part_real_tensorflow() { # requests, models and life cycles with real TensorFlow
  need_tools sdk sdk || say "the SageMaker SDK cannot be installed: its test is skipped"
  need_tools sdk-v3 sdk-v3 || say "version 3 of the SageMaker SDK cannot be installed: its test is skipped"
  suite real_tensorflow
}

part_multi_model() { # multi-model mode with real TensorFlow; the handler for all models from S3
  suite multi_model
}

part_dockerfiles() { # Dockerfiles (hadolint)
  need_tools lint images
  target/tools/lint/bin/hadolint docker/*/Dockerfile
}

part_deployment() { # scripts for images, manifests, workflows
  need_tools lint images
  PYTHON_OF_SUITE=target/tools/lint/bin/python suite deployment
}

part_documents() { # every command and link in the documents
  # Tests that run at the same time go first, and `containers`, which takes longest.
  renice -n 10 "$BASHPID" >/dev/null
  need_tools lint images
  # The documents' commands have no network; the benchmark would install these.
  PATH=$PATH:/usr/sbin command -v nginx >/dev/null && command -v wrk >/dev/null || apt_install nginx wrk ||
    fail "the benchmark needs nginx and wrk. Install them with: sudo apt-get install nginx wrk"
  cargo build --release --bins --examples
  PYTHON_OF_SUITE=target/tools/lint/bin/python suite documents
}

part_containers() { # images, run as SageMaker runs them
  local reason options=()
  reason=$(containers_impossible)
  [[ -z $reason ]] || skip "$reason"
  [[ -z ${SAGEMAKER_TFS_TEST_NO_AUDIT-} ]] || options+=(--no-audit)
  need_tools sdk-v2 sdk-v2 || say "version 2 of the SageMaker SDK cannot be installed: its tests are skipped"
  ./scripts/executables.sh --out target/executables --python /usr/bin/python3 "${options[@]}"
  ./scripts/executables.sh --out target/executables-slim --flavor slim "${options[@]}"
  SAGEMAKER_TFS_TEST_EXECUTABLES=$PWD/target/executables suite containers
}

# ---- What the parts need.

# suite NAME [OPTION...]: runs the Python tests of tests/NAME.
suite() { "${PYTHON_OF_SUITE:-.venv/bin/python}" -m unittest discover --verbose -s "tests/$1" -t . "${@:2}"; }

skip() {
  say "$1"
  : >"$OUTPUTS/$PART.skipped"
  exit
}

need_component() {
  cargo "$1" --version >/dev/null 2>&1 && return
  command -v rustup >/dev/null || fail "cargo $1 is missing; it comes with Rust from https://rustup.rs"
  rustup component add "$2"
}

need_cargo_deny() {
  [[ $("$TOOLS/bin/cargo-deny" --version 2>/dev/null) == "cargo-deny $CARGO_DENY" ]] ||
    with_clock "installing cargo-deny $CARGO_DENY into $TOOLS (a minute or two)" install_cargo_deny ||
    skip "cargo-deny cannot be installed"
}

# Unoptimized, cargo-deny is built in a third of the time and checks as quickly.
install_cargo_deny() {
  CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --profile dev --root "$TOOLS" \
    --target-dir "$TOOLS/build" "cargo-deny@$CARGO_DENY" </dev/null || return
  rm -rf "$TOOLS/build"
}

# ---- Running them.

# run_group NAME...: runs these parts at the same time. The output of each is shown as it comes, but not before the
# parts in front of it have ended.
run_group() {
  local name pids=() index begin=$SECONDS
  for name in "$@"; do
    : >"$OUTPUTS/$name" # for `tail`, which may come first
    (
      trap stop_clock EXIT
      trap 'exit 130' INT
      PART=$name
      "part_$name"
    ) >>"$OUTPUTS/$name" 2>&1 </dev/null &
    pids+=($!)
  done
  for index in "${!pids[@]}"; do
    name=${*:index+1:1}
    heading "$name"
    tail --pid="${pids[index]}" --lines=+1 --follow "$OUTPUTS/$name"
    note "$name" "$begin" "${pids[index]}"
  done
}

# note NAME BEGIN PID: adds the part to the results when its process has ended.
note() {
  local status=0 result=passed reason=
  wait "$3" || status=$?
  case $status in
    0) ;;
    130) exit 130 ;; # Ctrl-C ends the run, not only the part
    *) result=FAILED ;;
  esac
  if [[ -e $OUTPUTS/$1.skipped ]]; then
    result=SKIPPED
    reason=": $(tail -n 1 "$OUTPUTS/$1")"
  fi
  RESULTS+=("$result: $1 ($((SECONDS - $2)) s)$reason")
  printf -- '--- %s: %s (%d s)\n' "$result" "$1" $((SECONDS - $2))
}

# remarkable_tests NAME: the failed and skipped tests of a part, as cargo and unittest print them.
remarkable_tests() {
  grep --text --extended-regexp '^(FAIL|ERROR): |^test .* FAILED$|SKIPPED[: ]' "$OUTPUTS/$1" | sort --unique |
    sed "s/^/  $1: /" || true
}

list_parts() {
  local name
  for name in "${PARTS[@]}"; do
    printf '  %-19s %s\n' "$name" "$(sed -n "s/^part_$name() { # //p" scripts/test.sh)"
  done
}

wanted=" "
for name in "$@"; do
  case $name in
    -h | --help)
      usage
      say "Parts:"
      list_parts
      exit 0
      ;;
  esac
  [[ " ${PARTS[*]} " == *" $name "* ]] || fail "there is no part $name. The parts are:
$(list_parts)"
  wanted+="$name "
  [[ $NEED_BUILD != *" $name "* ]] || wanted+="build "
done

begin=$SECONDS
RESULTS=()
heading "Preparing"
prepare
target=$(target_directory)
OUTPUTS=$(mktemp -d)
trap 'stop_clock; rm -rf "$OUTPUTS"' EXIT
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((4 * $(nproc)))}
export SAGEMAKER_TFS_TEST_MODELS=$PWD/.models
export SAGEMAKER_TFS_TEST_SERVER=$target/debug/sagemaker-tfs

for group in "${GROUPS_OF_PARTS[@]}"; do
  chosen=()
  for name in $group; do
    if (($# == 0)) || [[ $wanted == *" $name "* ]]; then chosen+=("$name"); fi
  done
  if ((${#chosen[@]})); then run_group "${chosen[@]}"; fi
done

heading "Summary, after $((SECONDS - begin)) s"
printf '%s\n' "${RESULTS[@]}" | sort --stable --key=1,1
for name in "${PARTS[@]}"; do
  [[ ! -e $OUTPUTS/$name ]] || remarkable_tests "$name"
done
! printf '%s\n' "${RESULTS[@]}" | grep --quiet '^FAILED'
