#!/bin/sh
# Kills a scheduler with SIGKILL at random moments, 200 times on each durable store (or as often as
# the first argument says, with the seed of the second), and checks after it that everything that was
# acknowledged is there, that each run time has exactly one final outcome, and that nothing ran
# again but what asked for it. Prints the figures.
#
#   tests/kill.sh            200 kills a store
#   tests/kill.sh 1000 42    1000 kills, other moments
set -eu
cd "$(dirname "$0")/.."
CALLBOARD_KILL_ROUNDS="${1:-200}" CALLBOARD_KILL_SEED="${2:-1}" \
    cargo test --all-features --test it promise::kill -- --nocapture --test-threads 1
