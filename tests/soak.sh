#!/bin/sh
# Runs so many runs a second on a durable store for some minutes, with faults at random, and prints how
# late runs were, what the process took, and what became of every run time. The status is 1 when one was
# lost or doubled.
#
#   tests/soak.sh STORE MINUTES RATE [SEED] [calm]
#   tests/soak.sh redb 10 2000        the store is sled, redb or file
#   SOAK_PROFILE=dev tests/soak.sh file 1 500 7
set -eu
cd "$(dirname "$0")/.."
if [ $# -lt 3 ]; then
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
exec cargo run --quiet --profile "${SOAK_PROFILE:-release}" --all-features --example endurance -- \
    "$1" "$(($2 * 60))" "$3" "${4:-1}" "${5:-}"
