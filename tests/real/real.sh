#!/usr/bin/env bash
# Proves that oblet can manage the obproxy of a package: adds a proxy from it through the public API, looks at what an
# operator, a stranger on the host and a crash would find, and takes everything away.
#   real.sh OBPROXY_RPM          on a host below a directory of this machine, without systemd
#   real.sh --lab OBPROXY_RPM    on a systemd host of the lab; needs root
# From the environment: LIBS, a directory of shared libraries that the program needs (laid where the host's loader finds
# them); SQL_PORT, EXPORTER_PORT and RPC_PORT; REAL_DIR, where everything is kept meanwhile; REAL_LAB, the number of the lab;
# PROGRAMS, the directory of programs that need not be built.
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
target=$(mkdir -p "${CARGO_TARGET_DIR:-$top/target}" && cd "${CARGO_TARGET_DIR:-$top/target}" && pwd -P)
programs=${PROGRAMS:-$target/debug}
place=direct
if [[ ${1:-} == --lab ]]; then
  place=lab
  shift
fi
(($# == 1)) || {
  echo "usage: $0 [--lab] OBPROXY_RPM" >&2
  exit 64
}
state=${REAL_DIR:-$target/real/$place}
mkdir -p "$state" && state=$(cd "$state" && pwd -P)
readonly top target programs place state
# shellcheck source=tests/demo/common.sh
source "$top/tests/demo/common.sh"
package=$(realpath -- "$1") || fail "$1 is not there"
[[ -r $package ]] || fail "$package cannot be read"
libs=${LIBS:+$(realpath -- "$LIBS")}
[[ -z $libs || -d $libs ]] || fail "LIBS=$libs is no directory"
query() { rpm -qp --nosignature "$@" "$package" 2>/dev/null; }
version=$(query --qf '%{VERSION}') || fail "$package is no rpm"
package_name=$(query --qf '%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}')
sql_port=${SQL_PORT:-2883} exporter_port=${EXPORTER_PORT:-2884} rpc_port=${RPC_PORT:-2885}
IFS=. read -r major minor _ <<<"$version.0.0"
# Versions before 4.3 have no port for RPC.
((major > 4 || (major == 4 && minor >= 3))) || rpc_port=
program_path=$(query -l | grep '/bin/obproxy$' | head -n 1) || fail "$package has no bin/obproxy"
readonly program_path package version package_name libs sql_port exporter_port rpc_port

# shellcheck source=tests/real/direct.sh
source "$top/tests/real/$place.sh"

if query -l | grep -q '/standin-version$'; then
  echo "real: met the stand-in of obproxy $version ($package_name), $place"
else
  echo "real: met a real obproxy $version ($package_name), $place"
fi

# Parameters that every version has, with values that are nobody's default.
startup_parameters=(work_thread_num=7 automatic_match_work_thread=False)
parameters=(client_max_connections=9123 proxy_mem_limited=3G enable_cluster_checkout=False)
readonly startup_parameters parameters
# The hash of the password that is built into 4.x; its text is not known.
readonly built_in_hash=f0455d5edb4833fa2e91762e71b61bc35d45cf0b

# libraries: what of LIBS can be laid beside the program. The C library of the host is its own: another one's parts do not
# fit its loader, and every program of the host would get them.
libraries() {
  [[ -n $libs ]] || return 0
  local file
  for file in "$libs"/*; do
    case ${file##*/} in
      ld-linux*.so* | ld-[0-9]*.so | libc.so* | libc-[0-9]*.so | libm.so* | libm-[0-9]*.so | libpthread[.-]* | libdl[.-]* | librt[.-]* | libresolv[.-]*) ;;
      *) [[ ! -f $file ]] || echo "$file" ;;
    esac
  done
}

# lay_libraries DIRECTORY: readable for everybody, links as what they lead to.
lay_libraries() {
  local file
  mkdir -p "$1"
  while read -r file; do install --mode=755 "$file" "$1/"; done < <(libraries)
}

# --- what is asked of the coordinator

# create NAME [OPTION...]: a proxy cluster without a proxy; says something only if it fails.
create() {
  local said
  said=$(oblet obproxy create "$1" --rs-list 127.0.0.1:2881 --ob-link obreal:1 \
    --proxysys-password-file "$state/proxysys-password" --proxyro-password-file "$state/proxyro-password" "${@:2}" 2>&1) ||
    {
      echo "$said"
      return 1
    }
}

