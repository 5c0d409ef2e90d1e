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
rm -rf "$root/work" && mkdir "$root/work"
cp "$target"/dist/jimu_*.deb "$root/work/old.deb"
# The same with a later version.
unpacked=$(mktemp -d)
dpkg-deb --raw-extract "$root/work/old.deb" "$unpacked"
sed -i 's/^Version: .*/&+later/' "$unpacked/DEBIAN/control"
dpkg-deb --build "$unpacked" "$root/work/new.deb"
rm -r "$unpacked"
cp tests/systemd/* "$root/work/"
chmod 1777 "$root/work"

systemd-nspawn --quiet --register=no --keep-unit --console=pipe --directory "$root" --boot > "$target/systemd.log" 2>&1 < /dev/null &
container=$!
# All processes of the container end with its first one.
trap 'kill -KILL "${init:-$container}"; wait "$container" || true' EXIT
# A unit of Debian that cannot start in a container is none of our business.
until init=$(pgrep --parent "$container") && inside systemctl is-system-running --wait 2> /dev/null | grep -qE 'running|degraded'; do
    kill -0 "$container"
    sleep 0.2
done

step "Settings that are refused are not tried again"
inside dpkg --purge jimu > /dev/null 2>&1
inside dpkg --install /work/old.deb
inside sh -c 'echo "no_such_setting = 1" > /etc/jimu/host.toml'
inside systemctl enable --now jimu.socket jimu.service && exit 1
is "$(inside systemctl show --property NRestarts --value jimu.service)" 0 restarts
is "$(inside systemctl show --property ExecMainStatus --value jimu.service)" 78 "exit status"

step "It serves"
inside cp /work/host.toml /etc/jimu/host.toml
inside systemctl reset-failed
inside systemctl start jimu.socket jimu.service
inside python3 /work/client.py once

step "It is upgraded with the package, under load"
before=$(main_pid)
inside python3 /work/client.py load &
load=$!
inside systemctl reload jimu.service
inside dpkg --install /work/new.deb
[ "$(main_pid)" != "$before" ]
inside timeout 30 tail --pid="$before" --sleep-interval=0.1 -f /dev/null
inside systemctl is-active jimu.service
inside touch /work/stop
wait "$load"

step "It stops when its requests are finished, also after an upgrade"
inside python3 /work/client.py slow &
slow=$!
until inside test -e /work/slow-began; do sleep 0.1; done
inside systemctl stop jimu.socket jimu.service
wait "$slow"
is "$(inside systemctl show --property Result --value jimu.service)" success result

step "It is purged while it runs"
inside systemctl start jimu.socket jimu.service
inside dpkg --purge jimu
is "$(inside pgrep --count --full '^host: ' || true)" 0 processes
is "$(inside find / -xdev -path /work -prune -o -iname '*jimu*' -print)" "" "left behind"
