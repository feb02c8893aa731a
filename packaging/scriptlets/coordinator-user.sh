# shellcheck shell=sh
# EL7 has no sysusers, and its systemd creates no state directory.
if command -v systemd-sysusers >/dev/null 2>&1; then
  systemd-sysusers oblet-coordinator.conf || :
fi
if ! id oblet-coordinator >/dev/null 2>&1; then
  useradd --system --user-group --no-create-home --home-dir /var/lib/oblet-coordinator --shell /sbin/nologin \
    --comment 'oblet coordinator' oblet-coordinator ||
    echo 'oblet-coordinator: the system user oblet-coordinator could not be created; create it before you start the service' >&2
fi
install -d -m 0700 -o oblet-coordinator -g oblet-coordinator /var/lib/oblet-coordinator || :
