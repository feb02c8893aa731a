# shellcheck shell=sh
rm -rf /etc/oblet-agent
echo 'oblet-agent: removed configuration and keys; kept /var/lib/oblet-agent (journal and logs): remove it by hand'
