#!/usr/bin/env bash
# Two hosts on one machine, from nothing to two running proxies, through the CLI and the public API alone.
#   demo.sh run    brings all up, proves it and takes it down
#   demo.sh up     brings all up, proves it and leaves it running; target/demo/env tells how to reach it
#   demo.sh down   takes down what is left
# The database program is a stand-in; packages, processes, ports, journals and certificates are real.
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
target=$(mkdir -p "${CARGO_TARGET_DIR:-$top/target}" && cd "${CARGO_TARGET_DIR:-$top/target}" && pwd -P)
package_file=obproxy-1.9.1.1-1919579.el7.$(uname -m).rpm
readonly top target programs=$target/debug state=$target/demo
readonly cluster=demo package_file sql_port=2883 exporter_port=2884
readonly -a addresses=(127.0.0.2 127.0.0.3)
# shellcheck source=tests/demo/processes.sh
source "$top/tests/demo/processes.sh"

failures=0
say() { printf '\n== %s\n' "$*"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }

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

build() {
  say "build the programs and the package"
  (cd "$top" && cargo build --quiet --workspace --bins)
  mkdir -p "$state/rpm"
  strip -o "$state/rpm/obproxy" "$programs/obproxy"
  "$programs/build-rpm" "$state/rpm/obproxy" "$state/rpm"
}

