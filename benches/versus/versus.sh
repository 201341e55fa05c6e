#!/usr/bin/env bash
# callboard beside others and beside a former revision of itself, on the same work in one run.
#
#   versus.sh              everything
#   versus.sh peers        beside other cron libraries
#   versus.sh before       beside the revision BEFORE (default below): wall time, and instructions where
#                          valgrind is installed
set -euo pipefail
cd "$(dirname "$0")/../.."

before=${BEFORE:-81d1cbd}
place=target/versus

# The former revision below target/, with a version of its own: one program may not have two packages
# of one name and version.
former() {
    local revision
    revision=$(git rev-parse --verify "$before^{commit}")
    if [ "$(git -C "$place/before" rev-parse HEAD 2>/dev/null)" != "$revision" ] ||
        [ "$(git -C "$place/before" rev-parse --show-toplevel)" = "$(git rev-parse --show-toplevel)" ]; then
        git worktree remove --force "$place/before" 2>/dev/null || true
        git worktree prune
        mkdir -p "$place"
        git worktree add --detach "$place/before" "$revision"
    fi
    sed -i '0,/^version = .*/s//version = "0.0.1-before"/' "$place/before/Cargo.toml"
}

# counted BUILD ZONE: instructions a search.
counted() {
    local few many
    instructions() {
        valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" w1 count "$1" "$2" "$3" 2>&1 |
            awk '/Collected/ { print $NF }'
    }
    few=$(instructions "$1" "$2" 1)
    many=$(instructions "$1" "$2" 4)
    # Three rounds more of eight patterns from 1024 starts.
    awk -v few="$few" -v many="$many" 'BEGIN { printf "%.1f", (many - few) / (3 * 8 * 1024) }'
}

beside_before() {
    former
    export CARGO_TARGET_DIR="$PWD/$place/target"
    cargo build --release --manifest-path benches/versus/before/Cargo.toml
    program="$CARGO_TARGET_DIR/release/callboard-versus-before"
    echo
    echo "present: $(git describe --always --dirty), before: $before; $(rustc --version)"
    echo
    "$program" w1
    command -v valgrind >/dev/null || { echo "valgrind is not installed: no instructions are counted"; return 0; }
    echo
    echo "next run, instructions a call"
    echo
    echo "| zone | before | present | present / before |"
    echo "|---|--:|--:|--:|"
    local zone
    for zone in UTC America/New_York Africa/Casablanca Australia/Lord_Howe; do
        local old new
        old=$(counted before "$zone")
        new=$(counted present "$zone")
        echo "| $zone | $old | $new | $(awk -v a="$new" -v b="$old" 'BEGIN { printf "%.3f", a / b }') |"
    done
}

beside_peers() {
    CARGO_TARGET_DIR="$PWD/$place/target" cargo run --release --manifest-path benches/versus/Cargo.toml
}

case "${1:-all}" in
peers) beside_peers ;;
before) beside_before ;;
all) beside_peers && beside_before ;;
*) echo "usage: versus.sh [peers|before]" >&2; exit 2 ;;
esac
