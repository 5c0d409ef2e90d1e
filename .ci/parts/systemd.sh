#!/bin/bash
# The Debian package under systemd: in a Debian made by debootstrap and booted by systemd-nspawn it is installed, serves a
# Flask application, refuses bad settings once, is upgraded under load, stops without cutting a request off, and is purged.
# As root, with debootstrap and systemd-container.
#   systemd.sh [--built]      --built: test the package in target/dist
source "$(dirname "$0")/common.sh"

root=$target/systemd-root
# What must be in the Debian beside the package.
needs=systemd,systemd-sysv,dbus,python3,python3-flask

# inside COMMAND...: runs a command in the booted system.
inside() { nsenter --target "$init" --mount --uts --ipc --pid -- "$@"; }

main_pid() { inside systemctl show --property MainPID --value jimu.service; }

# is VALUE EXPECTED WHAT
is() { [ "$1" = "$2" ] || { echo "$3: $1, expected $2"; exit 1; }; }

[ "${1:-}" = --built ] || cargo xtask deb
[ -d "$root/usr/lib/systemd" ] || debootstrap --include="$needs" bookworm "$root"
rm -rf "$root/tested" && mkdir "$root/tested"
cp "$target"/dist/jimu_*.deb "$root/tested/old.deb"
# The same with a later version.
unpacked=$(mktemp -d)
dpkg-deb --raw-extract "$root/tested/old.deb" "$unpacked"
sed -i 's/^Version: .*/&+later/' "$unpacked/DEBIAN/control"
dpkg-deb --build "$unpacked" "$root/tested/new.deb"
rm -r "$unpacked"
cp tests/systemd/* "$root/tested/"
chmod 1777 "$root/tested"

systemd-nspawn --quiet --register=no --keep-unit --console=pipe --directory "$root" --boot > "$target/systemd.log" 2>&1 < /dev/null &
container=$!
# All processes of the container end with its first one.
trap 'kill -KILL "${init:-$container}"; wait "$container" || true' EXIT
# booted: whether the container has finished to start. A unit of Debian that fails in a container does not matter.
booted() {
    init=$(pgrep --parent "$container") || return
    case $(inside systemctl is-system-running --wait 2> /dev/null) in running | degraded) ;; *) return 1 ;; esac
}
until booted; do
    kill -0 "$container"
    sleep 0.2
done

step "Settings that are refused are not tried again"
inside dpkg --purge jimu > /dev/null 2>&1
inside dpkg --install /tested/old.deb
inside sh -c 'echo "no_such_setting = 1" > /etc/jimu/host.toml'
inside systemctl enable --now jimu.socket jimu.service && exit 1
is "$(inside systemctl show --property NRestarts --value jimu.service)" 0 restarts
is "$(inside systemctl show --property ExecMainStatus --value jimu.service)" 78 "exit status"

step "It serves"
inside cp /tested/host.toml /etc/jimu/host.toml
inside systemctl reset-failed
inside systemctl start jimu.socket jimu.service
inside python3 /tested/client.py once

step "It is upgraded with the package, under load"
before=$(main_pid)
inside python3 /tested/client.py load &
load=$!
inside systemctl reload jimu.service
inside dpkg --install /tested/new.deb
[ "$(main_pid)" != "$before" ]
inside timeout 30 tail --pid="$before" --sleep-interval=0.1 -f /dev/null
inside systemctl is-active jimu.service
inside touch /tested/stop
wait "$load"

step "It stops when its requests are finished, also after an upgrade"
inside python3 /tested/client.py slow &
slow=$!
until inside test -e /tested/slow-began; do sleep 0.1; done
inside systemctl stop jimu.socket jimu.service
wait "$slow"
is "$(inside systemctl show --property Result --value jimu.service)" success result

step "It is purged while it runs"
inside systemctl start jimu.socket jimu.service
inside dpkg --purge jimu
is "$(inside pgrep --count --full '^host: ' || true)" 0 processes
is "$(inside find / -xdev -path /tested -prune -o -iname '*jimu*' -print)" "" "left behind"
