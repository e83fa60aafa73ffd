#!/bin/sh
# Two experiments from a spec to its weights, on a daemon of their own, in under a minute.
# `make demo` builds first and then calls this.
#
#   KEEP=1            leave the daemon running at the end
#   OVRD_CIFAR10=DIR  where CIFAR-10 is: train.bin and test.bin, or data_batch_1.bin to
#                     data_batch_5.bin and test_batch.bin as in the original archive. Without it
#                     ../shared/data/cifar10 is tried; without any, the second experiment runs on
#                     generated points instead.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
PATH="$root/build:$PATH"
export PATH no_proxy=127.0.0.1
started=$(date +%s)
daemon=
dir=

bold= plain=
if [ -t 1 ]; then
    bold=$(printf '\033[1m') plain=$(printf '\033[0m')
fi

heading() { printf '\n%s%s%s\n' "$bold" "$1" "$plain"; }
say() { printf '%s\n' "$@"; }
command_line() { printf '\n%s$ %s%s\n' "$bold" "$1" "$plain"; }

# --- the daemon: start, stop, and its last words when something goes wrong -------------------------

alive() { [ -n "$daemon" ] && kill -0 "$daemon" 2>/dev/null; }

cleanup() {
    code=$?
    trap - EXIT INT TERM
    if [ "${KEEP:-}" = 1 ] && alive; then
        heading "The daemon is still running (KEEP=1)"
        say "address  $OVRD_URL" "data     $dir/data" "log      $dir/log" \
            "stop it  kill $daemon && rm -r $dir"
        exit "$code"
    fi
    if alive; then
        kill "$daemon" 2>/dev/null || true
        wait "$daemon" 2>/dev/null || true
    fi
    [ -z "$dir" ] || rm -rf "$dir"
    exit "$code"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

die() {
    printf '\ndemo: %s\n' "$1" >&2
    alive || [ -z "$daemon" ] || echo "demo: the daemon is not running any more" >&2
    if [ -n "$dir" ] && [ -s "$dir/log" ]; then
        echo "The end of its log:" >&2
        tail -n 20 "$dir/log" >&2
    fi
    exit 1
}

start_daemon() {
    dir=$(mktemp -d "${TMPDIR:-/tmp}/ovrd-demo.XXXXXX")
    mkdir "$dir/data"
    # A session of its own: Ctrl-C is for this script, which then stops the daemon in order.
    setsid ovrd --data-dir "$dir/data" --listen 127.0.0.1:0 \
        </dev/null >"$dir/stdout" 2>"$dir/log" &
    daemon=$!
    tries=0
    until OVRD_URL=$(sed -n 's/^listening on //p' "$dir/stdout") && [ -n "$OVRD_URL" ]; do
        tries=$((tries + 1))
        { alive && [ "$tries" -lt 200 ]; } || die "the daemon did not start"
        sleep 0.05
    done
    export OVRD_URL
}

# --- one experiment ------------------------------------------------------------------------------------

# run_experiment SPEC: submits, watches, shows the histogram. Leaves its id in $id.
run_experiment() {
    command_line "ovrctl submit $1"
    id=$(ovrctl submit "$1") || die "$1 was refused"
    say "$id"
    command_line "ovrctl watch $id"
    # No pipe: watch draws its line only on a terminal.
    ovrctl watch "$id" || die "the experiment did not succeed"
    command_line "ovrctl histogram $id"
    ovrctl histogram "$id" || die "no histogram"
}

# --- CIFAR-10 ------------------------------------------------------------------------------------------

holds_cifar10() {
    if [ -f "$1/train.bin" ] && [ -f "$1/test.bin" ]; then
        train_files=train.bin test_files=test.bin
    elif [ -f "$1/data_batch_1.bin" ] && [ -f "$1/data_batch_2.bin" ] &&
        [ -f "$1/data_batch_3.bin" ] && [ -f "$1/data_batch_4.bin" ] &&
        [ -f "$1/data_batch_5.bin" ] && [ -f "$1/test_batch.bin" ]; then
        train_files='data_batch_[1-5].bin' test_files=test_batch.bin
    else
        return 1
    fi
}

# Sets $cifar10 to the directory that holds it; false where there is none.
find_cifar10() {
    shared=$root/../shared/data/cifar10
    cifar10=${OVRD_CIFAR10:-}
    if [ -n "$cifar10" ]; then
        holds_cifar10 "$cifar10" && say "Found in $cifar10 (OVRD_CIFAR10)." && return 0
        say "OVRD_CIFAR10=$cifar10 has neither train.bin and test.bin nor the six batch files."
    fi
    cifar10=$shared
    holds_cifar10 "$cifar10" && say "Found in ../shared/data/cifar10." && return 0
    [ -f "$shared/unpack.py" ] && /usr/bin/python3 -c 'import numpy, PIL' 2>/dev/null || return 1
    say "Unpacking ../shared/data/cifar10 (8 s)."
    cifar10=$dir/cifar10
    /usr/bin/python3 "$shared/unpack.py" "$cifar10" >"$dir/unpack" 2>&1 && holds_cifar10 "$cifar10"
}

# upload_split SPLIT FILES: FILES is a name or a pattern; several files are sent as one stream.
upload_split() {
    case $2 in
    *\[*)
        command_line "cat $cifar10/$2 | ovrctl upload cifar10 $1 -"
        # shellcheck disable=SC2086  # to be expanded, in that directory
        (cd "$cifar10" && cat $2) | ovrctl upload cifar10 "$1" - ;;
    *)
        command_line "ovrctl upload cifar10 $1 $cifar10/$2"
        ovrctl upload cifar10 "$1" "$cifar10/$2" ;;
    esac
}

