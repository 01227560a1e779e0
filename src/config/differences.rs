//! Which keys two configurations have otherwise.
//!
//! The structs are taken apart without a rest, so that a new key is not forgotten here.

use super::{AccessLogConfig, AdminConfig, ClusterConfig, NodeConfig, SecretsConfig};

/// Keys of `new` that differ from those of `old`. Listeners are left out.
pub(super) fn of(old: &NodeConfig, new: &NodeConfig) -> Vec<&'static str> {
    let NodeConfig {
        node_id,
        data_dir,
        cluster,
        admin,
        listeners: _,
        insecure,
        workers,
        cold_start_wait,
        access_log: AccessLogConfig { path },
        tracing,
        secrets: SecretsConfig { key_file, previous_key_files },
        on_storage_failure,
        log,
    } = old;
    let own = [
        ("node_id", *node_id == new.node_id),
        ("data_dir", *data_dir == new.data_dir),
        ("insecure", *insecure == new.insecure),
        ("workers", *workers == new.workers),
        ("cold_start_wait", *cold_start_wait == new.cold_start_wait),
        ("access_log.path", *path == new.access_log.path),
        ("tracing", *tracing == new.tracing),
        ("secrets.key_file", *key_file == new.secrets.key_file),
        ("secrets.previous_key_files", *previous_key_files == new.secrets.previous_key_files),
        ("on_storage_failure", *on_storage_failure == new.on_storage_failure),
        ("log", *log == new.log),
    ];
    let all = own.into_iter().chain(of_cluster(cluster, &new.cluster)).chain(of_admin(admin, &new.admin));
    all.filter(|(_, is_equal)| !is_equal).map(|(key, _)| key).collect()
}

fn of_cluster(old: &ClusterConfig, new: &ClusterConfig) -> impl Iterator<Item = (&'static str, bool)> + use<> {
    let ClusterConfig {
        name,
        peer_address,
        advertise,
        initial_members,
        join,
        heartbeat,
        election_timeout_min,
        election_timeout_max,
        tls,
    } = old;
    let keys = [
        ("cluster.name", *name == new.name),
        ("cluster.peer_address", *peer_address == new.peer_address),
        ("cluster.advertise", *advertise == new.advertise),
        ("cluster.initial_members", *initial_members == new.initial_members),
        ("cluster.join", *join == new.join),
        ("cluster.heartbeat", *heartbeat == new.heartbeat),
        ("cluster.election_timeout_min", *election_timeout_min == new.election_timeout_min),
        ("cluster.election_timeout_max", *election_timeout_max == new.election_timeout_max),
        ("cluster.tls", *tls == new.tls),
    ];
    keys.into_iter()
}

fn of_admin(old: &AdminConfig, new: &AdminConfig) -> impl Iterator<Item = (&'static str, bool)> + use<> {
    let AdminConfig { address, tokens, advertise, tls } = old;
    let keys = [
        ("admin.address", *address == new.address),
        ("admin.tokens", *tokens == new.tokens),
        ("admin.advertise", *advertise == new.advertise),
        ("admin.tls", *tls == new.tls),
    ];
    keys.into_iter()
}
