#!/bin/sh
# ClickHouse's engine as a library, from npm, into the user's cache; prints the library's path.
# The version is pinned and the library's hash is checked: nothing else is ever loaded. No install script runs.
# usage: clickhouse.sh [DIR]        default DIR: ~/.cache/weir/clickhouse
set -eu

version=26.7.3-stable.1
sha256=36ad4e999882821ef13cf2d0f52c93f48e6ee1b4498b35a201c23ce4b8d15bf5
dir=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/weir/clickhouse}
library=$dir/node_modules/@chdb/lib-linux-x64-gnu/libchdb.so
reviewed=$dir/reviewed-$version

[ "$(uname -m)" = x86_64 ] || { echo "clickhouse.sh: the library is published for x86_64 alone" >&2; exit 1; }
# The mark is written after the hash was right, so an interrupted or foreign installation is checked (again).
if [ ! -e "$reviewed" ] || [ ! -e "$library" ]; then
    if [ ! -e "$library" ] || ! echo "$sha256  $library" | sha256sum --check --status; then
        command -v npm > /dev/null || { echo "clickhouse.sh: npm is needed (apt-get install npm)" >&2; exit 1; }
        echo "clickhouse.sh: fetching @chdb/lib-linux-x64-gnu $version (178 MB) into $dir" >&2
        mkdir -p "$dir"
        npm install --prefix "$dir" --ignore-scripts --no-audit --no-fund --silent \
            "@chdb/lib-linux-x64-gnu@$version" >&2
    fi
    echo "$sha256  $library" | sha256sum --check --status || {
        rm -f "$library"
        echo "clickhouse.sh: the library was not the one that was reviewed (SHA-256 differs); it is removed" >&2
        exit 1
    }
    touch "$reviewed"
fi
echo "$library"
