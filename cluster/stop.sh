#!/usr/bin/env bash
# Stops the nodes that start.sh started, in order: each hands leadership over and drains. --clean removes their data too.
set -euo pipefail
cd "$(dirname "$0")/data" 2>/dev/null || exit 0

for id in 1 2 3; do
    [[ -f node$id.pid ]] || continue
    pid=$(<"node$id.pid")
    # A process id may belong to something else by now: look at what runs there.
    if ! grep -qa raftgate "/proc/$pid/cmdline" 2>/dev/null; then
        rm -f "node$id.pid"
        continue
    fi
    kill "$pid"
    for _ in $(seq 400); do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    if kill -0 "$pid" 2>/dev/null; then
        echo "node $id (pid $pid) does not stop" >&2
        exit 1
    fi
    rm -f "node$id.pid"
    echo "node $id stopped"
done
if [[ ${1:-} == --clean ]]; then
    rm -rf node1 node2 node3 node1.log node2.log node3.log
fi
