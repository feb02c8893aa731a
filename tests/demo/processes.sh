# shellcheck shell=bash
# The processes of the demo: found by what they execute, ended by their ids. The caller sets these two.
: "${state:?}" "${programs:?}"

# Ids of every process that belongs to this demo: a program below $state, or one of ours that was given a path below it.
demo_processes() {
  local directory exe argument ours
  local -a arguments
  for directory in /proc/[0-9]*; do
    exe=$(readlink "$directory/exe" 2>/dev/null) || exe=
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
  done
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

# Prints a port, below the ephemeral range, on which nobody listens at any of the addresses.
free_port() {
  local port address taken
  while :; do
    port=$((RANDOM % 12000 + 20000)) taken=
    for address in "$@"; do
      if port_answers "$address" "$port"; then taken=yes; fi
    done
    [[ -n $taken ]] || break
  done
  printf '%s\n' "$port"
}
