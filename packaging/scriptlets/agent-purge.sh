# shellcheck shell=sh
rm -rf /etc/oblet-agent
echo 'oblet-agent: configuration and keys are removed, /var/lib/oblet-agent (journal and logs) is kept: remove it by hand'
