#!/bin/bash
# The oldest compiler that the packages name. Needs rustup, which fetches it; without, it is skipped.
source "$(dirname "$0")/common.sh"

oldest=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
api=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' worker-api/Cargo.toml)
if ! command -v rustup > /dev/null; then
    echo "msrv.sh: skipped, there is no rustup to fetch rustc $oldest with"
    exit 0
fi
check_with() {
    step "$*"
    rustup toolchain install --profile minimal --no-self-update "$1" > /dev/null 2>&1 ||
        { echo "msrv.sh: rustc $1 cannot be fetched"; return 1; }
    cargo "+$1" check --target-dir "$target/msrv-$1" --locked "${@:2}"
}
check_with "$oldest" --workspace
check_with "$api" -p worker-api
