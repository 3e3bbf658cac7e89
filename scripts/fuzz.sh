#!/usr/bin/env bash
# What `make fuzz` runs: every target of fuzz/, two at a time, and one table at the end. fuzz/README.md says more.
#
#   scripts/fuzz.sh                  every target, each for FUZZ_SECONDS (120) of processor time
#   scripts/fuzz.sh TARGET...        these
#   scripts/fuzz.sh TARGET FILE      once over this input, to see again how it fails
#
# Exit code 1 if any input broke a target; it is kept in fuzz/artifacts/, and the table says how to run it again.
set -uo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT" || exit 1
SECONDS_EACH=${FUZZ_SECONDS:-120}
# At a time: one core each, and no more than others leave alone.
JOBS=${FUZZ_JOBS:-2}
# The longest input tried, in bytes. Every limit of a parser that can be reached in more is tested by itself.
INPUT_BYTES_MAX=4096
# Half a gigabyte, or five seconds, for 4 kB is a broken parser. The seconds are the clock's, and a busy machine sometimes
# takes a process away for one or two.
LIMITS=(-timeout=5 -rss_limit_mb=512 -max_len="$INPUT_BYTES_MAX")

BUILD=$ROOT/target/fuzz
HOST=$(rustc -vV | sed -n 's/^host: //p')
BIN=$BUILD/$HOST/release
# LLVM's own coverage pass, which stable Rust has too: counters for every edge, what each comparison compared, and where.
# `--target` keeps the flags from build scripts and macros, which libFuzzer does not run.
COVERAGE="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
COVERAGE+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
COVERAGE+=" -Cllvm-args=-sanitizer-coverage-trace-compares"

mapfile -t ALL < <(basename -s .rs fuzz/targets/*.rs)
is_target() { [[ -f fuzz/targets/$1.rs ]]; }

input=
if (($# == 2)) && is_target "$1" && ! is_target "$2"; then
    targets=("$1") input=$2
elif (($#)); then
    targets=("$@")
else
    targets=("${ALL[@]}")
fi
for target in "${targets[@]}"; do
    is_target "$target" || { echo "fuzz: no target $target; there are ${ALL[*]}" >&2; exit 2; }
done

echo "fuzz: building"
RUSTFLAGS=$COVERAGE CARGO_TARGET_DIR=$BUILD CARGO_TERM_PROGRESS_WHEN=never nice -n 10 \
    cargo build --quiet --release --locked --manifest-path fuzz/Cargo.toml --target "$HOST" "${targets[@]/#/--bin=}" || exit 1

if [[ $input ]]; then
    exec "$BIN/${targets[0]}" "${LIMITS[@]}" "$input"
fi

pids=()
trap 'kill "${pids[@]}" 2>/dev/null; wait; exit 130' INT TERM HUP

# cpu_seconds PID: of it and those that it waited for.
cpu_seconds() { awk -v hz="$(getconf CLK_TCK)" '{ print int(($14 + $15 + $16 + $17) / hz) }' "/proc/$1/stat"; }

# hunt TARGET: what is found new goes into a folder of its own, which the next run begins with. With the value profile, a
# comparison that comes closer counts as new: magic numbers of four bytes are found in seconds, else hardly ever.
hunt() {
    local target=$1 corpus=$BUILD/corpus/$1 artifacts=$ROOT/fuzz/artifacts/$1 known=() folder left fuzzer= self=$BASHPID
    trap 'kill "$fuzzer" 2>/dev/null; exit 143' TERM
    mkdir -p "$corpus" "$artifacts"
    for folder in fuzz/seeds/"$target" fuzz/regressions/"$target"; do
        [[ -d $folder ]] && known+=("$folder")
    done
    # libFuzzer counts the clock's seconds, of which others may take most.
    while left=$((SECONDS_EACH - $(cpu_seconds "$self"))); ((left > 0)); do
        nice -n 10 "$BIN/$target" "${LIMITS[@]}" -max_total_time="$left" -artifact_prefix="$artifacts/" \
            -use_value_profile=1 -print_final_stats=1 "$corpus" "${known[@]}" &
        fuzzer=$!
        wait "$fuzzer" || return
    done
}

# last FILE PATTERN: the last number that stands behind PATTERN.
last() { grep -o "$2 *[0-9]*" "$1" | tail -1 | grep -o '[0-9]*$'; }
first() { grep -o "$2 *[0-9]*" "$1" | head -1 | grep -o '[0-9]*$'; }
sum() { grep -o "$2 *[0-9]*" "$1" | awk '{ sum += $NF } END { print sum }'; }

mkdir -p "$BUILD/log"
rm -f "$BUILD"/log/*.{log,failed}
echo "fuzz: ${#targets[@]} targets, $SECONDS_EACH s each, $JOBS at a time; logs in ${BUILD#"$ROOT"/}/log"
for target in "${targets[@]}"; do
    while (($(jobs -rp | wc -l) >= JOBS)); do wait -n; done
    {
        trap 'kill "$child" 2>/dev/null' TERM
        log=$BUILD/log/$target.log
        hunt "$target" >"$log" 2>&1 &
        child=$!
        wait "$child" || echo "$?" >"$BUILD/log/$target.failed"
        # The last line is the processor's time of what this shell ran: user, then system.
        times >>"$log"
    } &
    pids+=("$!")
done
wait

failed=0
printf '\n%-22s %12s %16s %9s %7s %8s  %s\n' target executions 'coverage, edges' features corpus 'cpu, s' crashes
for target in "${targets[@]}"; do
    log=$BUILD/log/$target.log
    cpu=$(tail -1 "$log" | awk -F'[ ms]+' '{ printf "%.0f", 60 * ($1 + $3) + $2 + $4 }')
    found=none
    if [[ -f $BUILD/log/$target.failed ]]; then
        failed=1
        artifact=$(grep -o 'Test unit written to .*' "$log" | tail -1)
        artifact=${artifact#Test unit written to }
        found="yes: scripts/fuzz.sh $target ${artifact#"$ROOT"/}"
        [[ $artifact ]] || found="did not run: see ${log#"$ROOT"/}"
    fi
    printf '%-22s %12s %16s %9s %7s %8s  %s\n' "$target" "$(sum "$log" 'number_of_executed_units:')" \
        "$(first "$log" 'cov:') to $(last "$log" 'cov:')" "$(last "$log" 'ft:')" "$(last "$log" 'corp:')" "$cpu" "$found"
done
exit "$failed"
