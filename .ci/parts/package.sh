#!/bin/bash
# The crates that third parties build from: each is packaged, and compiled from its package and those of the others.
source "$(dirname "$0")/common.sh"

published=(worker-api jimu-http1 jimu-kit jimu-green jimu-green-kit jimu-websocket)
# All others are `publish = false`.
mine=$(cargo metadata --no-deps --format-version 1 | python3 -c '
import json, sys
for package in json.load(sys.stdin)["packages"]:
    if package["publish"] != []:
        print(package["name"])' | sort)
[ "$mine" = "$(printf '%s\n' "${published[@]}" | sort)" ] || { echo "can be published: $mine"; exit 1; }

step "Packages: ${published[*]}"
# Since cargo 1.90, crates that depend on each other are packaged together.
cargo package --quiet --target-dir "$target/packaged" "${published[@]/#/-p}" "$@"
