#!/bin/sh
# Fetches consecutive versions of real packages for `stork-bench delta` into a folder, and prints
# the commands that measure them. Without a network it says so and does nothing.
#   sh tests/bench/delta/fetch.sh /var/tmp/stork-versions
set -eu
folder=${1:?usage: fetch.sh FOLDER}
mkdir -p "$folder"
cd "$folder"
pool=https://deb.debian.org/debian-security/pool/updates/main
if ! curl -sfI -m 20 https://deb.debian.org/debian/ >/dev/null; then
    echo "skipped: deb.debian.org cannot be reached"
    exit 0
fi
get() { [ -e "${1##*/}" ] || curl -sfLO "$1" || echo "skipped: $1 is not there any more"; }
pair() { echo "stork-bench delta $folder/$1 $folder/$2"; }

get "$pool/o/openssl/libssl3_3.0.19-1~deb12u2_amd64.deb"
get "https://deb.debian.org/debian/pool/main/o/openssl/libssl3_3.0.20-1~deb12u1_amd64.deb"
pair libssl3_3.0.19-1~deb12u2_amd64.deb libssl3_3.0.20-1~deb12u1_amd64.deb
get "$pool/o/openjdk-17/openjdk-17-jre-headless_17.0.18+8-1~deb12u1_amd64.deb"
get "$pool/o/openjdk-17/openjdk-17-jre-headless_17.0.19+10-1~deb12u2_amd64.deb"
pair openjdk-17-jre-headless_17.0.18+8-1~deb12u1_amd64.deb \
    openjdk-17-jre-headless_17.0.19+10-1~deb12u2_amd64.deb
get "https://deb.debian.org/debian/pool/main/p/postgresql-15/postgresql-15_15.17-0+deb12u1_amd64.deb"
get "$pool/p/postgresql-15/postgresql-15_15.18-0+deb12u1_amd64.deb"
pair postgresql-15_15.17-0+deb12u1_amd64.deb postgresql-15_15.18-0+deb12u1_amd64.deb
get https://registry.npmjs.org/typescript/-/typescript-5.8.2.tgz
get https://registry.npmjs.org/typescript/-/typescript-5.8.3.tgz
pair typescript-5.8.2.tgz typescript-5.8.3.tgz
# A wheel is a zip archive, which stork does not read: it is pushed as the folder that it holds.
for version in 2.2.5 2.2.6; do
    [ -d "numpy-$version" ] && continue
    pip -q download --no-deps --only-binary :all: --python-version 3.11 \
        --platform manylinux2014_x86_64 -d . "numpy==$version" || { echo "skipped: numpy"; exit 0; }
    python3 -m zipfile -e "numpy-$version"-*.whl "numpy-$version"
done
pair numpy-2.2.5 numpy-2.2.6