# add CLUSTER: requests a proxy over the REST API; prints the id of its task.
add() {
  local id request
  id=$(oblet obproxy list --output json | id_where "$1")
  request=$(jq -nc --arg version "$package_name.rpm" --argjson host "$host_id" --argjson sql "$sql_port" \
    --argjson exporter "$exporter_port" --argjson rpc "${rpc_port:-null}" \
    '{hostIds: [$host], sqlPort: $sql, exporterPort: $exporter, version: $version}
      + if $rpc then {rpcPort: $rpc} else {} end')
  api POST "/api/v2/obproxy/clusters/$id/obproxies/batchAdd" "$request" | jq -er '.data.contents[0].id'
}

# task ID FILTER: what jq makes of the task.
task() { oblet task show "$1" --output json | jq -er "(.data // .) | $2"; }
twelve_of_twelve() { task "$1" '.status == "SUCCESSFUL" and (.subtasks | length == 12 and all(.status == "SUCCESSFUL"))'; }

# --- what is asked of the proxy

sql() { OBLET_SQL_PASSWORD=$(<"$state/proxysys-password") "$programs/sql-login" "$address" "$sql_port" root@proxysys "$@"; }
sql_by_hash() { OBLET_SQL_HASH=$1 "$programs/sql-login" "$address" "$sql_port" root@proxysys; }
sql_without() { OBLET_SQL_PASSWORD='' "$programs/sql-login" "$address" "$sql_port" root@proxysys; }

# refused COMMAND...: the proxy answers, and says no.
refused() {
  local said
  if said=$("$@" 2>&1); then
    echo "was let in: $said"
    return 1
  fi
  grep 'refused with 1045' <<<"$said"
}

serves() { sql >/dev/null 2>&1; }
silent() { ! port_answers "$address" "$1"; }

# await SECONDS WHAT COMMAND...
await() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@"; do
    ((SECONDS < deadline)) || {
      echo "waited in vain for $what"
      return 1
    }
    sleep 0.2
  done
}

# in_force NAME=VALUE...: as SHOW PROXYCONFIG tells.
in_force() {
  local wanted shown config
  config=$(sql 'SHOW PROXYCONFIG')
  for wanted in "$@"; do
    shown=$(awk -F '\t' -v name="${wanted%%=*}" '$1 == name { print $2 }' <<<"$config")
    wanted=${wanted,,}
    if [[ ${shown,,} != "${wanted#*=}" ]]; then
      echo "$wanted was asked for, the proxy has '$shown'"
      return 1
    fi
  done
  echo "$*"
}

everything_in_force() {
  local ports=("listen_port=$sql_port" "prometheus_listen_port=$exporter_port")
  [[ -z $rpc_port ]] || ports+=("rpc_listen_port=$rpc_port")
  in_force "${startup_parameters[@]}" "${parameters[@]}" "${ports[@]}"
}

# Exposition text of at least one family; without tenant traffic obproxy has none but its exporter's own.
serves_metrics() {
  local text
  text=$(curl -sS --fail --max-time 10 "http://$address:$exporter_port/metrics")
  grep -m 1 '^# TYPE ' <<<"$text"
}

# --- what a stranger on the host finds

# Passwords, and the hashes that are as good, one a line; private.
write_patterns() {
  local name text
  (
    umask 077
    : >"$state/passwords.patterns"
    : >"$state/hashes.patterns"
    for name in proxysys proxyro; do
      text=$(<"$state/$name-password")
      printf '%s\n' "$text" >>"$state/passwords.patterns"
      printf '%s' "$text" | sha1sum | cut -d ' ' -f 1 >>"$state/hashes.patterns"
    done
  )
}

# processes_with_secrets: argument vectors and environments of all processes of this machine, the hosts of the lab included.
# Processes come and go; what cannot be read by now is gone.
processes_with_secrets() {
  grep -laFf "$state/passwords.patterns" -f "$state/hashes.patterns" /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null || true
}

# Looks at all processes again and again until the file `watching` is gone.
watch_processes() {
  local looks=0
  while [[ -e $state/watching ]]; do
    processes_with_secrets >>"$state/seen"
    looks=$((looks + 1))
    echo "$looks" >"$state/looks"
  done
}

no_secret_in_processes() {
  processes_with_secrets >>"$state/seen"
  [[ ! -s $state/seen ]] || {
    echo "stands in: $(sort -u "$state/seen" | paste -sd ' ')"
    return 1
  }
  echo "$(find /proc -maxdepth 1 -name '[0-9]*' | wc -l) processes, and those of $(<"$state/looks") looks during the task"
}

