#!/bin/bash
# The wheel in a Debian that has Python and no more, neither a compiler nor libpython: it is installed beside Flask, serves an
# application, and its class is swapped, with nothing else installed.
# As root, with debootstrap.
#   python-alone.sh [--built]      --built: test the wheel in target/wheels
source "$(dirname "$0")/common.sh"

root=$target/python-alone
# `venv` brings pip along, which Debian's python3 lacks.
needs=python3,python3-venv

# inside COMMAND...: runs a command in that Debian.
inside() { chroot "$root" env -i -C /srv PATH=/usr/bin:/bin "$@"; }

# control WORD...: a command of jimuctl.
control() { inside venv/bin/jimuctl --socket control "$@"; }

# answers: the server answers as soon as it listens, with the interpreter of the environment.
answers() {
    local page
    page=$(curl --silent --show-error --fail --retry 50 --retry-delay 1 --retry-all-errors \
        --unix-socket "$root/srv/socket" http://localhost/)
    echo "$page"
    [ "$page" = "Flask in /srv/venv" ]
}

[ "${1:-}" = --built ] || cargo xtask wheel
[ -d "$root/usr/share/python3" ] || debootstrap --variant=minbase --include="$needs" bookworm "$root"
rm -rf "$root/srv" && mkdir -p "$root/srv/wheels"
cp "$target"/wheels/jimu_server-*_"$(uname -m)".whl "$root/srv/wheels/"
version=$(inside python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
python3 -m pip download -q --disable-pip-version-check --only-binary :all: --python-version "$version" \
    --platform "manylinux2014_$(uname -m)" -d "$root/srv/wheels" flask
cat > "$root/srv/app.py" <<'END'
import sys

from flask import Flask

app = Flask(__name__)


@app.get("/")
def page():
    return "Flask in " + sys.prefix
END
mount -t proc proc "$root/proc"
trap '[ ! -S "$root/srv/control" ] || control quit; wait; umount "$root/proc"' EXIT

step "What is there"
packages() { inside dpkg-query --show | sort; }
before=$(packages)
for name in cc gcc clang rustc; do ! inside sh -c "command -v $name" || exit 1; done
[ -z "$(find "$root/usr/lib" -name 'libpython*.so*')" ]
echo "$(wc -l <<< "$before") packages, no compiler, no libpython"

step "Installed"
inside python3 -m venv venv
inside venv/bin/pip install -q --no-index --find-links wheels flask jimu-server
inside venv/bin/jimu --version

step "Served, under each class that needs no package"
inside venv/bin/jimu --worker-class sync --bind unix:socket --control-socket control app:app &
server=$!
answers
for class in gthread sync; do
    control swap "$class"
    control status | grep -w "$class"
    answers
done
control stop
wait "$server"

step "Nothing else was installed"
diff <(echo "$before") <(packages)
