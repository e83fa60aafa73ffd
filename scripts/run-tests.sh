#!/bin/sh
# Runs every test program below BUILD/tests (or a folder of it) and ends with one line "N passed, N failed".
#
# usage: run-tests.sh BUILD [FOLDER]
#
# A program speaks TAP (cmocka does when asked); one that crashes, hangs or says nothing counts as one failure.
set -u
build=$1
passed=0 failed=0
output=$(mktemp) || exit 1
trap 'rm -f "$output"' EXIT
export CMOCKA_MESSAGE_OUTPUT=TAP
export OVRD_TEST_BUILD="$build"
for program in $(find "$build/tests${2:+/$2}" -name 'test_*' -type f -perm -u+x | LC_ALL=C sort); do
    started=$(date +%s)
    timeout 900 "$program" >"$output" 2>&1
    status=$?
    ok=$(grep -c '^ok ' "$output")
    not_ok=$(grep '^not ok ' "$output" | grep -vc '# SKIP') # cmocka skips with "not ok"
    if [ "$status" -ne 0 ] && [ "$not_ok" -eq 0 ] || ! grep -q '^\(not \)\?ok ' "$output"; then
        not_ok=$((not_ok + 1))
        echo "$program ended with status $status" >>"$output"
    fi
    passed=$((passed + ok)) failed=$((failed + not_ok))
    printf '%-44s %3d passed %3d failed %4d s\n' "${program#"$build"/tests/}" "$ok" "$not_ok" \
        $(($(date +%s) - started))
    sed -n 's/^not ok [0-9]* # SKIP /    skipped: /p' "$output"
    [ "$not_ok" -eq 0 ] || sed 's/^/    /' "$output"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
