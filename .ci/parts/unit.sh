#!/bin/bash
# All tests but the matrix of behaviors.
source "$(dirname "$0")/common.sh"

python=$(cargo xtask python)
cargo build --quiet --workspace
JIMU_BUILT=1 TEST_PYTHON=$python cargo test --workspace --exclude jimu-tests
JIMU_BUILT=1 TEST_PYTHON=$python cargo test -p jimu-tests --lib --test tidy
