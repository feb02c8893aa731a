# shellcheck shell=bash
# The processes of the demo: found by what they execute, ended by their ids. The caller sets these two.
: "${state:?}" "${programs:?}"

# Directory below /proc and program of every process; no program where the link cannot be read. One `find` for all: a `readlink`
# for each takes a busy machine seconds.
programs_of_processes() {
  find /proc/[0-9]*/exe -maxdepth 0 -printf '%h %l\n' 2>/dev/null || true
}

# Ids of every process that belongs to this demo: a program below $state, or one of ours that was given a path below it.
demo_processes() {
  local directory exe argument ours
  local -a arguments
  while read -r directory exe; do
    mapfile -d '' -t arguments 2>/dev/null <"$directory/cmdline" || continue
    # Without CAP_SYS_PTRACE root cannot read the link of another user's process; its first argument says the same.
    ours=
    if [[ $exe == "$state"/* || ${arguments[0]:-} == "$state"/* ]]; then
      ours=yes
    elif [[ $exe == "$programs"/oblet-* ]]; then
      for argument in "${arguments[@]}"; do
        [[ $argument == *"$state"/* ]] && ours=yes
      done
    fi
    [[ -z $ours ]] || printf '%s\n' "${directory#/proc/}"
  done < <(programs_of_processes)
}

# Ends them all: asked first, killed after ten seconds.
end_processes() {
  local deadline=$((SECONDS + 10)) signal=TERM kills=0
  local -a ids
  while mapfile -t ids < <(demo_processes) && ((${#ids[@]})); do
    # On a busy machine a single look takes seconds.
    if ((SECONDS > deadline + 10 && kills > 2)); then
      printf 'demo: cannot stop these processes: %s\n' "${ids[*]}" >&2
      return 1
    fi
    ((SECONDS < deadline)) || signal=KILL
    [[ $signal == TERM ]] || kills=$((kills + 1))
    kill -s "$signal" "${ids[@]}" 2>/dev/null || true
    sleep 0.2
  done
}

# wait_until PID WHAT COMMAND...: runs the command until it succeeds, for at most 30 seconds and while the process lives.
wait_until() {
  local deadline=$((SECONDS + 30)) pid=$1 what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    if ! kill -0 "$pid" 2>/dev/null || ((SECONDS >= deadline)); then
      printf 'demo: %s ended or was not ready within 30 s\n' "$what" >&2
      return 1
    fi
    sleep 0.1
  done
}

# port_answers ADDRESS PORT
port_answers() {
  (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null
}

# Ports of this script and of what it starts, between those of the tests (tests/support/ports.rs) and the ephemeral ones.
# Who has the lock of a range has its ports; the processes inherit it and keep it beyond the end of the script.
readonly first_port=31000 ports_of_range=16 port_ranges=100
next_port=0 last_port=0

reserve_ports() {
  local number lock
  for ((number = 0; number < port_ranges; number++)); do
    # Another user's lock cannot be opened, which is told like one that is held.
    if { exec {lock}>>"${TMPDIR:-/tmp}/oblet-ports-$number.lock"; } 2>/dev/null; then
      if flock --nonblock "$lock"; then
        next_port=$((first_port + number * ports_of_range)) last_port=$((next_port + ports_of_range - 1))
        return 0
      fi
      exec {lock}>&-
    fi
  done
  printf 'demo: other scripts have all ranges of ports\n' >&2
  return 1
}

# free_port NAME ADDRESS...: the variable NAME becomes a port on which nobody listens at any of the addresses.
free_port() {
  local -n chosen_port=$1
  local address taken=yes
  shift
  while [[ -n $taken ]]; do
    ((next_port <= last_port && next_port > 0)) || reserve_ports || return 1
    chosen_port=$next_port next_port=$((next_port + 1)) taken=
    for address in "$@"; do
      if port_answers "$address" "$chosen_port"; then taken=yes; fi
    done
  done
}
