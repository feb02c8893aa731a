# shellcheck shell=sh
rm -rf /etc/oblet-coordinator
echo 'oblet-coordinator: kept /var/lib/oblet-coordinator, which holds the authority of all agents: remove it by hand'
