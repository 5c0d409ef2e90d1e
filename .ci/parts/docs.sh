#!/bin/bash
# The pages of rustdoc, private items included: a broken link is an error.
source "$(dirname "$0")/common.sh"

RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items