# files_with PATTERNS: those of all hosts, but for the configuration that obproxy keeps in its own closed directory.
files_with() {
  local -a places
  mapfile -t places < <(files_to_search)
  grep -rlaFf "$state/$1.patterns" --exclude='*.patterns' --exclude='proxy*-password' \
    --exclude='proxyconfig_v1.db*' --exclude='obproxy_config.bin*' -D skip "${places[@]}" 2>/dev/null || true
}

no_hash_in_files() { [[ -z $(files_with hashes) ]]; }

# A password must never stand there. obproxy prints hashes into its log when it starts, and the agent has half a minute
# to take them out.
no_secret_in_files() {
  local found since=$SECONDS
  found=$(files_with passwords)
  [[ -z $found ]] || {
    echo "a password stands in: $found"
    return 1
  }
  await 30 "a log without hashes" no_hash_in_files || {
    echo "a hash stands in: $(files_with hashes)"
    return 1
  }
  echo "nothing, after $((SECONDS - since)) s, in $(files_to_search | paste -sd ' ')"
}

# What another user of the host finds when he looks for hashes in everything that he may read.
hashes_for_strangers() {
  # shellcheck disable=SC2016 # the other user's shell has the arguments
  as_stranger sh -c '{ grep -rhaoE -D skip "[0-9a-fA-F]{40}" "$@"
    cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | grep -aoE "[0-9a-fA-F]{40}"; } 2>/dev/null' sh \
    "$(instance_dir)" "$@" | sort -u || true
}

# He tries what he has found, the built-in one and none, through the port that is open to him.
other_user_stays_out() {
  local hash tried=0 program
  local -a readable
  program=$(mktemp -d) && chmod 755 "$program" && install --mode=755 "$programs/sql-login" "$program/"
  mapfile -t readable < <(places_of_strangers)
  while read -r hash; do
    if grep -qixF "$hash" "$state/hashes.patterns"; then
      echo "another user of the host reads the hash of a password"
      return 1
    fi
    tried=$((tried + 1))
    ((tried <= 50)) || continue
    OBLET_SQL_HASH=$hash refused network_of_host setpriv --reuid=daemon --regid=daemon --clear-groups \
      "$program/sql-login" "$address" "$sql_port" root@proxysys >/dev/null || {
      echo "another user of the host is let in by a hash that he has found"
      return 1
    }
  done < <(hashes_for_strangers "${readable[@]}" && echo "$built_in_hash")
  OBLET_SQL_PASSWORD='' refused network_of_host setpriv --reuid=daemon --regid=daemon --clear-groups \
    "$program/sql-login" "$address" "$sql_port" root@proxysys >/dev/null || {
    echo "another user of the host is let in without a password, or gets no answer"
    return 1
  }
  rm -rf "$program"
  echo "$tried hashes tried"
}

# --- the rounds

# fails_and_leaves_nothing NAME WANTED OPTION...: a proxy of a cluster with these options fails with the wanted words, and its
# rollback leaves the host as it was.
fails_and_leaves_nothing() {
  local name=$1 wanted=$2 id said
  shift 2
  create "$name" "$@" || return 1
  id=$(add "$name") || return 1
  if oblet task watch "$id" >/dev/null 2>&1; then
    echo "task $id succeeded"
    return 1
  fi
  said=$(task "$id" '[.subtasks[] | select(.status == "FAILED") | "\(.name): \(.failure.reason): \(.failure.message)"] | first')
  grep -qF -- "$wanted" <<<"$said" || {
    echo "expected $wanted, but: $said"
    return 1
  }
  oblet task rollback "$id" --yes >/dev/null 2>&1 || {
    echo "the rollback failed"
    oblet task show "$id"
    return 1
  }
  nothing_left || return 1
  echo "$said"
}

# What tasks leave on the host, one thing a line. The directories of a package are not told: whether they are its own or were
# made on the way is for rpm to know, and without a file they are nothing.
inventory() {
  rpm_on_host -qa | grep -Fx "$package_name" || true
  leftover_processes
  instance_leftovers
  find_on_host "${program_path%/bin/obproxy}" ! -type d 2>/dev/null || true
  leftover_state
}