start_coordinator() {
  say "start the coordinator"
  local directory=$state/coordinator port
  port=$(free_port 127.0.0.1)
  mkdir -p "$directory"
  cat >"$directory/coordinator.toml" <<TOML
listen = "127.0.0.1:$port"
config_service_listen = "127.0.0.1:$(free_port 127.0.0.1)"
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

# start_agent NUMBER: fills agent_pids.
start_agent() {
  local name=host$1 address=${addresses[$1 - 1]} directory=$state/host$1
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
rpm_scriptlets = true
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

deploy() {
  local answer address user request
  local -a ids=()
  for user in proxysys proxyro; do
    # OCP's rule: 8 to 32 characters, two of each kind.
    (umask 077 && printf 'Ab.%sCd_12\n' "$(head -c 12 /dev/urandom | od -An -tx1 | tr -d ' \n')" >"$state/$user-password")
  done

  say "upload the package, add the hosts, create the proxy cluster"
  oblet package upload "$state/rpm/$package_file"
  for address in "${addresses[@]}"; do
    oblet host add "$address" --agent-port "$agent_port" --metrics-port "$metrics_port"
    ids+=("$(oblet host list --output json | id_where "$address")")
  done
  host_ids=$(IFS=,; echo "${ids[*]}")
  oblet obproxy create "$cluster" --rs-list 127.0.0.1:2881 --ob-link obdemo:1 \
    --proxysys-password-file "$state/proxysys-password" --proxyro-password-file "$state/proxyro-password"
  cluster_id=$(oblet obproxy list --output json | id_where "$cluster")

  say "POST /api/v2/obproxy/clusters/$cluster_id/obproxies/batchAdd"
  request=$(jq -nc --arg version "$package_file" --argjson hosts "[$host_ids]" --argjson sql $sql_port \
    --argjson exporter $exporter_port '{hostIds: $hosts, sqlPort: $sql, exporterPort: $exporter, version: $version}')
  printf '%s\n' "$request"
  answer=$(api POST "/api/v2/obproxy/clusters/$cluster_id/obproxies/batchAdd" "$request") ||
    fail "batchAdd was refused: $answer"
  mapfile -t task_ids < <(jq -er '.data.contents[].id' <<<"$answer")
  ((${#task_ids[@]} == ${#addresses[@]})) || fail "expected a task for each host: $answer"
  oblet task watch "${task_ids[@]}" || failures=$((failures + 1))
}

installed() { rpm --dbpath "$1/var/lib/rpm" -q obproxy | grep -x "${package_file%.rpm}"; }
logs_in() { OBLET_SQL_PASSWORD=$(<"$state/proxysys-password") "$programs/sql-login" "$1" "$sql_port" root@proxysys; }
refuses() {
  { OBLET_SQL_PASSWORD='' "$programs/sql-login" "$1" "$sql_port" root@proxysys 2>&1 || true; } | grep 'refused with 1045'
}
scraped() { curl -sS --fail --max-time 10 "http://$1/metrics" | grep "$2"; }
listed() { api GET /api/v2/prometheus/targets | jq -e --arg target "$1" 'any(.. | strings; . == $target)'; }

succeeded() {
  oblet task show "$1" --output json |
    jq -e '(.data // .) | .status == "SUCCESSFUL" and (.subtasks | length == 12 and all(.status == "SUCCESSFUL"))' ||
    { oblet task show "$1" && oblet task log "$1" && return 1; }
}

# No file of the demo holds a password in clear, but for those that are made to hold it.
sealed() {
  local code=0
  grep -rlaFf <(cat "$state"/*-password) --exclude='proxy*-password' "$state" || code=$?
  # 0: found; 2: some file could not be read.
  ((code == 1))
}

prove_all() {
  local number address id
  say "the Prometheus targets"
  api GET /api/v2/prometheus/targets | jq -c '.[]'
  say "task ${task_ids[0]} as JSON"
  oblet task show "${task_ids[0]}" --output json | jq -c .
  say "proofs"
  for id in "${task_ids[@]}"; do
    prove "task $id: 12 subtasks, all SUCCESSFUL" succeeded "$id"
  done
  for number in 1 2; do
    address=${addresses[number - 1]}
    prove "host$number: rpm database has ${package_file%.rpm}" installed "$state/host$number/root"
    prove "host$number: SQL login at $address:$sql_port with the cluster's password" logs_in "$address"
    prove "host$number: SQL login without a password is refused" refuses "$address"
    prove "host$number: exporter port $address:$exporter_port" scraped "$address:$exporter_port" '^odp_current_session{'
    prove "host$number: agent's metrics at $address:$metrics_port" scraped "$address:$metrics_port" '^oblet_'
    prove "host$number: Prometheus finds $address:$exporter_port" listed "$address:$exporter_port"
  done
  prove "the proxies' passwords stand in clear in no file made below $state" sealed
}

# What a user or another test needs to reach the running demo; private, because it holds a password.
write_env() {
  certificate coordinator demo-client 127.0.0.1 "$state/client"
  local -a pairs=(
    OBLET_URL "$OBLET_URL" OBLET_USER "$OBLET_USER" OBLET_PASSWORD "$OBLET_PASSWORD" OBLET_CA "$OBLET_CA"
    OBLET_HOST_IDS "$host_ids" OBLET_COORDINATOR_PID "$coordinator_pid" OBLET_AGENT_1_PID "${agent_pids[0]}"
    OBLET_AGENT_1 "${addresses[0]}:$agent_port" OBLET_AGENT_2 "${addresses[1]}:$agent_port"
    OBLET_AGENT_1_METRICS "http://${addresses[0]}:$metrics_port/metrics"
    OBLET_CLIENT_CERT "$state/client/coordinator.pem" OBLET_CLIENT_KEY "$state/client/coordinator.key"
    OBLET_DEMO_RPM "$state/rpm/$package_file"
  )
  (umask 077 && printf "export %s='%s'\n" "${pairs[@]//\'/\'\\\'\'}" >"$state/env")
}

# Takes all down when the demo ends by itself, fails or is interrupted; shows the last lines of the logs when it failed.
leave() {
  local code=$?
  trap - EXIT
  if ((code != 0)); then
    tail -n 15 "$state"/coordinator/coordinator.log "$state"/host?/agent.log 2>/dev/null || true
  fi
  end_processes || code=1
  exit "$code"
}

up() {
  "$top/tests/demo/setup.sh"
  end_processes
  rm -rf "$state"
  local address port
  for address in "${addresses[@]}"; do
    for port in $sql_port $exporter_port; do
      ! port_answers "$address" "$port" || fail "port $port of $address is taken; stop its owner (ss -ltnp 'sport = :$port')"
    done
  done
  trap leave EXIT
  trap 'exit 130' INT TERM
  build
  start_coordinator
  say "start two agents"
  agent_port=$(free_port "${addresses[@]}") metrics_port=$(free_port "${addresses[@]}") agent_pids=()
  start_agent 1
  start_agent 2
  deploy
  prove_all
  ((failures == 0)) || fail "$failures proofs failed"
}

case ${1:-} in
  run)
    up
    say "all proofs hold; taking it down"
    ;;
  up)
    up
    write_env
    trap - EXIT
    say "all proofs hold; to use it: source $state/env"
    ;;
  down)
    end_processes
    rm -f "$state/env"
    ;;
  *)
    echo "usage: $0 run | up | down" >&2
    exit 64
    ;;
esac
