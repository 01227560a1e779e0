#!/usr/bin/env bash
# Makes a profile-guided program for distribution: compiles it once so that it counts what runs, lets three nodes of it work under load, and
# compiles it again by what was counted. About 20 minutes on two cores. The result is target/optimized/raftgate.
#
# Needs wrk, h2load and nginx (Debian: wrk, nghttp2-client, nginx-light), curl, and an llvm-profdata that reads what this compiler writes:
# `rustup component add llvm-tools`, or Debian's llvm-19 and later; PROFDATA names another one.
#
#     benches/optimize.sh
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}
host=$(rustc -vV | sed -n 's/^host: //p')
. benches/three-nodes.sh
need wrk h2load nginx curl
find_profdata() {
    local own
    own=$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata
    [ -x "$own" ] && { echo "$own"; return; }
    { command -v llvm-profdata || true; find /usr/lib/llvm-*/bin -name llvm-profdata 2>/dev/null || true; } | sort -V | tail -n 1
}
profdata=${PROFDATA:-$(find_profdata)}
[ -n "$profdata" ] || { echo "llvm-profdata is not installed: rustup component add llvm-tools" >&2; exit 1; }

build() { # KIND RUSTFLAGS
    RUSTFLAGS=$2 cargo build --profile dist --locked -p raftgate --target "$host" --target-dir "$target/$1" >&2
    echo "$target/$1/$host/dist/raftgate"
}
echo "== compile the program that counts" >&2
program=$(build counting "-Cprofile-generate=$work/counts")
export LLVM_PROFILE_FILE=$work/counts/%4m.profraw

echo "== let it work" >&2
body=$(printf 'x%.0s' {1..1024})
start_nginx "server { listen 127.0.0.1:18590; location / { return 200 \"$body\"; } }" \
    "server { listen 127.0.0.1:18589 http2; location / { return 200 \"$body\"; } }"
"$program" secrets new-key "$work/key" >"$work/key.log"
"$program" certs ca --dir "$work/certs" >"$work/ca.log"
"$program" certs node 1 --dir "$work/certs" --host localhost --host 127.0.0.1 >"$work/certs.log"
listener_of_tls() {
    cat <<TOML
[[listener]]
name = "tls"
address = "127.0.0.1:1849$1"
tls = true
[secrets]
key_file = "$work/key"
TOML
}
start_nodes "$program" "workers = 1" listener_of_tls
indented() { sed 's/^/    /' "$1"; }
{
    printf 'kind: Service\nname: one\nspec: {endpoints: [{address: "127.0.0.1:18590"}]}\n---\n'
    printf 'kind: Service\nname: two\nspec: {protocol: h2c, endpoints: [{address: "127.0.0.1:18589"}]}\n---\n'
    printf 'kind: Certificate\nname: tls\nspec:\n  default: true\n  certificate: |\n%s\n  privateKey: |\n%s\n---\n' \
        "$(indented "$work/certs/node1.pem")" "$(indented "$work/certs/node1-key.pem")"
    printf 'kind: Route\nname: two\nspec: {rules: [{matches: [{path: {value: /two/}}], backendRefs: [{name: two}]}]}\n'
    awk 'BEGIN { for (i = 1; i <= 10000; i++)
        printf "---\nkind: Route\nname: r%d\nspec: {rules: [{matches: [{path: {value: /r%d/}}], backendRefs: [{name: one}]}]}\n", i, i }'
} | "$program" --server 127.0.0.1:18581 --timeout 30s apply --wait -f - >"$work/apply" 2>&1 || { cat "$work/apply" >&2; exit 1; }
cat >"$work/routes.lua" <<'LUA'
local number = 0
request = function()
    number = number % 10000 + 1
    return wrk.format("GET", "/r" .. number .. "/a?b=c")
end
LUA
cat >"$work/post.lua" <<'LUA'
wrk.method = "POST"
wrk.body = string.rep("x", 65536)
LUA
{
    wrk -t1 -c64 -d6s http://127.0.0.1:18591/r1/
    wrk -t1 -c64 -d3s -s "$work/routes.lua" http://127.0.0.1:18592/
    wrk -t1 -c64 -d3s -s "$work/post.lua" http://127.0.0.1:18593/r1/
    wrk -t1 -c64 -d3s http://127.0.0.1:18592/two/
    wrk -t1 -c64 -d3s https://127.0.0.1:18491/r1/
    h2load -t1 -c8 -m8 -D6 http://127.0.0.1:18591/r1/
    h2load -t1 -c8 -m8 -D3 https://127.0.0.1:18492/r1/
    h2load -t1 -c8 -m8 -D3 http://127.0.0.1:18593/two/
    # Few connections at a time, and one after another.
    wrk -t1 -c1 -d2s http://127.0.0.1:18591/r2/
    wrk -t1 -c8 -d2s -H "Connection: close" http://127.0.0.1:18591/r2/
    wrk -t1 -c8 -d2s http://127.0.0.1:18591/none
} >"$work/load.log" 2>&1 || { cat "$work/load.log" >&2; exit 1; }
for number in $(seq 100); do
    "$program" --server "127.0.0.1:1858$((number % 3 + 1))" route set "again$number" --path "/again$number/" --to 127.0.0.1:18590
done >"$work/changes" 2>&1 || { cat "$work/changes" >&2; exit 1; }
for node in "${nodes[@]}"; do
    kill "$node"
    wait "$node" || { cat "$work"/node*.log >&2; exit 1; }
done

echo "== compile by what was counted" >&2
"$profdata" merge -o "$work/counts.profdata" "$work"/counts/*.profraw
unset LLVM_PROFILE_FILE
program=$(build guided "-Cprofile-use=$work/counts.profdata")
mkdir -p "$target/optimized"
cp "$program" "$target/optimized/raftgate"
echo "$target/optimized/raftgate"
