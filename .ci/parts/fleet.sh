#!/bin/bash
# The fleet of three hosts behind HAProxy and nginx. It takes root, haproxy, nginx and iproute2; without them the same tests
# are skipped elsewhere, and fail here.
source "$(dirname "$0")/common.sh"

cargo build --quiet --workspace
JIMU_BUILT=1 cargo test -p jimu-tests --test matrix -- fleet | tee "$target/fleet.log"
grep -q '; 0 ignored;' "$target/fleet.log" || { echo "tests were skipped"; exit 1; }
