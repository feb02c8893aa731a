# shellcheck shell=sh
# What only the coordinator's scriptlets do.

# systemd 219 makes no state directory for a service, and EL7 has no sysusers: both have a plain way beside.
set_up() {
  if command -v systemd-sysusers >/dev/null 2>&1; then
    systemd-sysusers oblet-coordinator.conf || :
  fi
  if ! id oblet-coordinator >/dev/null 2>&1; then
    useradd --system --user-group --no-create-home --home-dir /var/lib/oblet-coordinator --shell /sbin/nologin \
      --comment 'oblet coordinator' oblet-coordinator ||
      echo "oblet-coordinator: the service needs a system user oblet-coordinator, which could not be made" >&2
  fi
  install -d -m 0700 -o oblet-coordinator -g oblet-coordinator /var/lib/oblet-coordinator || :
}

say_what_is_left() {
  echo "oblet-coordinator: kept /var/lib/oblet-coordinator (store, authority, keys, packages) and the user oblet-coordinator."
}

purge() {
  rm -rf /etc/oblet-coordinator
  echo "oblet-coordinator: /var/lib/oblet-coordinator holds the authority of all agents and is kept; remove it by hand."
}
