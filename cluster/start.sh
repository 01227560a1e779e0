#!/usr/bin/env bash
# Starts the three nodes of this directory as processes; their data, logs and process ids go to cluster/data.
# Takes the release build if there is one, else the debug build; RAFTGATE_BIN names another.
set -euo pipefail
cd "$(dirname "$0")/.."

binary=${RAFTGATE_BIN:-}
if [[ -z $binary ]]; then
    for candidate in target/release/raftgate target/debug/raftgate; do
        if [[ -x $candidate ]]; then
            binary=$candidate
            break
        fi
    done
fi
if [[ -z $binary ]]; then
    echo "no raftgate in target/release or target/debug: run cargo build --release" >&2
    exit 1
fi
# It is no configuration key of a node.
unset RAFTGATE_BIN

# Whether the process of node $1 is there and has not ended: a killed one stays visible until its parent takes notice.
alive() {
    local pid
    pid=$(cat "cluster/data/node$1.pid" 2>/dev/null) && kill -0 "$pid" 2>/dev/null &&
        ! grep -qs '^State:[[:space:]]*[ZX]' "/proc/$pid/status"
}
answers() { (exec 3<>"/dev/tcp/127.0.0.1/908$1") 2>/dev/null; }

for id in 1 2 3; do
    data=cluster/data/node$id
    mkdir -p "$data"
    # One that is there and does not answer is starting or on its way out.
    for _ in $(seq 50); do
        alive "$id" && ! answers "$id" || break
        sleep 0.1
    done
    if alive "$id"; then
        echo "node $id runs already (pid $(<"$data.pid"))"
        continue
    fi
    "$binary" serve --config "cluster/node$id.toml" </dev/null >>"$data.log" 2>&1 &
    echo $! >"$data.pid"
    echo "node $id: pid $!, proxy http://127.0.0.1:808$id, admin http://127.0.0.1:908$id, log $data.log"
done

for id in 1 2 3; do
    for _ in $(seq 150); do
        if answers "$id" && "$binary" cluster status --server "127.0.0.1:908$id" 2>/dev/null | grep -q 'leader [0-9]'; then
            continue 2
        fi
        alive "$id" || break
        sleep 0.1
    done
    echo "node $id is not ready; the end of its log:" >&2
    tail -n 5 "cluster/data/node$id.log" >&2
    exit 1
done
"$binary" cluster status --server 127.0.0.1:9081
