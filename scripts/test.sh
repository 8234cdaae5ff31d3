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
    | grep --line-buffered -E '^ +Running |^test .* (FAILED|has been running)|^test result|^error(\[|: could not)' \
    | sed -u -E 's/^ +Running/Running/; s/; finished in /, /'
status=${PIPESTATUS[0]}

if [ "$status" -ne 0 ]; then
    echo
    echo '---- what failed ----'
    if grep -qE '^ +Running ' "$log"; then
        # Of each test program, everything from its first failure on.
        awk '/^ +Running / { show = 0 } /^failures:$/ { show = 1 } show' "$log"
    else
        tail -n 80 "$log" # it did not even compile
    fi
fi

# A skipped test says so past the harness, so its line may stand behind something else.
skipped=$(grep -oE '(^| )skipped:? .+' "$log")
if [ -n "$skipped" ]; then
    echo
    echo 'skipped, with how often and why:'
    sort <<<"$skipped" | uniq -c | sort -rn
fi

echo
# A test may start its program again, whose result then stands in its output: the last result of a program is its own.
awk -v skipped="$([ -z "$skipped" ] || wc -l <<<"$skipped")" -v status="$status" '
    function add() { passed += p; failed += f; p = f = 0 }
    /^ +Running / { add() }
    /^test result/ { p = $4; f = $6 }
    END {
        add()
        printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped
        if (status != 0 && failed == 0) print "cargo ended with an error before all tests ran"
    }' "$log"
exit "$status"
