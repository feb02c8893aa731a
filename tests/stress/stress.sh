#!/usr/bin/env bash
# Runs all tests again and again while each processor has something else to do, and stops at the first run that fails.
#   RUNS=n   so many times [default: 10]
#   BUSY=n   so many processors get something else to do [default: all; 0 where other programs keep them busy already]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

runs=${RUNS:-10}
[[ $runs =~ ^[1-9][0-9]*$ ]] || {
  echo "stress: RUNS=$runs is not a number of runs" >&2
  exit 64
}
busy_processors=${BUSY:-$(nproc)}
[[ $busy_processors =~ ^[0-9]+$ ]] || {
  echo "stress: BUSY=$busy_processors is not a number of processors" >&2
  exit 64
}
log=target/stress.log
mkdir -p target
busy=()
# One that a signal to all has ended already is no matter.
trap '((${#busy[@]} == 0)) || kill "${busy[@]}" 2>/dev/null || true' EXIT
for ((processor = 0; processor < busy_processors; processor++)); do
  # They end with this script, even if it is killed.
  bash -c 'while kill -0 "$1"; do for ((i = 0; i < 1000000; i++)); do :; done; done' busy $$ 2>/dev/null &
  busy+=($!)
done

for ((run = 1; run <= runs; run++)); do
  begun=$SECONDS
  if ! make test >"$log" 2>&1; then
    cat "$log"
    echo "stress: run $run of $runs failed; its output is in $log" >&2
    exit 1
  fi
  printf 'run %s of %s, %s s: %s\n' "$run" "$runs" $((SECONDS - begun)) "$(tail -n 1 "$log" | sed 's/^ *//')"
done
