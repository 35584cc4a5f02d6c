# shellcheck shell=bash
# Messages and options of all scripts. To be sourced under `set -euo pipefail` with the checkout as working directory.

say() { printf '%s\n' "$*"; }

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# Prints the comment at the top of the script, which is its manual.
usage() { sed -n '2,/^set -/{/^set -/!s/^# \{0,1\}//p}' "scripts/${0##*/}"; }

usage_and_exit() {
  usage
  exit 0
}

# option_value OPTION [VALUE] ...: the value of an option that needs one.
option_value() {
  [[ $# -ge 2 && -n $2 ]] || fail "$1 needs a value; see $0 --help"
  [[ $2 != --* ]] || fail "$1 needs a value, not $2; see $0 --help"
  printf '%s' "$2"
}
