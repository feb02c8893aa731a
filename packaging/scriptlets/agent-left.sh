# shellcheck shell=sh
# What a removed agent leaves.
echo 'oblet-agent: kept /var/lib/oblet-agent (journal and logs) and the keys in /etc/oblet-agent'
if manager_runs; then
  running=$(systemctl list-units --no-legend --plain 'oblet-obproxy@*' 'oblet-observer@*' 'oblet-job-*' || :)
  if [ -n "$running" ]; then
    echo 'oblet-agent: these units keep running without an agent:'
    echo "$running"
  fi
fi
