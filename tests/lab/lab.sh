#!/usr/bin/env bash
# A lab of real systemd hosts on this machine.
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

usage() {
  cat >&2 <<'END'
usage: lab.sh up [COUNT]           a coordinator and COUNT hosts with agents, from packages [default: 3]
       lab.sh oblet ARGUMENT...    the operator's command line, on the coordinator's host
       lab.sh coordinator          install the coordinator on h0 and start it
       lab.sh enrol HOST           install the agent on a booted host and enrol it
       lab.sh package NAME HOST    lay the package of a program there; prints its path
       lab.sh put FILE HOST        lay a file into /root of the host; prints its path there
       lab.sh boot HOST...         start hosts (h0 for the coordinator, h1, h2, ...) and wait until they are up
       lab.sh run HOST COMMAND...  run a command on a host
       lab.sh off HOST             switch a host off in order; `boot` starts it again
       lab.sh plug HOST            pull its plug
       lab.sh cut HOST             take it off the network
       lab.sh join HOST            put it back
       lab.sh slow HOST MS LOSS    frames are MS milliseconds late and LOSS percent get lost, each way
       lab.sh calm HOST            end that
       lab.sh check                whether a lab can be raised here
       lab.sh down                 end all hosts and remove what they left

OBLET_LAB is the number of the lab, 0 to 255 [default: 0]. OBLET_LAB_CACHE is where the root of the hosts is kept
[default: /var/cache/oblet-lab], OBLET_LAB_PACKAGES where the packages are [default: target/packages]
and OBLET_LAB_RELEASE which of them are installed [default: the newest]. OBLET_LAB_RPM_HOSTS names the hosts that get rpms,
OBLET_LAB_AGENT_SETTINGS has lines for the configuration of their agents.
END
  exit 64
}

say() { echo "lab: $*" >&2; }
die() {
  say "$*"
  exit 1
}

# shellcheck source=tests/lab/hosts.sh
source "$repository/tests/lab/hosts.sh"
# shellcheck source=tests/lab/fleet.sh
source "$repository/tests/lab/fleet.sh"

((EUID == 0)) || die "a lab needs root"
for tool in debootstrap systemd-nspawn ip nsenter unshare pgrep flock; do
  command -v "$tool" >/dev/null || die "$tool is missing; \`make setup\` installs it"
done
(($# > 0)) || usage
command=$1
shift
case $command in
  up)
    up "${1:-3}"
    introduce
    ;;
  oblet) oblet "$@" ;;
  coordinator) start_coordinator ;;
  enrol) enrol "$1" ;;
  package) put "$(package_of "$1")" "$2" ;;
  put) put "$1" "$2" ;;
  boot)
    for host in "$@"; do boot "$host"; done
    for host in "$@"; do await_boot "$host"; done
    ;;
  run) run_on "$@" ;;
  off) power_off "$1" ;;
  plug) pull_plug "$1" ;;
  cut) cut_off "$1" ;;
  join) join "$1" ;;
  slow) slow "$@" ;;
  calm) calm "$1" ;;
  check) package_of oblet-agent >/dev/null ;;
  down) remove_all ;;
  *) usage ;;
esac
