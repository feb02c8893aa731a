# shellcheck shell=sh
# What a removed coordinator leaves.
echo 'oblet-coordinator: kept /var/lib/oblet-coordinator (store, authority, keys) and the user oblet-coordinator'
