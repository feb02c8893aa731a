# shellcheck shell=bash
# What the demo and the check of a real obproxy share: a coordinator and agents started by hand, and how they are asked.
# The caller sets these, and the ports of the agents before it starts any.
: "${top:?}" "${target:?}" "${state:?}" "${programs:?}"
# shellcheck source=tests/demo/processes.sh
source "$top/tests/demo/processes.sh"

failures=0
say() { printf '\n== %s\n' "$*"; }
fail() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2; exit 1; }

# prove WHAT COMMAND...: whether it holds, with the first line that shows it, or the whole output when it fails.
prove() {
  local what=$1 output
  shift
  if output=$("$@" 2>&1); then
    printf 'ok    %s\n      %.110s\n' "$what" "${output%%$'\n'*}"
  else
    printf 'FAIL  %s\n%s\n' "$what" "${output:-(no output)}"
    failures=$((failures + 1))
  fi
}

# A test names the directory of its PROGRAMS, which were built with it.
# shellcheck disable=SC2086 # several flags
build_programs() { [[ -n ${PROGRAMS:-} ]] || (cd "$top" && cargo build --quiet --workspace ${BUILD_FLAGS:---bins}); }
oblet() { "$programs/oblet" "$@"; }

# api METHOD PATH [BODY]: the password goes to curl through a file descriptor, not through its arguments.
api() {
  local -a body=()
  (($# < 3)) || body=(-H 'Content-Type: application/json' --data "$3")
  curl -sS --fail-with-body --max-time 30 --cacert "$OBLET_CA" -X "$1" \
    -K <(printf 'user = "%s:%s"\n' "$OBLET_USER" "$OBLET_PASSWORD") "${body[@]}" "$OBLET_URL$2"
}

ready() { curl -sS --fail --max-time 5 --cacert "$OBLET_CA" "$OBLET_URL/-/ready"; }

# Whether every user may go down to this directory.
traversable() {
  local directory=$1
  while [[ $(stat -c %A "$directory") == *[xt] ]]; do
    [[ $directory != / ]] || return 0
    directory=$(dirname "$directory")
  done
  return 1
}

run_user() {
  if ((EUID == 0)) && traversable "$target"; then printf 'nobody\n'; else id -un; fi
}

start_coordinator() {
  say "start the coordinator"
  local directory=$state/coordinator port config_service_port
  free_port port 127.0.0.1
  free_port config_service_port 127.0.0.1
  mkdir -p "$directory"
  cat >"$directory/coordinator.toml" <<TOML
listen = "127.0.0.1:$port"
config_service_listen = "127.0.0.1:$config_service_port"
state_dir = "$directory/state"
initial_password_file = "$directory/initial-password"
advertise_addresses = ["127.0.0.1"]
TOML
  setsid "$programs/oblet-coordinator" --config "$directory/coordinator.toml" </dev/null >"$directory/coordinator.log" 2>&1 &
  coordinator_pid=$!
  export OBLET_URL=https://127.0.0.1:$port OBLET_USER=admin OBLET_CA=$directory/state/tls/ca.pem
  wait_until "$coordinator_pid" "the coordinator's first password" test -s "$directory/initial-password"
  wait_until "$coordinator_pid" "the coordinator" ready
  OBLET_PASSWORD=$(head -n 1 "$directory/initial-password")
  export OBLET_PASSWORD
  printf 'serves %s\n' "$OBLET_URL"
}

# certificate ROLE NAME ADDRESS DIRECTORY
certificate() {
  "$programs/oblet-coordinator" certificate --config "$state/coordinator/coordinator.toml" \
    --role "$1" --name "$2" --address "$3" --out "$4" </dev/null
}

# start_agent NUMBER ADDRESS: fills agent_pids.
start_agent() {
  local name=host$1 address=$2 directory=$state/host$1
  mkdir -p "$directory/root" "$directory/tls"
  certificate agent "$name" "$address" "$directory/tls"
  cat >"$directory/agent.toml" <<TOML
listen = "$address:$agent_port"
metrics_listen = "$address:$metrics_port"
state_dir = "$directory/state"
root_dir = "$directory/root"
address = "$address"
run_user = "$(run_user)"
run_path = "/home/admin/obproxy"
rpm_scriptlets = ${agent_runs_scriptlets:-true}
rpm_dependencies = false
reflection = true
tls_ca = "$directory/tls/ca.pem"
tls_certificate = "$directory/tls/agent.pem"
tls_key = "$directory/tls/agent.key"
TOML
  setsid "$programs/oblet-agent" --config "$directory/agent.toml" </dev/null >"$directory/agent.log" 2>&1 &
  agent_pids+=($!)
  wait_until "$!" "the agent of $name" port_answers "$address" "$agent_port"
  printf '%s serves %s:%s\n' "$name" "$address" "$agent_port"
}

# id_where VALUE: id of the object, anywhere in the answer, that has this value.
id_where() {
  jq -er --arg value "$1" '[.. | objects | select(has("id") and any(.[]; . == $value)) | .id] | first'
}
