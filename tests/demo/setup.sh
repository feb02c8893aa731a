#!/usr/bin/env bash
# Installs what the demo and the tests need, or says in one line what is missing. The Rust tool chain is not its business.
set -euo pipefail

declare -A apt=([rpm]=rpm [curl]=curl [jq]=jq [nc]=netcat-openbsd [strip]=binutils)
declare -A dnf=([rpm]=rpm [curl]=curl [jq]=jq [nc]=nmap-ncat [strip]=binutils)

missing() {
  local command
  for command in rpm curl jq nc strip; do
    PATH=$PATH:/usr/sbin:/sbin command -v "$command" >/dev/null || printf '%s\n' "$command"
  done
}

mapfile -t commands < <(missing)
if ((${#commands[@]})) && ((EUID == 0)); then
  packages=(ca-certificates)
  if command -v apt-get >/dev/null; then
    for command in "${commands[@]}"; do packages+=("${apt[$command]}"); done
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"; } \
      </dev/null >/dev/null || true
  elif command -v dnf >/dev/null; then
    for command in "${commands[@]}"; do packages+=("${dnf[$command]}"); done
    dnf install -y -q "${packages[@]}" </dev/null >/dev/null || true
  fi
  mapfile -t commands < <(missing)
fi
command -v cargo >/dev/null || commands+=("cargo (https://rustup.rs)")
if ((${#commands[@]})); then
  printf 'setup: missing, and not installable by this user on this system: %s\n' "$(IFS=,; echo "${commands[*]}")" >&2
  exit 69
fi
