# Real hosts on one machine: each with a systemd as PID 1, an address, a file system and an rpm database of its own.
# Sourced by lab.sh. Needs root, debootstrap and systemd-nspawn; no container engine.

# Several labs live side by side if each has a number of its own.
lab_number=${OBLET_LAB:-0}
subnet=10.213.$lab_number
bridge=oblet$lab_number
lab_dir=${OBLET_LAB_DIR:-$repository/target/lab/$lab_number}
packages_of_root=systemd,systemd-sysv,dbus,iproute2,rpm,procps,netcat-openbsd,libaio1,curl,ca-certificates,binutils
# rpm on Debian knows nothing of what dpkg installed; scriptlets want a shell that some package provides.
base_spec='Name: lab-base
Version: 1
Release: 1
Summary: What the distribution of a lab host provides
License: Apache-2.0
BuildArch: noarch
Provides: /bin/sh /bin/bash
%include /root/provides
%description
Stands for the packages of the distribution.
%files
'
# To be raised when anything else that prepare_root does changes.
root_version=2
cache_dir=${OBLET_LAB_CACHE:-/var/cache/oblet-lab}
boot_deadline=${OBLET_LAB_BOOT_SECONDS:-120}

namespace_of() { echo "$bridge-$1"; }
host_dir() { echo "$lab_dir/hosts/$1"; }

# Host hN is .(10+N), where h0 is the coordinator's; the machine itself is .1.
address_of() {
  case $1 in
    h[0-9] | h[1-9][0-9]) echo "$subnet.$((10 + ${1#h}))" ;;
    *) die "$1 is no name of a lab host: h0, h1, h2, ..." ;;
  esac
}

