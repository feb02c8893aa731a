#!/usr/bin/env bash
# Two hosts on one machine, from nothing to two running proxies, through the CLI and the public API alone.
#   demo.sh run    brings all up, proves it and takes it down
#   demo.sh up     brings all up, proves it and leaves it running; target/demo/env tells how to reach it
#   demo.sh down   takes down what is left
# The database program is a stand-in; packages, processes, ports, journals and certificates are real.
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
target=$(mkdir -p "${CARGO_TARGET_DIR:-$top/target}" && cd "${CARGO_TARGET_DIR:-$top/target}" && pwd -P)
readonly top target programs=$target/debug state=$target/demo
readonly cluster=demo sql_port=2883
# A host for each version. They share a network, and obproxy listens for metrics and RPC on every address of it,
# whatever it is told: so those ports differ.
readonly -a addresses=(127.0.0.2 127.0.0.3)
package_files=("obproxy-1.9.1.1-1919579.el7.$(uname -m).rpm" "obproxy-ce-4.3.1.0-1.el8.$(uname -m).rpm")
readonly -a package_files exporter_ports=(2884 2894) rpc_ports=('' 2895)
# shellcheck source=tests/demo/common.sh
source "$top/tests/demo/common.sh"

build() {
  say "build the programs and a package of each version"
  build_programs
  mkdir -p "$state/rpm"
  strip -o "$state/rpm/obproxy" "$programs/obproxy"
  "$programs/build-rpm" "$state/rpm/obproxy" "$state/rpm"
  "$programs/build-rpm" "$state/rpm/obproxy" "$state/rpm" --modern
}

deploy() {
  local answer address user request number
  local -a ids=() request_ids=()
  for user in proxysys proxyro; do
    # OCP's rule: 8 to 32 characters, two of each kind.
    (umask 077 && printf 'Ab.%sCd_12\n' "$(head -c 12 /dev/urandom | od -An -tx1 | tr -d ' \n')" >"$state/$user-password")
  done

  say "upload the packages, add the hosts, create the proxy cluster"
  for number in 0 1; do oblet package upload "$state/rpm/${package_files[number]}"; done
  for address in "${addresses[@]}"; do
    oblet host add "$address" --agent-port "$agent_port" --metrics-port "$metrics_port"
    ids+=("$(oblet host list --output json | id_where "$address")")
  done
  host_ids=$(IFS=,; echo "${ids[*]}")
  oblet obproxy create "$cluster" --rs-list 127.0.0.1:2881 --ob-link obdemo:1 \
    --proxysys-password-file "$state/proxysys-password" --proxyro-password-file "$state/proxyro-password"
  cluster_id=$(oblet obproxy list --output json | id_where "$cluster")

  say "POST /api/v2/obproxy/clusters/$cluster_id/obproxies/batchAdd"
  for number in 0 1; do
    request=$(jq -nc --arg version "${package_files[number]}" --argjson host "${ids[number]}" --argjson sql $sql_port \
      --argjson exporter "${exporter_ports[number]}" --argjson rpc "${rpc_ports[number]:-null}" \
      '{hostIds: [$host], sqlPort: $sql, exporterPort: $exporter, version: $version}
        + if $rpc then {rpcPort: $rpc} else {} end')
    printf '%s\n' "$request"
    answer=$(api POST "/api/v2/obproxy/clusters/$cluster_id/obproxies/batchAdd" "$request") ||
      fail "batchAdd was refused: $answer"
    mapfile -t request_ids < <(jq -er '.data.contents[].id' <<<"$answer")
    ((${#request_ids[@]} == 1)) || fail "expected a task for the host: $answer"
    task_ids+=("${request_ids[@]}")
  done
  oblet task watch "${task_ids[@]}" || failures=$((failures + 1))
}

# installed ROOT FILE: by the name of the file, which is the name of the package.
installed() { rpm --dbpath "$1/var/lib/rpm" -qa | grep -Fx "${2%.rpm}"; }
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
  local number address exporter id
  say "the Prometheus targets"
  api GET /api/v2/prometheus/targets | jq -c '.[]'
  say "task ${task_ids[0]} as JSON"
  oblet task show "${task_ids[0]}" --output json | jq -c .
  say "checks"
  for id in "${task_ids[@]}"; do
    prove "task $id: 12 subtasks, all SUCCESSFUL" succeeded "$id"
  done
  for number in 1 2; do
    address=${addresses[number - 1]} exporter=${addresses[number - 1]}:${exporter_ports[number - 1]}
    prove "host$number: rpm database has ${package_files[number - 1]%.rpm}" \
      installed "$state/host$number/root" "${package_files[number - 1]}"
    prove "host$number: SQL login at $address:$sql_port with the cluster's password" logs_in "$address"
    prove "host$number: SQL login without a password is refused" refuses "$address"
    prove "host$number: exporter port $exporter" scraped "$exporter" '^exposer_scrapes_total'
    prove "host$number: agent's metrics at $address:$metrics_port" scraped "$address:$metrics_port" '^oblet_'
    prove "host$number: Prometheus finds $exporter" listed "$exporter"
  done
  prove "no file below $state contains a proxy password in clear text" sealed
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
    OBLET_DEMO_RPM "$state/rpm/${package_files[0]}" OBLET_DEMO_RPM_4 "$state/rpm/${package_files[1]}"
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
  local address port number
  for address in "${addresses[@]}"; do
    for port in $sql_port "${exporter_ports[@]}" "${rpc_ports[@]}"; do
      [[ -z $port ]] || ! port_answers "$address" "$port" || fail "port $port of $address is taken; stop its owner (ss -ltnp 'sport = :$port')"
    done
  done
  trap leave EXIT
  trap 'exit 130' INT TERM
  build
  start_coordinator
  say "start two agents"
  free_port agent_port "${addresses[@]}"
  free_port metrics_port "${addresses[@]}"
  agent_pids=() task_ids=()
  for number in 1 2; do start_agent "$number" "${addresses[number - 1]}"; done
  deploy
  prove_all
  ((failures == 0)) || fail "$failures checks failed"
}

case ${1:-} in
  run)
    up
    say "all checks passed; taking it down"
    ;;
  up)
    up
    write_env
    trap - EXIT
    say "all checks passed; to use it: source $state/env"
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