upload_cifar10() {
    upload_split train "$train_files" || return 1
    upload_split test "$test_files" || return 1
    # Only what was unpacked here a moment ago.
    rm -rf "$dir/cifar10"
}

# --- curl ----------------------------------------------------------------------------------------------

# try COMMAND: prints the command, runs it, shows the beginning of what it says.
try() {
    command_line "$1"
    sh -c "$1" >"$dir/answer" || die "that curl command failed"
    [ -s "$dir/answer" ] || return 0
    more=
    [ "$(wc -c <"$dir/answer")" -le 400 ] || more=' …'
    { head -c 400 "$dir/answer" | tr -s '\n ' ' '; echo "$more"; } | fold -s -w 100
}

show_curl() {
    url=$OVRD_URL/v1/experiments/$1
    try "curl -fsS $url/metrics"
    try "curl -fsS $url/histogram"
    try "curl -fsS $url/weights"
    tensor=$(grep -o '"name" *: *"[^"]*"' "$dir/answer" | head -n 1 | cut -d '"' -f 4)
    try "curl -fsS '$url/weights/$tensor?rows=0:2'"
    file=$dir/$tensor.npy
    try "curl -fsS -o $file '$url/weights/$tensor?format=npy'"
    # The header of this format is text.
    say "$(wc -c <"$file" | tr -d ' ') bytes for numpy.load(): $(head -c 128 "$file" |
        LC_ALL=C sed -n '1s/.*\({.*}\).*/\1/p')"
}

# --- the demonstration ---------------------------------------------------------------------------------

for program in ovrd ovrctl; do
    [ -x "build/$program" ] || die "build/$program is not there; run make first"
done

heading "1. A daemon of our own"
start_daemon
say "On a free port, with an empty data directory in $dir:" \
    "nothing else on this machine is touched. It serves $OVRD_URL"

heading "2. A classifier of points on the sphere"
say "5000 points, 25 cells, 10 classes. Nothing in its loss asks for sparsity;" \
    "watch how much of the hidden code becomes zero all the same."
run_experiment examples/demo.json

heading "3. An OVR-Encoder"
say "It learns without labels and without a decoder: each sample's code is to point away from the" \
    "others' in its batch. Then a linear probe is trained on the code, to see what it is worth."
spec=examples/demo-encoder-cifar10.json
if find_cifar10; then
    upload_cifar10 || die "the upload failed"
else
    say "CIFAR-10 is not here (set OVRD_CIFAR10 to its directory), so it learns the sphere's points."
    spec=examples/demo-encoder-sphere.json
fi
run_experiment "$spec"

heading "4. The same results with curl, for your own programs"
show_curl "$id"

heading "Done in $(($(date +%s) - started)) s."
say "Your turn: build/ovrd --data-dir DIR --listen 127.0.0.1:8080, then post a spec; examples/ has more."
