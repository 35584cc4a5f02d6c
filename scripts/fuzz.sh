#!/usr/bin/env bash
# Fuzzes the parsers: libFuzzer makes up inputs, guided by the code that they reach, until a check fails.
#
#   ./scripts/fuzz.sh                       every target for 60 s
#   ./scripts/fuzz.sh 600 json csv          these targets for 10 minutes each
#   ./scripts/fuzz.sh --update-corpus 600   adds inputs that reach new code to fuzz/corpus, and drops superfluous ones
#
# Targets are the files in fuzz/targets. Prints a line for each: executions, coverage (edges of the program reached),
# findings. fuzz/artifacts/<target>/ keeps inputs that fail; CONTRIBUTING.md says what to do with them. fuzz/work keeps
# inputs that reach new code, for the next run. The exit code is 0 only when no check failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib/development.sh
. scripts/lib/development.sh

# Longer inputs are slower and reach nothing more.
MAX_INPUT_BYTES=4096

seconds=60
update=
targets=()
for word in "$@"; do
  case $word in
    -h | --help) usage_and_exit ;;
    --update-corpus) update=yes ;;
    *[!0-9]*)
      [[ -f fuzz/targets/$word.rs ]] || fail "there is no target $word; see $0 --help and ls fuzz/targets"
      targets+=("$word")
      ;;
    *) seconds=$word ;;
  esac
done
((seconds > 0)) || fail "the time per target must be at least 1 s"
if ((${#targets[@]} == 0)); then
  for file in fuzz/targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi

need_rust
command -v c++ >/dev/null || install_or_stop "a C++ compiler (c++), to build libFuzzer," g++
cargo fuzz --version >/dev/null 2>&1 ||
  with_clock "installing cargo-fuzz with cargo, a minute or more" cargo install --quiet --locked cargo-fuzz ||
  fail "cargo-fuzz is missing and cannot be installed. Try: cargo install cargo-fuzz"

# No sanitizer: they look for what code without `unsafe` does not do, and need a nightly compiler.
with_clock "building the targets (the first time some minutes)" \
  cargo fuzz build --sanitizer none 2>fuzz/build.log || {
  cat fuzz/build.log >&2
  fail "the targets cannot be built"
}

# folders TARGET: prints the folders with committed inputs.
folders() {
  local kind
  for kind in corpus findings; do
    if [[ -d fuzz/$kind/$1 ]]; then say "fuzz/$kind/$1"; fi
  done
}

# run TARGET: fuzzes the target and prints its line.
run() {
  local target=$1 log=fuzz/work/$1.log status=0 known
  mkdir -p "fuzz/work/$target" "fuzz/artifacts/$target"
  mapfile -t known < <(folders "$target")
  cargo fuzz run --sanitizer none "$target" "fuzz/work/$target" "${known[@]}" -- \
    -max_total_time="$seconds" -max_len="$MAX_INPUT_BYTES" -timeout=10 -print_final_stats=1 >"$log" 2>&1 || status=$?
  local executions coverage finding
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  coverage=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
  finding=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
  printf '%-14s %12s executions, coverage %6s, ' "$target" "${executions:-no}" "${coverage:-none}"
  if ((status == 0)); then
    say "no finding"
  elif [[ -n $finding ]]; then
    say "FOUND: $finding"
    grep -A 3 'panicked at\|^==.*ERROR' "$log" | head -n 8 || true
  else
    say "FAILED, see $log"
  fi
  return "$status"
}

# update_corpus TARGET: reduces committed and new inputs to the smallest set that reaches the same code.
update_corpus() {
  local target=$1 known new=fuzz/work/new-corpus
  mapfile -t known < <(folders "$target")
  rm -rf "$new"
  mkdir -p "$new"
  cargo fuzz run --sanitizer none "$target" "$new" "${known[@]}" "fuzz/work/$target" -- \
    -set_cover_merge=1 -max_len="$MAX_INPUT_BYTES" >"fuzz/work/$target.merge.log" 2>&1 ||
    fail "the inputs of $target cannot be merged, see fuzz/work/$target.merge.log"
  rm -rf "fuzz/corpus/$target"
  mv "$new" "fuzz/corpus/$target"
  say "               fuzz/corpus/$target has $(find "fuzz/corpus/$target" -type f | wc -l) inputs now"
}

found=0
for target in "${targets[@]}"; do
  run "$target" || found=$((found + 1))
  if [[ -n $update ]]; then update_corpus "$target"; fi
done
((found == 0)) || fail "$found of ${#targets[@]} targets failed"
say "nothing found in ${#targets[@]} targets, $seconds s each"
