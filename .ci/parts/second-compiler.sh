#!/bin/bash
# A worker class by another compiler, in a host by the toolchain's; and one without optimization in a host with it: the
# checks of a class, and the matrix of behaviors.
#   second-compiler.sh [--no-release] [--no-matrix]
# The other compiler is $OTHER_RUSTC, else Debian's rustc-web.
source "$(dirname "$0")/common.sh"

release=1 behaviours=matrix
for option in "$@"; do
    case $option in
        --no-release) release= ;;
        --no-matrix) behaviours=: ;;
        *) echo "second-compiler.sh: no option $option"; exit 2 ;;
    esac
done

manifest=plugins/examples/threaded-worker/Cargo.toml
cargo build --quiet -p host -p check-app
other=${OTHER_RUSTC:-/usr/bin/rustc}
if "$other" --version > /dev/null 2>&1; then
    step "The class by $("$other" --version), the host by $(rustc --version)"
    RUSTC=$other cargo build --manifest-path $manifest --target-dir "$target/second-compiler" --locked
    class=$target/second-compiler/debug/libthreaded_worker.so
    check "$target/debug/host" "$class"
    $behaviours "$class"
else
    echo "second-compiler.sh: skipped, there is no $other: apt-get install rustc-web"
fi

if [ -n "$release" ]; then
    step "A class without optimization, a host with it"
    cargo build --quiet --manifest-path $manifest --target-dir "$target" --locked
    cargo build --quiet --release -p host -p check-app
    class=$target/debug/libthreaded_worker.so
    check "$target/release/host" "$class"
    $behaviours "$class" --release
fi
