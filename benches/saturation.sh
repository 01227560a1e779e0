#!/usr/bin/env bash
# Do saturated proxies cost elections? Three nodes of the release build on loopback, one nginx behind them, one wrk before each, for
# SECONDS (600): how many elections the nodes counted meanwhile, and how many of them while the machine starved a node. Needs wrk and
# nginx (Debian: wrk, nginx-light).
#
#     cargo build --release && benches/saturation.sh [SECONDS]
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-600}
program=${CARGO_TARGET_DIR:-target}/release/raftgate
. benches/three-nodes.sh
need wrk nginx curl
start_nginx 'server { listen 127.0.0.1:18590; location / { return 200 "ok"; } }'
start_nodes "$program" "" :
"$program" route set --server 127.0.0.1:18581 --to 127.0.0.1:18590 --wait all >"$work/route" 2>&1 ||
    { cat "$work/route" "$work"/node*.log >&2; exit 1; }
for id in 1 2 3; do
    for _ in $(seq 100); do
        curl -fs -o "$work/answer" "127.0.0.1:1859$id/" && break
        sleep 0.1
    done
done

elections() {
    for id in 1 2 3; do
        echo "node $id: $(curl -fs "127.0.0.1:1858$id/metrics" | grep -E '^raftgate_raft_(term|elections_total)' | tr '\n' ' ')"
    done
}
echo "before:"
elections
clients=()
for id in 1 2 3; do
    wrk -t1 -c64 -d"${seconds}s" "http://127.0.0.1:1859$id/" >"$work/wrk$id" & clients+=($!)
done
sleep $((seconds / 2))
echo "half of the time: load average $(cut -d' ' -f1 /proc/loadavg)"
wait "${clients[@]}"
echo "after $seconds s:"
elections
for id in 1 2 3; do
    echo "node $id: $(grep -E 'Requests/sec|Non-2xx|Socket errors' "$work/wrk$id" | tr '\n' ' ')"
done
