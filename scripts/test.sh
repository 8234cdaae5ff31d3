#!/bin/bash
# Runs all tests, shows what matters while they run, and ends in one line: N passed, N failed, N skipped.
#
# Arguments go to `cargo test`. The whole output is kept in target/test.log.
set -uo pipefail
cd "$(dirname "$0")/.."
log=${CARGO_TARGET_DIR:-target}/test.log
mkdir -p "$(dirname "$log")"

# Passing tests print too: those that are skipped say why.
"${CARGO:-cargo}" test --locked --no-fail-fast "$@" -- --show-output 2>&1 | tee "$log" \
    | grep --line-buffered -E '^ +Running |^test .* (FAILED|has been running)|^test result|^(warning|error)' \
    | sed -u -E 's/^ +Running/Running/; s/; finished in /, /'
status=${PIPESTATUS[0]}

if [ "$status" -ne 0 ]; then
    echo
    echo '---- what the failed tests said ----'
    awk '/^failures:$/ { show = !show_names; show_names = !show_names } /^test result/ { show = 0; show_names = 0 } show' "$log"
    grep -E -A12 '^error' "$log" | head -n 60
fi
# A skipped test says so past the harness, so its line may stand behind something else.
skipped=$(grep -oE '(^| )skipped:? .+' "$log" | sort | uniq -c | sort -rn)
if [ -n "$skipped" ]; then
    echo
    echo 'skipped, with how often and why:'
    echo "$skipped"
fi

echo
awk -v skipped="$(grep -cE '(^| )skipped:? .+' "$log")" -v status="$status" '
    /^test result/ { passed += $4; failed += $6 }
    END {
        printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped
        if (status != 0 && failed == 0) print "cargo ended with an error before all tests ran"
    }' "$log"
exit "$status"
