#!/usr/bin/env bash
# Installs what the demo and the tests need, or says in one line what is missing. The Rust tool chain is not its business.
set -euo pipefail

declare -A apt=([rpm]=rpm [curl]=curl [jq]=jq [nc]=netcat-openbsd [strip]=binutils
  [debootstrap]=debootstrap [systemd-nspawn]=systemd-container [ip]=iproute2 [python3]=python3 [shellcheck]=shellcheck)
declare -A dnf=([rpm]=rpm [curl]=curl [jq]=jq [nc]=nmap-ncat [strip]=binutils
  [debootstrap]=debootstrap [systemd-nspawn]=systemd-container [ip]=iproute [python3]=python3 [shellcheck]=ShellCheck)
# Without the second half there is no lab of systemd hosts; its tests say so and are skipped.
needed=(rpm curl jq nc strip)
useful=(debootstrap systemd-nspawn ip python3)
# For `make lint`, which says what it skips.
checkers=(shellcheck)

missing() {
  local command
  for command in "$@"; do
    PATH=$PATH:/usr/sbin:/sbin command -v "$command" >/dev/null || printf '%s\n' "$command"
  done
}

mapfile -t commands < <(missing "${needed[@]}" "${useful[@]}" "${checkers[@]}")
if ((${#commands[@]})) && ((EUID == 0)); then
  packages=(ca-certificates)
  if command -v apt-get >/dev/null; then
    for command in "${commands[@]}"; do packages+=("${apt[$command]}"); done
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"; } \
      </dev/null >/dev/null || true
  elif command -v dnf >/dev/null; then
    for command in "${commands[@]}"; do packages+=("${dnf[$command]}"); done
    dnf install -y -q --setopt=strict=0 "${packages[@]}" </dev/null >/dev/null || true
  fi
fi
mapfile -t without < <(missing "${useful[@]}")
if ((${#without[@]})); then
  printf 'setup: there will be no lab of systemd hosts without %s\n' "$(IFS=,; echo "${without[*]}")" >&2
fi
mapfile -t commands < <(missing "${needed[@]}")
command -v cargo >/dev/null || commands+=("cargo (https://rustup.rs)")
if ((${#commands[@]})); then
  printf 'setup: missing, and not installable by this user on this system: %s\n' "$(IFS=,; echo "${commands[*]}")" >&2
  exit 69
fi
