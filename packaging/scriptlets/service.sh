# shellcheck shell=sh
# shellcheck disable=SC2154  # $unit, the name of the service, is set by what puts the parts together.
# Common to the scriptlets of packages with a service.
# Nothing that a service manager says may fail a transaction, and where none runs (containers, images) there is none to ask.

manager_runs() { [ -d /run/systemd/system ]; }

reload_units() {
  if manager_runs; then systemctl daemon-reload || :; fi
}

# Enables only what the administrator's own presets ask for: the package's preset says "disable".
preset_service() {
  if command -v systemctl >/dev/null 2>&1; then systemctl --no-reload preset "$unit" || :; fi
}

# Only a service that runs, and nothing but this service. Nobody waits here: the transaction may be one that the service
# itself has ordered, and its being ready may depend on what that transaction still holds.
restart_service() {
  if manager_runs; then systemctl --no-block try-restart "$unit" || :; fi
}

stop_service() {
  if command -v systemctl >/dev/null 2>&1; then systemctl --no-reload disable "$unit" || :; fi
  if manager_runs; then systemctl stop "$unit" || :; fi
}
