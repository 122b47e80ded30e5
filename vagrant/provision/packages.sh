#!/bin/sh
# What a bare Debian or Ubuntu needs before `cargo xtask setup` can do the rest: a compiler and git.
# usage: packages.sh [CHECKOUT]        with CHECKOUT, goes on to `cargo xtask setup` there
set -eu

wanted="build-essential ca-certificates git"
# Debian keeps a newer Rust beside its default one, for building browsers; rustup's is as good.
command -v cargo > /dev/null || wanted="$wanted rustc-web cargo-web rust-web-src"
missing=""
for package in $wanted; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' || missing="$missing $package"
done
if [ -n "$missing" ]; then
    echo "packages.sh: installing$missing"
    apt-get update -q
    # shellcheck disable=SC2086  # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
fi
[ $# = 0 ] || (cd "$1" && cargo xtask setup)
