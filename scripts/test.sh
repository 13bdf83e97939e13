#!/bin/bash
# Runs every check and lists ALL that failed: what `make test` and .ci/run do.
#
# Installs what the tests need (scripts/deps.sh test), then: formatting, lints, the
# static release build, unit tests, black-box tests against the release binary. A test
# that skips itself for want of a requirement fails here (DEWAR_TEST_STRICT).
# Needs root and Rust; ends with status 1 and the list if anything failed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

failed=()
check() { # check NAME COMMAND...
    local name=$1 start=$SECONDS
    shift
    printf '\n==> %s: %s\n' "$name" "$*"
    if "$@"; then
        printf '==> %s: ok, %d s\n' "$name" $((SECONDS - start))
    else
        printf '==> %s: FAILED, %d s\n' "$name" $((SECONDS - start))
        failed+=("$name")
        return 1
    fi
}

host=$(rustc -vV 2>/dev/null | sed -n 's/^host: //p')
target=${CARGO_TARGET_DIR:-$PWD/target}
[ -n "${CARGO_BUILD_TARGET_DIR:-}" ] && target=$CARGO_BUILD_TARGET_DIR
binary=$target/$host/release/dewar

check requirements scripts/deps.sh test || { echo "test: requirements are missing, nothing was tested" >&2; exit 1; }
PATH=$PATH:/opt/dewar/docker/bin
export PATH
DEWAR_TEST_CRIU=$(scripts/criu.sh 2>/dev/null)
DEWAR_TEST_PYTHON=$(scripts/python.sh 2>/dev/null)
DEWAR_TEST_COMPOSE=$(scripts/compose.sh 2 2>/dev/null)
export DEWAR_TEST_CRIU DEWAR_TEST_PYTHON DEWAR_TEST_COMPOSE DEWAR_TEST_STRICT=${DEWAR_TEST_STRICT:-1}

# rustfmt and clippy come with rustup's default profile, not with every distribution's rust.
check format cargo fmt --check
check lints cargo clippy --locked --all-targets -- -D warnings
check build cargo build --release --locked && check static scripts/static-check.sh "$binary"
# Everything first: a unit test starts the debug build of the program as a container's init.
check compile cargo test --locked --no-run
check unit cargo test --locked --bin dewar
# The black-box tests drive what is shipped, not a debug build of it.
[ -x "$binary" ] && export DEWAR_BIN=$binary
check black-box cargo test --locked --test dewar

echo
if [ ${#failed[@]} -gt 0 ]; then
    echo "test: FAILED: ${failed[*]}"
    exit 1
fi
echo "test: all passed in $SECONDS s"
