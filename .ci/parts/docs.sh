#!/bin/bash
# The pages of rustdoc: a broken link is an error. Those of the whole workspace have private items, which public ones may
# therefore link to; those of the published crates are as docs.rs makes them.
source "$(dirname "$0")/common.sh"

export RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links"
# The library of the kit for C has the name of the kit's, so that their pages are made one after the other.
cargo doc --workspace --exclude jimu-kit-c --no-deps --document-private-items --keep-going
cargo doc -p jimu-kit-c --no-deps --document-private-items
cargo doc --no-deps --keep-going --all-features -p worker-api -p jimu-http1 -p jimu-kit -p jimu-green -p jimu-green-kit \
    -p jimu-websocket
