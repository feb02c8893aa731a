# A fleet on the hosts of the lab, installed as an operator installs it: packages, a token for each host, one line there.
# Sourced by lab.sh, after hosts.sh.

packages_dir=${OBLET_LAB_PACKAGES:-$repository/target/packages}
run_user=admin

# The newest package of a program in the format of the lab's hosts, or that of the wanted release.
package_of() {
  local found
  # shellcheck disable=SC2012 # the names of packages are tame
  found=$(ls -t "$packages_dir/$1"_*-${OBLET_LAB_RELEASE:-*}_*.deb 2>/dev/null | head -1)
  [[ -n $found ]] || die "there is no package of $1 in $packages_dir; \`make package\` builds it"
  echo "$found"
}

rpm_of() {
  local found
  # shellcheck disable=SC2012 # the names of packages are tame
  found=$(ls -t "$packages_dir/$1"-*-${OBLET_LAB_RELEASE:-*}.*.rpm 2>/dev/null | head -1)
  [[ -n $found ]] || die "there is no rpm of $1 in $packages_dir; \`make package\` builds it"
  echo "$found"
}

# put FILE HOST: lays a file into /root of the host and answers its path there.
put() {
  cp "$1" "/proc/$(init_of "$2")/root/root/"
  echo "/root/$(basename "$1")"
}

install_on() {
  local host=$1 package path
  shift
  for package in "$@"; do
    if [[ " ${OBLET_LAB_RPM_HOSTS:-} " == *" $host "* ]]; then
      path=$(put "$(rpm_of "$package")" "$host")
      run_on "$host" rpm --install --force-debian "$path"
    else
      path=$(put "$(package_of "$package")" "$host")
      run_on "$host" dpkg --install "$path"
    fi >>"$(host_dir "$host")/console.log" 2>&1 ||
      die "$package cannot be installed on $host; see $(host_dir "$host")/console.log"
  done
}

# write_on HOST FILE: standard input becomes the file.
write_on() { run_on "$1" tee "$2" >/dev/null; }

start_coordinator() {
  local address
  address=$(address_of h0)
  install_on h0 oblet-coordinator oblet
  write_on h0 /etc/oblet-coordinator/coordinator.toml <<TOML
advertise_addresses = ["$address"]
initial_password_file = "/var/lib/oblet-coordinator/initial-password"
TOML
  # What a program that ran there before as root has left.
  run_on h0 chown --recursive oblet-coordinator: /var/lib/oblet-coordinator
  run_on h0 systemctl enable --quiet --now oblet-coordinator
  run_on h0 cat /var/lib/oblet-coordinator/initial-password >"$lab_dir/password"
  run_on h0 cat /var/lib/oblet-coordinator/tls/ca.pem >"$lab_dir/ca.pem"
}

# The operator's command line, on the coordinator's host.
oblet() {
  run_on h0 env OBLET_URL="https://$(address_of h0):8443" OBLET_CA=/var/lib/oblet-coordinator/tls/ca.pem \
    OBLET_PASSWORD_FILE=/var/lib/oblet-coordinator/initial-password oblet "$@"
}

# From a bare host to an agent that serves.
enrol() {
  local host=$1 address line
  address=$(address_of "$host")
  run_on "$host" id "$run_user" >/dev/null 2>&1 || run_on "$host" useradd --create-home "$run_user"
  install_on "$host" oblet-agent
  write_on "$host" /etc/oblet-agent/agent.toml <<TOML
address = "$address"
run_user = "$run_user"
${OBLET_LAB_AGENT_SETTINGS:-}
TOML
  line=$(oblet host add --token "$address")
  run_on "$host" bash -c "$line"
  run_on "$host" systemctl enable --quiet --now oblet-agent
}

# up COUNT: a coordinator and COUNT hosts that it knows.
up() {
  local count=$1 host addresses=()
  local all=(h0)
  for ((number = 1; number <= count; number++)); do all+=("h$number"); done
  for host in "${all[@]}"; do boot "$host"; done
  for host in "${all[@]}"; do await_boot "$host"; done
  start_coordinator
  for host in "${all[@]:1}"; do
    enrol "$host"
    addresses+=("$(address_of "$host")")
  done
  ((count == 0)) || oblet host add "${addresses[@]}"
}

introduce() {
  local host
  cat <<END
The lab is up. A shell on each host:
END
  for host in $(hosts); do echo "  $repository/tests/lab/lab.sh run $host bash    # $(address_of "$host")"; done
  cat <<END
The operator's command line, on h0:
  $repository/tests/lab/lab.sh oblet host list
REST: https://$(address_of h0):8443 as admin, password in $lab_dir/password, authority in $lab_dir/ca.pem
END
}
