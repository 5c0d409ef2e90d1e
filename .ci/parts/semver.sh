#!/bin/bash
# The interface of worker-api in Rust against that of its last release, by the rules of semantic versioning. The ABI is
# compared by abi.sh and by the tests of worker-api. Needs cargo-semver-checks; without, it is skipped.
source "$(dirname "$0")/common.sh"

if ! cargo semver-checks --version > /dev/null 2>&1; then
    echo "semver.sh: skipped, there is no cargo-semver-checks (cargo install cargo-semver-checks --locked)"
    exit 0
fi
# The frozen copy with the highest version is the last release.
last=$(printf '%s\n' tests/abi/worker-api-* | sort -V | tail -n 1)
step "worker-api against $last"
cargo semver-checks --manifest-path worker-api/Cargo.toml -p worker-api --baseline-root "$last"
