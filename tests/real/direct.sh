# shellcheck shell=bash
# A host below a directory of this machine: what real.sh needs of it. Sourced by real.sh.

readonly host_root=$state/host1/root
# Scriptlets of a package mean the root of the machine, where none of this is to happen.
export agent_runs_scriptlets=false

raise() {
  end_processes
  rm -rf "$state"
  mkdir -p "$state"
  address=127.0.0.1
  local port
  for port in "$sql_port" "$exporter_port" $rpc_port; do
    ! port_answers "$address" "$port" || fail "port $port is taken; choose others with SQL_PORT, EXPORTER_PORT and RPC_PORT"
  done
  build_programs
  start_coordinator
  free_port agent_port "$address"
  free_port metrics_port "$address"
  agent_pids=()
  start_agent 1 "$address"
  oblet host add "$address" --agent-port "$agent_port" --metrics-port "$metrics_port" >/dev/null
  host_id=$(oblet host list --output json | id_where "$address")
  # Beside the program, where its launch looks for them.
  [[ -z $libs ]] || lay_libraries "$host_root${program_path%/bin/obproxy}/lib"
}

rpm_on_host() { rpm --dbpath "$host_root/var/lib/rpm" "$@"; }
instance_dir() { echo "$host_root/home/admin/obproxy/$sql_port"; }
instance_leftovers() { ls -d "$(instance_dir)" 2>/dev/null || true; }
files_to_search() { printf '%s\n' "$state"; }
find_on_host() { find "$host_root$1" "${@:2}"; }
# Runs of rpm are kept for as long as the journal keeps their operations.
leftover_state() {
  local agent_dir=$state/host1
  find "$agent_dir/state/obproxies" "$host_root/var/log/oblet" -mindepth 1 2>/dev/null || true
  grep -rl '/bin/obproxy' "$agent_dir"/state/runs/*/launch 2>/dev/null || true
}

# Processes whose program lies below the root of the host, also if its file was removed or replaced.
proxy_pids() {
  local directory exe
  while read -r directory exe; do
    [[ ${exe% (deleted)} != "$host_root"/*/bin/obproxy ]] || echo "${directory#/proc/}"
  done < <(programs_of_processes)
}
leftover_processes() { proxy_pids; }

# Its command line is in the launch file of the run, which is the agent's own.
first_start_hash() {
  grep -rhoE 'obproxy_sys_password=[0-9a-f]{40}' "$state"/host1/state/runs/*-first*/launch | tail -n 1 | cut -d = -f 2
}

can_be_a_stranger() { ((EUID == 0)) && traversable "$target"; }
as_stranger() { setpriv --reuid=daemon --regid=daemon --clear-groups "$@"; }
places_of_strangers() { echo "$state"; }
network_of_host() { "$@"; }

kill_agent() { kill -KILL "${agent_pids[-1]}"; }
# What a service manager would do.
agent_returns() { start_agent_again; }
start_agent_again() {
  setsid "$programs/oblet-agent" --config "$state/host1/agent.toml" </dev/null >>"$state/host1/agent.log" 2>&1 &
  agent_pids+=($!)
}

more_proofs() { :; }
show_logs() { tail -n 20 "$state"/coordinator/coordinator.log "$state"/host1/agent.log; }

take_down() {
  end_processes || return 1
  [[ -n ${KEEP:-} ]] || rm -rf "$state"
}
