#!/usr/bin/env bash
# What the JSON access log costs: CPU microseconds a request of one node with the log off and on, in rounds that alternate.
# Usage: benches/access_log.sh [ROUNDS] [SECONDS]. Needs wrk and nginx (Debian packages wrk, nginx-light) and a release build.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-5} seconds=${2:-4}
program=$PWD/target/release/raftgate
work=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT

head -c 1024 /dev/zero | tr '\0' x > "$work/body"
cat > "$work/nginx.conf" <<CONF
worker_processes 1; daemon off; pid $work/nginx.pid; error_log $work/nginx.log;
events { worker_connections 1024; }
http {
  access_log off; keepalive_requests 100000000;
  server { listen 127.0.0.1:18480; location / { root $work; try_files /body =404; } }
}
CONF
nginx -c "$work/nginx.conf" -e "$work/nginx.log" &
pids+=($!)

# start NAME PORT-OFFSET EXTRA-CONFIGURATION: a node with one route to the backend.
start() {
    cat > "$work/$1.toml" <<CONF
node_id = 1
data_dir = "$work/$1"
workers = 1
log = "warn"
[cluster]
name = "$1"
peer_address = "127.0.0.1:$((18400 + $2))"
initial_members = { 1 = "127.0.0.1:$((18400 + $2))" }
[admin]
address = "127.0.0.1:$((18410 + $2))"
[[listener]]
address = "127.0.0.1:$((18420 + $2))"
$3
CONF
    "$program" serve --config "$work/$1.toml" &
    pids+=($!)
    for _ in $(seq 200); do
        RAFTGATE_SERVER="127.0.0.1:$((18410 + $2))" "$program" route set all --path / --to 127.0.0.1:18480 >/dev/null 2>&1 && return
        sleep 0.05
    done
    echo "node $1 does not answer" >&2
    exit 1
}
ticks() { awk '{print $14 + $15}' "/proc/$1/stat"; }
# measure PID PORT: CPU microseconds a request.
measure() {
    local before requests
    before=$(ticks "$1")
    requests=$(wrk -t1 -c16 -d"${seconds}s" "http://127.0.0.1:$2/" | awk '/requests in/ {print $1}')
    echo $(( ($(ticks "$1") - before) * 1000000 / $(getconf CLK_TCK) )) "$requests" | awk '{printf "%.2f\n", $1 / $2}'
}

start off 1 ""
off=${pids[-1]}
start on 2 "[access_log]
path = \"$work/access.log\""
on=${pids[-1]}
for _ in $(seq "$rounds"); do
    measure "$off" 18421 >> "$work/off.us"
    measure "$on" 18422 >> "$work/on.us"
done
for mode in off on; do
    sort -n "$work/$mode.us" | awk -v mode="$mode" '{v[NR] = $1} END {printf "access log %-3s  %.2f us a request (%.2f-%.2f)\n", mode, v[int((NR + 1) / 2)], v[1], v[NR]}'
done
lines=$(wc -l < "$work/access.log")
echo "$lines lines were written"
