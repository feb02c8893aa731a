#!/usr/bin/env bash
# Builds the programs of the previous version from the history of this repository, once, and prints where they are.
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# The version before agents enrolled themselves and ran as a service. A release moves this on to the one before it.
previous=01d7a5bd45a8931f6e22e6362fb988299bee8be0

directory=$repository/target/previous
done=$directory/$previous.done
if [[ ! -e $done ]]; then
  git -C "$repository" cat-file -e "$previous^{commit}" 2>/dev/null || {
    echo "the previous version, commit $previous, is not in this clone; \`git fetch --unshallow\` brings it" >&2
    exit 69
  }
  rm -rf "$directory/source"
  mkdir -p "$directory/source"
  git -C "$repository" archive "$previous" | tar -x -C "$directory/source"
  (cd "$directory/source" && cargo build --quiet --locked --bins --target-dir "$directory/target")
  touch "$done"
fi
echo "$directory/target/debug"
