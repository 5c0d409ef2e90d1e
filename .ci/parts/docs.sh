#!/bin/bash
# The pages of rustdoc, private items included, which public ones may therefore link to: a broken link is an error.
source "$(dirname "$0")/common.sh"

export RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links"
cargo doc --workspace --no-deps --document-private-items --keep-going
