#!/bin/sh
# What the lab needs from Debian or Ubuntu. Says what it installs; installs nothing that is there already.
# usage: packages.sh
set -eu

wanted="ca-certificates clang cmake curl g++ git libclang-dev make nginx-light nodejs npm openssl pkg-config postgresql"
missing=""
for package in $wanted; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

# No cluster and no web server of the host's own: the lab makes private ones.
mkdir -p /etc/postgresql-common
[ -e /etc/postgresql-common/createcluster.conf ] ||
    echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf
echo "packages.sh: installing$missing"
apt-get update -q
# shellcheck disable=SC2086  # a list of words
DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