# The host is what it was before the first proxy.
nothing_left() {
  local left
  inventory >"$state/inventory.now"
  left=$(
    diff "$state/inventory" "$state/inventory.now" | grep '^[<>]' || true
    for port in "$sql_port" "$exporter_port" $rpc_port; do
      silent "$port" || echo "port $port answers"
    done
  )
  [[ -z $left ]] || {
    echo "differs from before: $left"
    return 1
  }
}

comes_back_after_a_kill() {
  local before after
  before=$(proxy_pids | head -n 1)
  [[ -n $before ]] || {
    echo "no process of the proxy is found"
    return 1
  }
  kill -KILL "$before"
  await 120 "another process" another_proxy_than "$before" || return 1
  await 120 "a login" serves || return 1
  after=$(proxy_pids | head -n 1)
  everything_in_force >/dev/null || return 1
  echo "pid $before was killed, pid $after serves with the same configuration"
}

another_proxy_than() {
  local now
  now=$(proxy_pids | head -n 1)
  [[ -n $now && $now != "$1" ]]
}

agent_is_killed_and_the_proxy_goes_on() {
  local before
  before=$(proxy_pids | head -n 1)
  kill_agent
  serves || {
    echo "the proxy went with its agent"
    return 1
  }
  agent_returns || return 1
  await 60 "the agent" oblet host agent "$host_id" >/dev/null 2>&1 || return 1
  [[ $(proxy_pids | head -n 1) == "$before" ]] && everything_in_force >/dev/null && echo "pid $before served all the time"
}

# Takes all down when the check ends by itself, fails or is interrupted.
leave() {
  local code=$?
  trap - EXIT
  rm -f "$state/watching"
  ((code == 0)) || show_logs || true
  take_down || code=1
  exit "$code"
}

main() {
  local name id watcher
  trap leave EXIT
  trap 'exit 130' INT TERM
  raise
  for name in proxysys proxyro; do
    # OCP's rule: 8 to 32 characters, two of each kind.
    (umask 077 && printf 'Ab.%s%%Cd_12' "$(head -c 11 /dev/urandom | od -An -tx1 | tr -d ' \n')" >"$state/$name-password")
  done
  write_patterns
  inventory >"$state/inventory"
  # Under its own name, whatever the file is called.
  cp "$package" "$state/$package_name.rpm"
  oblet package upload "$state/$package_name.rpm" >/dev/null

  say "tasks that fail are rolled back, and nothing is left"
  prove "an unknown start-up parameter is named" \
    fails_and_leaves_nothing unknown 'PARAMETER_UNKNOWN' --startup-parameter oblet_no_such_parameter=1
  prove "a value out of range is refused" \
    fails_and_leaves_nothing range 'PARAMETER_INVALID' --startup-parameter client_max_connections=-5
  for name in first second third; do
    prove "a task that fails behind its start leaves nothing, the $name time" \
      fails_and_leaves_nothing "$name" 'PARAMETER_UNKNOWN' --parameter oblet_no_such_parameter=1
  done

  say "add a proxy"
  create real "${startup_parameters[@]/#/--startup-parameter=}" "${parameters[@]/#/--parameter=}"
  : >"$state/seen"
  : >"$state/watching"
  watch_processes &
  watcher=$!
  id=$(add real)
  oblet task watch "$id" || failures=$((failures + 1))
  rm "$state/watching"
  wait "$watcher"
  prove "12 of 12 subtasks" twelve_of_twelve "$id"
  prove "login with the cluster's password" sql 'SHOW PROXYINFO BINARY'
  prove "login without a password is refused" refused sql_without
  prove "login with the password of the first start is refused" refused sql_by_hash "$(first_start_hash)"
  prove "login with the built-in password is refused" refused sql_by_hash "$built_in_hash"
  prove "every parameter is in force" everything_in_force
  prove "metrics" serves_metrics
  prove "nothing secret in arguments and environments" no_secret_in_processes
  prove "nothing secret in units, logs and files" no_secret_in_files
  if can_be_a_stranger; then
    prove "another user of the host gets no hash and no login" other_user_stays_out
  else
    echo "SKIPPED: what another user of the host can read is seen by root only"
  fi
  prove "kill -9 of the proxy" comes_back_after_a_kill
  prove "nothing secret in logs after it" no_secret_in_files
  prove "kill -9 of the agent" agent_is_killed_and_the_proxy_goes_on
  more_proofs
  ((failures == 0)) || fail "$failures checks failed"
  say "all checks passed; taking it down"
}

main
