# shellcheck shell=bash
# A systemd host of the lab: what real.sh needs of it. Sourced by real.sh.

export OBLET_LAB=${REAL_LAB:-230} OBLET_LAB_DIR=$state/lab
# The package's libraries are laid there by hand, so no package of the host provides them.
export OBLET_LAB_AGENT_SETTINGS='rpm_dependencies = false'
lab() { "$top/tests/lab/lab.sh" "$@"; }
on_host() { lab run h1 "$@"; }
init_of() { pgrep --parent "$(<"$OBLET_LAB_DIR/hosts/$1/nspawn.pid")" | head -n 1; }
# Its file system, seen from this machine.
root_of() { echo "/proc/$(init_of "$1")/root"; }
readonly unit=oblet-obproxy@$sql_port.service

raise() {
  ((EUID == 0)) || fail "a lab needs root"
  lab down
  rm -rf "$state"
  mkdir -p "$state"
  build_programs
  lab boot h0 h1
  address=10.213.$OBLET_LAB.11
  # obproxy looks its host's name up, and waits for each answer that does not come.
  # shellcheck disable=SC2016 # the host knows its name
  on_host sh -c 'echo "127.0.1.1 $(hostname)" >>/etc/hosts'
  if [[ -n $libs ]]; then
    lay_libraries "$(root_of h1)/usr/local/lib/obproxy"
    on_host sh -c 'echo /usr/local/lib/obproxy >/etc/ld.so.conf.d/obproxy.conf && ldconfig'
  fi
  lab coordinator
  lab enrol h1
  export OBLET_URL=https://10.213.$OBLET_LAB.10:8443 OBLET_USER=admin OBLET_CA=$OBLET_LAB_DIR/ca.pem
  OBLET_PASSWORD=$(head -n 1 "$OBLET_LAB_DIR/password")
  export OBLET_PASSWORD
  await 60 "the coordinator" ready >/dev/null 2>&1 || fail "the coordinator does not answer"
  oblet host add "$address" >/dev/null
  host_id=$(oblet host list --output json | id_where "$address")
}

rpm_on_host() { on_host rpm "$@"; }
instance_dir() { echo "/home/admin/obproxy/$sql_port"; }
instance_leftovers() {
  on_host sh -c "ls -d /home/admin/obproxy/$sql_port /etc/systemd/system/oblet-obproxy@* 2>/dev/null" || true
  on_host systemctl list-units --no-legend --plain 'oblet-obproxy@*' 'oblet-job-*'
}

find_on_host() { on_host find "$@"; }
# Runs of rpm are kept for as long as the journal keeps their operations.
leftover_state() {
  on_host sh -c 'find /var/lib/oblet-agent/obproxies /var/log/oblet /run/oblet-agent -mindepth 1 2>/dev/null
    grep -rl /bin/obproxy /var/lib/oblet-agent/runs/*/launch 2>/dev/null
    find /etc/systemd/system /run/systemd/system /run/systemd/transient -name "oblet-*" ! -name "oblet-agent*" 2>/dev/null' || true
}

# Seen from this machine.
files_to_search() {
  local root coordinator
  root=$(root_of h1) coordinator=$(root_of h0)
  on_host journalctl --no-pager -o export >"$state/journal.h1"
  lab run h0 journalctl --no-pager -o export >"$state/journal.h0"
  printf '%s\n' "$root/etc/systemd" "$root/var/log" "$root/var/lib/oblet-agent" "$root/run/oblet-agent" \
    "$root/run/systemd" "$root/home/admin" "$coordinator/var/log" "$coordinator/var/lib/oblet-coordinator" \
    "$coordinator/etc/oblet-coordinator" "$state/journal.h1" "$state/journal.h0"
}

# The main process, by the number that it has on this machine.
proxy_pids() {
  local inside status
  inside=$(on_host systemctl show --property=MainPID --value "$unit")
  [[ $inside != 0 && -n $inside ]] || return 0
  # Numbers from the outermost namespace to the innermost.
  while read -r status; do
    if grep -qsx $'Name:\tobproxy' "$status"; then
      status=${status%/status}
      echo "${status#/proc/}"
    fi
  done < <(grep -lsxE $'NSpid:\t[0-9]+\t'"$inside" /proc/[0-9]*/status)
}

leftover_processes() { on_host pgrep -ax obproxy || true; }

first_start_hash() {
  on_host sh -c "grep -rhoE 'obproxy_sys_password=[0-9a-f]{40}' /var/lib/oblet-agent/runs/*-first*/launch" | tail -n 1 | cut -d = -f 2
}

can_be_a_stranger() { true; }
as_stranger() { on_host setpriv --reuid=daemon --regid=daemon --clear-groups "$@"; }
places_of_strangers() { printf '%s\n' /etc /home /var/lib/oblet-agent /var/log /run /tmp; }
network_of_host() { nsenter --target "$(init_of h1)" --net "$@"; }

kill_agent() { on_host systemctl kill --signal=KILL oblet-agent; }
agent_returns() { await 60 "the service of the agent" on_host systemctl is-active --quiet oblet-agent; }

unit_is_of_the_kind_that_survives() {
  on_host systemctl show --property=Type,PIDFile,Restart,SuccessExitStatus "$unit" >"$state/unit"
  grep -qx 'Type=forking' "$state/unit" && grep -q '^PIDFile=/run/' "$state/unit" && grep -qx 'Restart=always' "$state/unit" ||
    {
      cat "$state/unit"
      return 1
    }
  on_host systemctl cat "$unit" >"$state/unit-text"
  ! grep -E '^Environment.*(password|[0-9a-f]{40})' "$state/unit-text" && paste -sd ' ' "$state/unit"
}

operator_restarts_it() {
  on_host systemctl restart "$unit"
  await 120 "a login" serves && everything_in_force >/dev/null && on_host systemctl is-active "$unit"
}

a_stop_is_no_failure() {
  local result
  on_host systemctl stop "$unit"
  result=$(on_host systemctl show --property=ActiveState --value "$unit")
  on_host systemctl start "$unit"
  [[ $result == inactive ]] && await 120 "a login" serves && echo "stopped: $result; started: serves"
}

host_reboots() {
  lab off h1
  lab boot h1
  await 180 "a login" serves && everything_in_force >/dev/null && echo "serves with the same configuration"
}

more_proofs() {
  prove "the unit is of the kind that survives a hot restart" unit_is_of_the_kind_that_survives
  prove "systemctl restart" operator_restarts_it
  prove "nothing secret in logs after it" no_secret_in_files
  prove "systemctl stop is no failure, and systemctl start brings it back" a_stop_is_no_failure
  prove "a reboot" host_reboots
  prove "nothing secret in logs after it" no_secret_in_files
}

show_logs() {
  on_host journalctl --no-pager -u oblet-agent -n 30
  on_host sh -c "systemctl status --no-pager '$unit'; tail -n 20 /home/admin/obproxy/$sql_port/log/obproxy.log"
}

take_down() {
  [[ -z ${KEEP:-} ]] || return 0
  lab down && rm -rf "$state"
}
