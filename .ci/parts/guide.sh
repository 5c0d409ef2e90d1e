#!/bin/bash
# The class in docs/worker-classes.md and the application in docs/applications.md, built from these pages alone.
source "$(dirname "$0")/common.sh"

# blocks LANGUAGE PAGE: the page's code blocks in that language, put together.
blocks() { awk -v fence="\`\`\`$1" '$0 == fence { on = 1; next } /^```/ { on = 0 } on' "$2"; }

# crate PAGE NAME: builds what the page says, out of tree.
crate() {
    local folder=$target/guide/$2
    rm -rf "$folder" && mkdir -p "$folder/src"
    ln -sfn "$PWD" "$target/guide/jimu"
    # The folder may be below this workspace, of which it is no member.
    {
        blocks toml "$1"
        printf '[workspace]\n[profile.dev]\ndebug = "line-tables-only"\n'
    } > "$folder/Cargo.toml"
    blocks rust "$1" > "$folder/src/lib.rs"
    cp plugins/third-party/Cargo.lock "$folder/"
    cargo build --offline --manifest-path "$folder/Cargo.toml" --target-dir "$target"
}

step "The class of the guide"
crate docs/worker-classes.md class
lines=$(grep -c . "$target/guide/class/src/lib.rs")
echo "$lines lines that are not empty"
[ "$lines" -lt 150 ]
cargo build --quiet -p host -p check-app
check "$target/debug/host" "$target/debug/libsimple_worker.so"

step "The application of the guide"
crate docs/applications.md app
"$target/debug/host" --check-config \
    --worker-class "$target/debug/libsimple_worker.so" "$target/debug/libgreeting_app.so"
