#!/usr/bin/env bash
# Plants defects, one at a time, and prints which share of them the tests notice.
#   SHARD=k/n   one n-th of them, number k from 0
#   DIFF=rev    only in lines that differ from that revision
#   FILE=glob   in these files instead of those that .cargo/mutants.toml names
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

arguments=(--no-shuffle --output target/mutants)
[[ -z "${SHARD:-}" ]] || arguments+=(--shard "$SHARD" --sharding round-robin)
if [[ -n "${FILE:-}" ]]; then
  # The tool adds its option to what its settings name.
  mkdir -p target/mutants
  awk '/^examine_globs/, /^]/ { next } 1' .cargo/mutants.toml >target/mutants/settings.toml
  arguments+=(--config target/mutants/settings.toml --file "$FILE")
fi
if [[ -n "${DIFF:-}" ]]; then
  mkdir -p target/mutants
  git diff "$DIFF" >target/mutants/changes.diff
  arguments+=(--in-diff target/mutants/changes.diff)
fi

# The build of one mutant differs from the next by a function, so all share a directory.
export CARGO_TARGET_DIR="$PWD/target/mutants/build"
ended=0
cargo mutants "${arguments[@]}" || ended=$?
# 2: some were not noticed; 3: some ran into the limit, which is noticing, too.
((ended == 0 || ended == 2 || ended == 3)) || exit "$ended"

lists=target/mutants/mutants.out
count() { wc -l <"$lists/$1.txt"; }
caught=$(($(count caught) + $(count timeout)))
missed=$(count missed)
if ((caught + missed == 0)); then
  echo 'mutants: there was nothing to plant'
  exit 0
fi
sed 's/^/not noticed: /' "$lists/missed.txt"
echo "mutants: $caught of $((caught + missed)) noticed, $((100 * caught / (caught + missed))) %"
