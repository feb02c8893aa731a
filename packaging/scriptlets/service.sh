# shellcheck shell=sh
# shellcheck disable=SC2154  # $unit, the name of the service, is set by what puts the parts together.
# Common to the scriptlets of packages with a service.
# No error of the service manager may fail a transaction, and in containers and images none runs.

manager_runs() { [ -d /run/systemd/system ]; }

reload_units() {
  if manager_runs; then systemctl daemon-reload || :; fi
}

# Enables only what the administrator's own presets ask for: the package's preset says "disable".
preset_service() {
  if command -v systemctl >/dev/null 2>&1; then systemctl --no-reload preset "$unit" || :; fi
}

# Restarts this service only, and only if it runs. It does not wait: the service itself may have started the transaction, and
# may become ready only after the transaction has released its locks.
restart_service() {
  if manager_runs; then systemctl --no-block try-restart "$unit" || :; fi
}

stop_service() {
  if command -v systemctl >/dev/null 2>&1; then systemctl --no-reload disable "$unit" || :; fi
  if manager_runs; then systemctl stop "$unit" || :; fi
}
