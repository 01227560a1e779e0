# Three nodes on loopback before an nginx, for the scripts beside this one, which source it: peers on ports 18571-3, admin on 18581-3,
# listeners on 18591-3. Everything ends with the script.
work=$(mktemp -d)
pids=()
end() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
    rm -rf "$work"
}
trap end EXIT

# need TOOL...: they are installed.
need() {
    for tool in "$@"; do
        command -v "$tool" >/dev/null || { echo "$tool is not installed" >&2; exit 1; }
    done
}

# start_nginx SERVER...: an nginx with these servers.
start_nginx() {
    cat >"$work/nginx.conf" <<NGINX
daemon off; worker_processes 1; pid $work/nginx.pid; error_log $work/nginx.log;
events { worker_connections 4096; }
http {
    access_log off; keepalive_requests 1000000000; client_max_body_size 1m; client_body_buffer_size 128k;
    client_body_temp_path $work; proxy_temp_path $work; fastcgi_temp_path $work; uwsgi_temp_path $work; scgi_temp_path $work;
    $*
}
NGINX
    nginx -c "$work/nginx.conf" & pids+=($!)
}

# start_nodes PROGRAM TOML MORE: three nodes, with this at the beginning of their configuration and what `MORE ID` prints at its end.
start_nodes() {
    nodes=()
    for id in 1 2 3; do
        cat >"$work/node$id.toml" <<TOML
node_id = $id
data_dir = "$work/node$id"
$2
[cluster]
name = "three-nodes"
peer_address = "127.0.0.1:1857$id"
initial_members = { 1 = "127.0.0.1:18571", 2 = "127.0.0.1:18572", 3 = "127.0.0.1:18573" }
[admin]
address = "127.0.0.1:1858$id"
[[listener]]
address = "127.0.0.1:1859$id"
$($3 "$id")
TOML
        "$1" serve --config "$work/node$id.toml" >"$work/node$id.log" 2>&1 & pids+=($!) nodes+=($!)
    done
    for _ in $(seq 100); do
        curl -fs -o "$work/answer" 127.0.0.1:18581/readyz/control && return
        sleep 0.1
    done
    cat "$work"/node*.log >&2
    exit 1
}