# A Debian that all hosts share as the lower layer of their file system. Made once, under a name that says what is in it.
prepare_root() {
  root_dir=$cache_dir/bookworm-$(sha256sum <<<"$packages_of_root$base_spec$root_version" | cut -c1-12)
  [[ ! -e $root_dir.done ]] || return 0
  mkdir -p "$cache_dir"
  exec {root_lock}>"$cache_dir/lock"
  flock --timeout 900 "$root_lock" || die "another lab has been making $root_dir for 15 minutes"
  if [[ ! -e $root_dir.done ]]; then
    say "making the root of the hosts in $root_dir, once"
    rm -rf "$root_dir"
    debootstrap --variant=minbase --include="$packages_of_root" bookworm "$root_dir" >"$cache_dir/debootstrap.log" 2>&1 ||
      die "debootstrap failed: $(tail -1 "$cache_dir/debootstrap.log"); all of it is in $cache_dir/debootstrap.log"
    # Debian's rpm keeps its database in the home of whoever calls it, that of the others in one place.
    mkdir -p "$root_dir/etc/rpm"
    echo '%_dbpath /var/lib/rpm' >"$root_dir/etc/rpm/macros"
    echo "$base_spec" >"$root_dir/root/lab-base.spec"
    # Programs from rpms want to know which versions of which libraries are there.
    chroot "$root_dir" bash -c 'for library in /lib/x86_64-linux-gnu/{libc,libm,libgcc_s,libdl,libpthread,librt,ld-linux-x86-64}.so.*; do
        /usr/lib/rpm/elfdeps --provides "$(readlink -f "$library")"; done | sort -u | sed "s/^/Provides: /"' >"$root_dir/root/provides"
    chroot "$root_dir" rpmbuild --quiet -bb /root/lab-base.spec >>"$cache_dir/debootstrap.log" 2>&1
    chroot "$root_dir" rpm --install --force-debian /root/rpmbuild/RPMS/noarch/lab-base-1-1.noarch.rpm
    rm -rf "$root_dir/root/rpmbuild" "$root_dir/root/lab-base.spec" "$root_dir/root/provides"
    # Every host makes an identity of its own when it boots.
    : >"$root_dir/etc/machine-id"
    rm -f "$root_dir/etc/hostname" "$root_dir/var/lib/dbus/machine-id"
    rm -rf "$root_dir"/var/cache/apt/archives/*.deb "$root_dir"/var/lib/apt/lists/*
    touch "$root_dir.done"
  fi
  exec {root_lock}>&-
}

raise_network() {
  ip link show "$bridge" >/dev/null 2>&1 && return 0
  ip link add "$bridge" type bridge
  ip address add "$subnet.1/24" dev "$bridge"
  ip link set "$bridge" up
}

# Process of the host's init; empty if the host is off.
init_of() {
  local nspawn
  nspawn=$(cat "$(host_dir "$1")/nspawn.pid" 2>/dev/null) || return 0
  pgrep --parent "$nspawn" 2>/dev/null | head -1 || true
}

run_on() {
  local host=$1 init
  shift
  init=$(init_of "$host")
  [[ -n $init ]] || die "host $host is off"
  nsenter --target "$init" --all env --chdir=/ -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM="${TERM:-dumb}" LC_ALL=C.UTF-8 "$@"
}

# Starts the host; its disk is what it was when it was switched off.
boot() {
  local host=$1 dir namespace
  [[ -z $(init_of "$host") ]] || die "host $host is on already"
  prepare_root
  raise_network
  dir=$(host_dir "$host") namespace=$(namespace_of "$host")
  mkdir -p "$dir"/{upper,work,merged}
  [[ -e $dir/uuid ]] || cat /proc/sys/kernel/random/uuid >"$dir/uuid"
  if ! ip netns list | grep -qw "$namespace"; then
    ip netns add "$namespace"
    ip link add "$namespace" type veth peer name eth0 netns "$namespace"
    ip link set "$namespace" master "$bridge" up
    ip -n "$namespace" address add "$(address_of "$host")/24" dev eth0
    ip -n "$namespace" link set eth0 up
    ip -n "$namespace" link set lo up
    ip -n "$namespace" route add default via "$subnet.1"
  fi
  # A fresh cgroup mount lets the host's systemd have a tree of its own.
  setsid --fork unshare --mount --cgroup --propagation private bash -euc '
    mount --make-rprivate /
    umount --recursive /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/merged"
    echo $$ >"$2/nspawn.pid"
    exec systemd-nspawn --quiet --directory="$2/merged" --machine="$3" --uuid="$(<"$2/uuid")" --boot --register=no --keep-unit \
      --resolv-conf=off --network-namespace-path="/run/netns/$4" --capability=CAP_NET_ADMIN
  ' boot "$root_dir" "$dir" "$host" "$namespace" </dev/null >>"$dir/console.log" 2>&1
}

await_boot() {
  local host=$1 deadline=$((SECONDS + boot_deadline)) state=
  while ((SECONDS < deadline)); do
    if [[ -n $(init_of "$host") ]]; then
      state=$(run_on "$host" timeout "$boot_deadline" systemctl is-system-running --wait 2>/dev/null || true)
      # A unit of the distribution that cannot run in a namespace makes it "degraded"; the host is up all the same.
      [[ $state != running && $state != degraded ]] || return 0
    fi
    sleep 0.2
  done
  die "host $host did not boot within $boot_deadline s (${state:-no init}); its console is in $(host_dir "$host")/console.log"
}

# Waits until nothing of the host's init is left.
await_off() {
  local nspawn deadline=$((SECONDS + 60))
  nspawn=$(cat "$(host_dir "$1")/nspawn.pid" 2>/dev/null) || return 0
  while kill -0 "$nspawn" 2>/dev/null; do
    ((SECONDS < deadline)) || die "host $1 does not end"
    sleep 0.1
  done
  rm -f "$(host_dir "$1")/nspawn.pid"
}

power_off() {
  [[ -n $(init_of "$1") ]] || return 0
  run_on "$1" systemctl poweroff --no-block
  await_off "$1"
}

# As if its power had failed: nothing on the host gets the time to say goodbye.
pull_plug() {
  local init
  init=$(init_of "$1")
  [[ -n $init ]] || return 0
  kill -KILL "$init"
  await_off "$1"
}

cut_off() { ip link set "$(namespace_of "$1")" down; }
join() { ip link set "$(namespace_of "$1")" up; }

# Puts a bad cable between the host and the network: so many milliseconds late each way, so many percent lost each way.
slow() {
  local host=$1 delay=$2 loss=$3 namespace dir
  calm "$host"
  namespace=$(namespace_of "$host") dir=$(host_dir "$host")
  ip link add "$namespace-x" type veth peer name "$namespace-y"
  # The machine itself must not answer for others on the ends of the cable.
  for end in "$namespace" "$namespace-x"; do echo 8 >"/proc/sys/net/ipv4/conf/$end/arp_ignore"; done
  ip link set "$namespace-y" master "$bridge" up
  ip link set "$namespace-x" up promisc on
  ip link set "$namespace" nomaster promisc on
  setsid --fork bash -c 'echo $$ >"$0/wire.pid"; exec "${@}"' "$dir" \
    python3 "$repository/tests/lab/wire.py" "$namespace" "$namespace-x" "$delay" "$loss" </dev/null >"$dir/wire.log" 2>&1
}

calm() {
  local namespace dir
  namespace=$(namespace_of "$1") dir=$(host_dir "$1")
  [[ -e $dir/wire.pid ]] || return 0
  kill "$(cat "$dir/wire.pid")" 2>/dev/null || true
  rm -f "$dir/wire.pid"
  ip link delete "$namespace-x" 2>/dev/null || true
  ip link set "$namespace" promisc off master "$bridge" 2>/dev/null || true
}

hosts() { for dir in "$lab_dir"/hosts/*/; do [[ -d $dir ]] && basename "$dir"; done; return 0; }

# Ends every host and takes network and files away; the cached root stays.
remove_all() {
  local host
  for host in $(hosts); do
    calm "$host"
    pull_plug "$host"
    ip netns delete "$(namespace_of "$host")" 2>/dev/null || true
    ip link delete "$(namespace_of "$host")" 2>/dev/null || true
  done
  ip link delete "$bridge" 2>/dev/null || true
  rm -rf "$lab_dir"
}
