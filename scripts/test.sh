#!/usr/bin/env bash
# What `make test` runs after set-up: every check there is, each with a time limit, and one summary at the end.
# A failing stage does not hide the next one.
set -uo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT" || exit 1
OUT=$ROOT/target/test-output
mkdir -p "$OUT"
# Errors of the scenarios are sentences; a backtrace of the test runner below them only hides them.
export CARGO_TERM_PROGRESS_WHEN=never RUST_LIB_BACKTRACE=0
MAKE=${MAKE:-make}

passed=0 failed=0 running=''
summary=() red=()
trap '[[ $running ]] && kill -TERM "$running" 2>/dev/null; exit 130' INT TERM HUP

# sum_of FILE WORD: adds up what test runners say: cargo "3 passed; 0 failed", node "# pass 3", "ℹ fail 0".
sum_of() {
    sed -n -e "s/^test result: .* \([0-9]\+\) ${2}ed;.*/\1/p" -e "s/^[#ℹ] $2 \([0-9]\+\)\$/\1/p" "$1" |
        awk '{ n += $1 } END { print n + 0 }'
}

# reasons_of FILE: what the tests that failed said, of cargo and of node; the last lines where no test failed.
reasons_of() {
    awk '/^---- .* stdout ----$/ || /^not ok / { told = 1 } /^failures:$/ { told = 0 } told; /^  \.\.\.$/ { told = 0 }' "$1" |
        grep . || tail -n 30 "$1"
}

# stage NAME MINUTES COMMAND...: runs it, shows it, counts it. A stage that ran no tests counts as one check.
stage() {
    local name=$1 minutes=$2 log status=0 ok bad start=$SECONDS verdict=ok
    shift 2
    log=$OUT/${name//[^a-z0-9]/-}.log
    echo "==> $name: $*"
    # In the background, so that the traps above run while it does; `timeout` then ends its whole process group.
    timeout --kill-after=30 "${minutes}m" "$@" > >(tee "$log") 2>&1 &
    running=$!
    wait "$running" || status=$?
    running=
    ok=$(sum_of "$log" pass) bad=$(sum_of "$log" fail)
    if ((status)); then
        verdict=FAILED
        ((status == 124 || status == 137)) && verdict="STUCK, killed after $minutes min"
        ((bad)) || bad=1
        red+=("$name" "$log")
    elif ((ok + bad == 0)); then
        ok=1
    fi
    ((passed += ok, failed += bad))
    summary+=("$(printf '%-28s %5d passed %4d failed %5d s  %s' "$name" "$ok" "$bad" $((SECONDS - start)) "$verdict")")
    return "$status"
}

skipped() { summary+=("$(printf '%-28s skipped: %s' "$1" "$2")"); }

stage "pages: build" 5 "$MAKE" --no-print-directory pages
stage "pages: types" 5 npm --prefix player-demo run --silent check
stage "browser scripts: types" 5 npm --prefix tests/browser run --silent check
stage "pages: unit tests" 5 npm --prefix player-demo run --silent test
stage "format" 2 cargo fmt --all --check
stage "clippy" 30 cargo clippy --workspace --all-targets --locked -- -D warnings
# `make fuzz` takes half an hour, and builds files of others by their paths: whether it still would is all that is seen here.
stage "fuzz targets" 15 env RUSTFLAGS="--cfg fuzzing -D warnings" CARGO_TARGET_DIR=target/fuzz-check \
    cargo check --locked --no-default-features --manifest-path fuzz/Cargo.toml
# One build for everything below: the same packages, features and profile, so that nothing is compiled twice.
if stage "build" 30 cargo build --workspace --all-targets --locked; then
    stage "unit tests" 10 cargo test --workspace --locked --no-fail-fast --lib --bins
    stage "doc tests" 10 cargo test --workspace --locked --doc
    stage "test media" 10 scripts/media.sh --all
    # The scenarios wait for real time far more than they compute: run all of a file at once, whatever the cores.
    without=()
    # They make network interfaces.
    ((EUID)) && without=(-- --skip little_is_seen_of_a_bad_network --skip viewers_notice_no_cut_but --skip of_two_halves) &&
        skipped "bad networks, cut links" "only root may lay them"
    rm -rf "$OUT/scenarios" && mkdir "$OUT/scenarios"
    stage "scenarios" 55 env RUST_TEST_THREADS=32 SCENARIO_LOGS="$OUT/scenarios" cargo test --workspace --locked --no-fail-fast --test '*' "${without[@]}"
    stage "pages in Chromium" 10 npm --prefix player-demo run --silent test:browser
fi
if command -v cargo-deny >/dev/null; then
    stage "licences and sources" 5 cargo deny --locked check --hide-inclusion-graph bans licenses sources
    # The advisories are a repository of their own, which not every machine can reach.
    if timeout 60 cargo deny fetch db >/dev/null 2>&1; then
        stage "advisories" 5 cargo deny --locked check advisories
    else
        skipped "advisories" "their database cannot be fetched"
    fi
else
    skipped "licences and sources" "cargo-deny is not installed"
    skipped "advisories" "cargo-deny is not installed"
fi

echo
# Again, and last: above, they are lost among thousands of lines, of which CI shows but the last.
((${#red[@]})) && printf '%s\n' "${red[@]}" | while read -r name && read -r log; do
    echo "==> why it failed: $name"
    reasons_of "$log" | cut -c 1-1000 | head -n 200
done
echo "==> summary (logs, screenshots and streams are in ${OUT#"$ROOT"/})"
printf '    %s\n' "${summary[@]}"
echo "$passed passed, $failed failed"
((failed == 0))
