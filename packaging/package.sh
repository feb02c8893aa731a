#!/usr/bin/env bash
# Builds the programs against an old glibc and puts them into packages: rpm and deb of everything, in target/packages.
# PACKAGE_PROFILE=fast saves the minutes of link-time optimisation; PACKAGE_RELEASE=n is the release of the packages.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# EL7's, the oldest system with a supported OceanBase.
glibc=2.17
target=x86_64-unknown-linux-gnu
tools=$PWD/target/tools/python

fail() {
  printf 'package: %s\n' "$1" >&2
  exit 69
}

case ${PACKAGE_PROFILE:-release} in
  release) profile=release ;;
  fast) profile=package-fast ;;
  *) fail "PACKAGE_PROFILE is release or fast, not $PACKAGE_PROFILE" ;;
esac

command -v cargo >/dev/null || fail 'cargo is missing (https://rustup.rs)'
rustc --print target-libdir --target "$target" | xargs test -d || fail "rust's library for $target is missing"

# The stamp is written last, so that an installation that was interrupted is made again.
stamp=$tools/requirements.txt
if ! cmp -s packaging/requirements.txt "$stamp"; then
  command -v python3 >/dev/null || fail 'python3 is missing'
  rm -rf "$tools"
  python3 -m venv "$tools" >/dev/null || fail 'python3 cannot make a virtual environment (Debian: install python3-venv)'
  "$tools/bin/pip" install --quiet --disable-pip-version-check --only-binary=:all: --require-hashes \
    --requirement packaging/requirements.txt || fail 'cargo-zigbuild and ziglang cannot be installed from PyPI'
  cp packaging/requirements.txt "$stamp"
fi

# The same source gives the same packages, wherever it lies. No compiler is told the date: none of the sources holds it, and
# the C libraries are built anew, with all that needs them, whenever it changes, appears or is gone.
date=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
unset SOURCE_DATE_EPOCH
cargo=${CARGO_HOME:-$HOME/.cargo}
remap="--remap-path-prefix=$cargo=/cargo --remap-path-prefix=$PWD=/oblet"
zigbuild() {
  PATH=$tools/bin:$PATH RUSTFLAGS="${RUSTFLAGS:-} $remap" \
    cargo zigbuild --quiet --package oblet --target "$target.$glibc" --profile "$@"
}
if [[ $profile == release ]]; then
  # The agent is small for the database beside it, the coordinator quick for its fleet.
  zigbuild release --bin oblet-agent --bin oblet
  zigbuild release-coordinator --bin oblet-coordinator
  cp "target/$target/release-coordinator/oblet-coordinator" "target/$target/release/"
else
  zigbuild "$profile" --bins
fi

# The whole workspace, so that what is built here is what tests need too: a package by itself has fewer features.
# shellcheck disable=SC2086 # several flags
cargo build --quiet --workspace ${BUILD_FLAGS:---bins}
SOURCE_DATE_EPOCH=$date exec "${CARGO_TARGET_DIR:-target}/debug/oblet-packaging" --binaries "target/$target/$profile" --out target/packages \
  --release "${PACKAGE_RELEASE:-1}" --glibc "$glibc"
