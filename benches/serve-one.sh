#!/usr/bin/env bash
# One node in the foreground, for a comparison with other proxies: N routes of path prefixes /svc-00001/ ... to one HTTP/1.1 backend, one
# proxy worker, metrics on, no access log. HTTP/1.1 and HTTP/2 share the port. Needs a release build.
# Usage: benches/serve-one.sh ROUTES PORT BACKEND_PORT DIR
set -euo pipefail
[ $# -eq 4 ] || { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
routes=$1 port=$2 backend=$3 dir=$4
program=${PROGRAM:-$(cd "$(dirname "$0")/.." && pwd)/target/release/raftgate}
mkdir -p "$dir"
cat > "$dir/node.toml" <<CONF
node_id = 1
data_dir = "$dir/data"
workers = 1
log = "warn"
[cluster]
name = "comparison"
peer_address = "127.0.0.1:0"
initial_members = { 1 = "127.0.0.1:0" }
[admin]
address = "127.0.0.1:0"
[[listener]]
address = "127.0.0.1:$port"
CONF
documents() {
    printf 'kind: Service\nname: backend\nspec: {endpoints: [{address: "127.0.0.1:%s"}]}\n' "$backend"
    awk -v routes="$routes" 'BEGIN {
        for (i = 1; i <= routes; i++) {
            name = sprintf("svc-%05d", i)
            printf "---\nkind: Route\nname: %s\nspec: {rules: [{matches: [{path: {type: PathPrefix, value: /%s/}}], backendRefs: [{name: backend}]}]}\n", name, name
        }
    }'
}
# Once the node answers, it gets its routes; then it is alone.
configure() {
    local admin=
    for _ in $(seq 200); do
        admin=$(sed -n 's/.*"admin": "\(.*\)".*/\1/p' "$dir/data/addresses.json" 2>/dev/null) && [ -n "$admin" ] && break
        sleep 0.05
    done
    documents | "$program" --server "$admin" apply -f - > "$dir/apply.log" 2>&1 || cat "$dir/apply.log" >&2
}
configure &
exec "$program" serve --config "$dir/node.toml"
