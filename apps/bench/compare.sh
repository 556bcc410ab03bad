#!/bin/sh
# Runs scenarios against several servers in turn, each on a fresh port and directory, and prints the tables.
#
#   apps/bench/compare.sh [-q] [-s "SERVER ..."] [SCENARIO ...]
#
# Servers: ours published newest samod. Scenarios: the subcommands of syncline-bench; all by default.
# -q: small sizes, a few minutes in all. Results are appended to target/bench/results.jsonl.
set -eu
cd "$(dirname "$0")/../.."

servers="ours published newest samod"
quick=""
while getopts "qs:" option; do
    case "$option" in
        q) quick=1 ;;
        s) servers="$OPTARG" ;;
        *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
scenarios="${*:-typing fanout fanout-saturate many-docs fanout-cpu cold-fetch long-text reconnect reconnect-storm idle kill}"

target="${CARGO_TARGET_DIR:-target}"
mkdir -p "$target/bench"
results="$target/bench/results.jsonl"
bench="$target/release/syncline-bench"

cargo build --release -p syncline-bench --bin syncline-bench
for server in $servers; do
    case "$server" in
        ours) cargo build --release -p syncline-server-app ;;
        samod) cargo build --release -p syncline-bench --example samod_server ;;
        published | newest) (cd "apps/bench/npm/$server" && npm ci --no-audit --no-fund) ;;
        *) echo "unknown server $server" >&2; exit 2 ;;
    esac
done

command_of() {
    case "$1" in
        ours) echo "$target/release/syncline-server --listen {listen} --data {data}" ;;
        samod) echo "$target/release/examples/samod_server --listen {listen} --data {data}" ;;
        published) echo "env PORT={port} DATA_DIR={data} node apps/bench/npm/published/node_modules/@automerge/automerge-repo-sync-server/src/index.js" ;;
        newest) echo "env PORT={port} DATA_DIR={data} node apps/bench/npm/newest/server.js" ;;
    esac
}

flags_of() {
    case "$1" in
        fanout-saturate) echo "fanout --saturate" ;;
        *) echo "$1" ;;
    esac
    [ -n "$quick" ] || return 0
    case "$1" in
        typing) echo "--users 8 --full 1 --seconds 10 --grace 5" ;;
        fanout | fanout-saturate) echo "--subscribers 100 --seconds 5 --grace 5" ;;
        many-docs) echo "--clients 100 --documents 2 --seconds 5 --grace 5 --create-within 30" ;;
        fanout-cpu) echo "--changes 2000 --seconds 5 --rate 20 --grace 10" ;;
        cold-fetch) echo "--documents 40 --upload-within 30 --within 30" ;;
        long-text) echo "--changes 5000" ;;
        reconnect) echo "--documents 200 --create-within 30 --within 30" ;;
        reconnect-storm) echo "--clients 20 --documents 5 --create-within 30 --within 30" ;;
        idle) echo "--connections 200 --documents 200 --settle 2" ;;
        kill) echo "--rounds 2" ;;
    esac
}

# Each run starts its own server and kills it, whatever happens: the server is a child of the bench.
for scenario in $scenarios; do
    for server in $servers; do
        echo "== $scenario: $server" >&2
        # shellcheck disable=SC2046 # the flags are words
        "$bench" $(flags_of "$scenario") --label "$server" --server-command "$(command_of "$server")" \
            --out "$results" >/dev/null || echo "   failed; the reason is in the results" >&2
    done
done
"$bench" table "$results"
