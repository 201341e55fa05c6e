#!/usr/bin/env bash
# Runs all checks and tests from a fresh clone and ends with a line of counts. Installs what is
# missing: Debian packages (with sudo unless root) and components of the Rust toolchain.
set -uo pipefail
cd "$(dirname "$0")/.."

export CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-never}"
passed=0
failed=0
failures=()

# check NAME COMMAND…: one check that counts as one test.
check() {
    local name=$1 begin=$SECONDS
    shift
    echo "== $name"
    if "$@"; then
        passed=$((passed + 1))
        echo "-- $name: ok ($((SECONDS - begin)) s)"
    else
        failed=$((failed + 1))
        failures+=("$name")
        echo "-- $name: FAILED ($((SECONDS - begin)) s)"
    fi
}

# counted NAME COMMAND…: a test run whose own counts are added up.
counted() {
    local name=$1 log begin=$SECONDS status p f
    shift
    log=$(mktemp)
    echo "== $name"
    "$@" 2>&1 | tee "$log"
    status=$?
    # nextest sums up in one line; cargo test has a line for each test binary.
    local summary='Summary \['
    grep -q "$summary" "$log" || summary='^test result:'
    count() { grep -E "$summary" "$log" | grep -oE "[0-9]+ ($1)" | awk '{ n += $1 } END { print n + 0 }'; }
    p=$(count passed)
    f=$(count 'failed|timed out')
    rm -f "$log"
    passed=$((passed + p))
    failed=$((failed + f))
    # A run that broke off without a failed test (it did not compile, say) is a failure too.
    if [ "$status" -ne 0 ] && [ "$f" -eq 0 ]; then
        failed=$((failed + 1))
    fi
    if [ "$status" -ne 0 ] || [ "$f" -ne 0 ]; then
        failures+=("$name")
    fi
    echo "-- $name: $p passed, $f failed, status $status ($((SECONDS - begin)) s)"
}

need_packages() {
    local missing=()
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    command -v curl >/dev/null || missing+=(curl ca-certificates)
    # The other reader of time zone databases.
    python3 -c 'import sys, zoneinfo; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || missing+=(python3)
    # Processes that live at another time.
    command -v faketime >/dev/null || missing+=(faketime)
    [ ${#missing[@]} -eq 0 ] && return 0
    command -v apt-get >/dev/null || { echo "please install: ${missing[*]}"; return 1; }
    local sudo=()
    [ "$(id -u)" -eq 0 ] || sudo=(sudo)
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq &&
        "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
}

need_rust() {
    # rustup may have put cargo where this shell has not looked yet.
    command -v cargo >/dev/null || export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    if ! command -v cargo >/dev/null; then
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal || return 1
        export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    fi
    cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt || return 1
    cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
}

# The newest time zone database of the distribution, unpacked and not installed.
fetch_tzdata() {
    local place=$PWD/target/tzdata
    # Elsewhere than on Debian: a directory like /usr/share/zoneinfo.
    [ -n "${CALLBOARD_TZDATA:-}" ] && { [ -d "$CALLBOARD_TZDATA" ]; return; }
    # Named in any case, so that the test that reads it fails where it is not there.
    export CALLBOARD_TZDATA=$place/unpacked/usr/share/zoneinfo
    command -v apt-get >/dev/null || { echo "without apt-get: set CALLBOARD_TZDATA to a directory of TZif files"; return 1; }
    rm -rf "$place"
    mkdir -p "$place"
    download() { (cd "$place" && apt-get download -qq tzdata); }
    local sudo=()
    [ "$(id -u)" -eq 0 ] || sudo=(sudo)
    download || { "${sudo[@]}" apt-get update -qq && download; } || return 1
    dpkg-deb -x "$place"/tzdata_*.deb "$place/unpacked"
}

need_packages || exit 1
need_rust || exit 1

check "format" cargo fmt --all --check
check "clippy" cargo clippy --workspace --all-targets --all-features -- -D warnings
check "no default features" cargo check --no-default-features
check "default features" cargo check
check "time zone database" fetch_tzdata
check "tables of time zones" python3 tests/tables/zones.py check
if cargo nextest --version >/dev/null 2>&1; then
    counted "tests" cargo nextest run --workspace --all-features --no-fail-fast
else
    counted "tests" cargo test --workspace --all-features --no-fail-fast --lib --bins --tests --examples
fi
counted "doc tests" cargo test --workspace --all-features --doc
check "documentation" env RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --all-features --no-deps

for name in ${failures[@]+"${failures[@]}"}; do
    echo "failed: $name"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
