# shellcheck shell=sh
# What only the agent's scriptlets do.

set_up() { :; }

instances() {
  if manager_runs; then
    systemctl list-units --no-legend --plain 'oblet-obproxy@*' 'oblet-observer@*' 'oblet-job-*' | while read -r name _; do
      printf ' %s' "$name"
    done
  fi
}

say_what_is_left() {
  echo "oblet-agent: kept /var/lib/oblet-agent (journal and logs) and the keys in /etc/oblet-agent."
  running=$(instances)
  if [ -n "$running" ]; then echo "oblet-agent: these run on, and no agent looks after them:$running"; fi
}

purge() {
  rm -rf /etc/oblet-agent
  echo "oblet-agent: the keys are removed; /var/lib/oblet-agent (journal and logs) is kept, remove it by hand."
}
