# shellcheck shell=sh
# EL7 has no sysusers, and its systemd makes no state directory: both have a plain way beside.
if command -v systemd-sysusers >/dev/null 2>&1; then
  systemd-sysusers oblet-coordinator.conf || :
fi
if ! id oblet-coordinator >/dev/null 2>&1; then
  useradd --system --user-group --no-create-home --home-dir /var/lib/oblet-coordinator --shell /sbin/nologin \
    --comment 'oblet coordinator' oblet-coordinator ||
    echo 'oblet-coordinator: the service needs a system user oblet-coordinator, which could not be made' >&2
fi
install -d -m 0700 -o oblet-coordinator -g oblet-coordinator /var/lib/oblet-coordinator || :
