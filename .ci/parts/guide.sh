#!/bin/bash
# The class in docs/worker-classes.md and the applications in docs/applications.md and docs/c.md, built from these pages alone; the
# tests on these pages, the checks of a class, the matrix of behaviors, and the application under each class.
#   guide.sh [--no-matrix|--build]      --build: they compile, and nothing more
source "$(dirname "$0")/common.sh"

# blocks LANGUAGE PAGE: the page's code blocks in that language, put together.
blocks() { awk -v fence="\`\`\`$1" '$0 == fence { on = 1; next } /^```/ { on = 0 } on' "$2"; }

# crate PAGE NAME: builds what the page says, out of tree. Its tests are kept beside it.
crate() {
    local directory=$target/guide/$2
    rm -rf "$directory" && mkdir -p "$directory/src"
    ln -sfn "$PWD" "$target/guide/jimu"
    # The directory may be below this workspace, of which it is no member.
    {
        blocks toml "$1"
        printf '[workspace]\n[profile.dev]\ndebug = "line-tables-only"\n'
    } > "$directory/Cargo.toml"
    blocks rust "$1" > "$directory/src/lib.rs"
    blocks rust,test "$1" > "$directory/tests.rs"
    cp plugins/examples/threaded-worker/Cargo.lock "$directory/"
    cargo build "${as_in_tree[@]}" --offline --manifest-path "$directory/Cargo.toml" --target-dir "$target"
}

# tests NAME: runs the tests of the page.
tests() {
    cat "$target/guide/$1/tests.rs" >> "$target/guide/$1/src/lib.rs"
    cargo test "${as_in_tree[@]}" --offline --manifest-path "$target/guide/$1/Cargo.toml" --target-dir "$target"
}

# greeting_in_c: builds the application of docs/c.md with the command there.
greeting_in_c() {
    blocks c docs/c.md > "$target/guide/greeting.c"
    cc -std=c11 -Wall -Wextra -Werror -O2 -fPIC -shared -I worker-api/include "$target/guide/greeting.c" \
        -o "$target/debug/libgreeting_c_app.so"
}

# greets CLASS APPLICATION: the application answers under this class.
greets() {
    local directory answer
    directory=$(mktemp -d)
    "$target/debug/host" --bind "unix:$directory/socket" --pid "$directory/pid" --no-control-socket \
        --worker-class "$1" "$2" 2> "$directory/log" &
    answer=$(curl --silent --show-error --retry 50 --retry-delay 1 --retry-all-errors \
        --unix-socket "$directory/socket" http://localhost/guide) || true
    kill $! && wait $!
    echo "$(basename "$1"), $(basename "$2"): $answer"
    [ "$answer" = "You asked for /guide" ] || { cat "$directory/log"; return 1; }
    rm -r "$directory"
}

step "The class and the application of the guides"
crate docs/worker-classes.md class
lines=$(grep -c . "$target/guide/class/src/lib.rs")
echo "The class has $lines lines that are not empty"
[ "$lines" -lt 150 ]
crate docs/applications.md app
greeting_in_c
[ "${1:-}" != --build ] || exit 0

step "Their tests"
tests class
tests app

cargo build --quiet --workspace
class=$target/debug/libsimple_worker.so
check "$target/debug/host" "$class"
[ "${1:-}" = --no-matrix ] || matrix "$class"

step "The application under each class"
for class in "$target"/debug/lib{simple,sync,gthread,eventlet,gevent,pywsgi}_worker.so; do
    greets "$class" "$target/debug/libgreeting_app.so"
    greets "$class" "$target/debug/libgreeting_c_app.so"
done
