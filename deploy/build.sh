#!/bin/sh
# Builds the release: from the same sources and the same toolchain the same bytes, in whatever
# folder they lie. Arguments go to cargo, for example `--package stork-publisher`.
set -eu
cd "$(dirname "$0")/.."
src=$(pwd -P)
home=$(cd "${CARGO_HOME:-$HOME/.cargo}" && pwd -P)
target=${CARGO_TARGET_DIR:-$src/target}
# Names of folders are in messages of panics, in line tables, and in what C code says of itself.
# The last rule that fits counts, for rustc as for the C compilers.
export CARGO_INCREMENTAL=0 SOURCE_DATE_EPOCH=1 ZERO_AR_DATE=1
export RUSTFLAGS="${RUSTFLAGS:+$RUSTFLAGS }--remap-path-prefix=$home=/cargo \
--remap-path-prefix=$src=/stork --remap-path-prefix=$target=/target"
map="-ffile-prefix-map=$home=/cargo -ffile-prefix-map=$src=/stork -ffile-prefix-map=$target=/target"
export CFLAGS="${CFLAGS:+$CFLAGS }$map" CXXFLAGS="${CXXFLAGS:+$CXXFLAGS }$map"
exec cargo build --release --locked "$@"
