//! From what was read to what can be run: defaults, ranges, and what does not go together.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use ipnet::IpNet;

use super::file::{
    AdminFile, AdminTlsFile, ClusterFile, EscapedSlashesChoice, ListenerFile, NodeFile, PeerTlsFile, SecretsFile,
    StorageFailureChoice, TokenFile, TracingFile,
};
use super::listener_tls;
use super::{
    AccessLogConfig, AdminConfig, AdminTlsConfig, AdminToken, ClusterConfig, ConfigError, EscapedSlashes, ListenerConfig,
    NodeConfig, OnStorageFailure, PeerTlsConfig, SecretsConfig, TracingConfig,
};
use crate::model::spec::hostname_or_wildcard;

/// The longest span that any key takes: a day.
const SPAN_MAX: Duration = Duration::from_secs(86_400);

/// Sealing keys that are kept beside the present one.
const PREVIOUS_KEYS_MAX: usize = 16;

type Checked<T> = Result<T, ConfigError>;

/// Checks everything that one node can know by itself.
pub(super) fn resolve(file: NodeFile) -> Checked<NodeConfig> {
    if file.node_id == Some(0) {
        return Err(ConfigError::key("node_id", "must be at least 1"));
    }
    let workers = file.workers.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from).min(1024));
    within("workers", workers, 1, 1024)?;
    let cold_start_wait = span("cold_start_wait", file.cold_start_wait.map(|s| s.0), Duration::from_secs(1), Duration::ZERO)?;
    let config = NodeConfig {
        node_id: file.node_id,
        data_dir: file.data_dir,
        cluster: cluster(file.cluster, file.node_id)?,
        admin: admin(file.admin)?,
        listeners: listeners(file.listener)?,
        insecure: file.insecure,
        workers,
        cold_start_wait,
        access_log: AccessLogConfig { path: file.access_log.path },
        tracing: file.tracing.map(tracing).transpose()?,
        secrets: secrets(file.secrets)?,
        on_storage_failure: match file.on_storage_failure {
            Some(StorageFailureChoice::Exit) => OnStorageFailure::Exit,
            Some(StorageFailureChoice::Serve) | None => OnStorageFailure::Serve,
        },
        log: file.log.unwrap_or_else(|| "info,openraft=warn".to_owned()),
    };
    exposure(&config)?;
    addresses_differ(&config)?;
    Ok(config)
}

fn tracing(file: TracingFile) -> Checked<TracingConfig> {
    let endpoint = file.otlp_endpoint.ok_or_else(|| ConfigError::key("tracing.otlp_endpoint", "is missing"))?;
    let refused = |message| ConfigError::key("tracing.otlp_endpoint", format!("`{endpoint}` {message}"));
    if endpoint.starts_with("https://") {
        return Err(refused("is not served yet: send spans in clear text to a collector beside the node, which passes them on"));
    }
    let address = endpoint.strip_prefix("http://").map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    if address.is_none_or(|address| host_and_port("tracing.otlp_endpoint", address).is_err()) {
        return Err(refused("is not the address of a collector of OTLP over gRPC, such as http://127.0.0.1:4317"));
    }
    let ratio = file.sample_ratio.unwrap_or(1.0);
    if !(0.0..=1.0).contains(&ratio) {
        return Err(ConfigError::key("tracing.sample_ratio", format!("is {ratio}, and must be from 0 to 1")));
    }
    let service_name = file.service_name.unwrap_or_else(|| "raftgate".to_owned());
    if service_name.is_empty() || service_name.len() > 253 {
        return Err(ConfigError::key("tracing.service_name", "must be 1 to 253 bytes"));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1,000,000")]
    let sampled_per_million = (ratio * 1e6).round() as u32;
    Ok(TracingConfig { otlp_endpoint: endpoint, sampled_per_million, service_name })
}

/// Whether the files hold keys is seen when the node starts.
fn secrets(file: SecretsFile) -> Checked<SecretsConfig> {
    let SecretsFile { key_file, previous_key_files } = file;
    if key_file.is_none() && !previous_key_files.is_empty() {
        let message = "only opens what was sealed before: `secrets.key_file` names the key that seals now";
        return Err(ConfigError::key("secrets.previous_key_files", message));
    }
    within("secrets.previous_key_files", previous_key_files.len(), 0, PREVIOUS_KEYS_MAX)?;
    Ok(SecretsConfig { key_file, previous_key_files })
}

fn cluster(file: ClusterFile, node_id: Option<u64>) -> Checked<ClusterConfig> {
    let name = file.name.unwrap_or_else(|| "raftgate".to_owned());
    if name.is_empty() || name.len() > 253 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        return Err(ConfigError::key("cluster.name", "must be 1 to 253 characters of letters, digits, `-`, `.` and `_`"));
    }
    let initial_members = members(file.initial_members, node_id)?;
    for (key, address) in [("cluster.join", &file.join), ("cluster.advertise", &file.advertise)] {
        address.as_ref().map_or(Ok(()), |address| host_and_port(key, address))?;
    }
    if file.join.is_some() && !initial_members.is_empty() {
        let message = "joins a running cluster, `cluster.initial_members` forms a new one: leave one of them out";
        return Err(ConfigError::key("cluster.join", message));
    }
    if file.advertise.is_some() && !initial_members.is_empty() {
        let message = "is for a node that joins; where peers reach this one stands in `cluster.initial_members`";
        return Err(ConfigError::key("cluster.advertise", message));
    }
    let short = Duration::from_millis(5);
    let heartbeat = span("cluster.heartbeat", file.heartbeat.map(|s| s.0), Duration::from_millis(50), short)?;
    let min = file.election_timeout_min.map(|s| s.0);
    let max = file.election_timeout_max.map(|s| s.0);
    let election_timeout_min = span("cluster.election_timeout_min", min, Duration::from_millis(150), short)?;
    let election_timeout_max = span("cluster.election_timeout_max", max, Duration::from_millis(250), short)?;
    if election_timeout_min < heartbeat * 2 {
        return Err(ConfigError::key("cluster.election_timeout_min", "must be at least twice `cluster.heartbeat`"));
    }
    if election_timeout_max <= election_timeout_min {
        return Err(ConfigError::key("cluster.election_timeout_max", "must be longer than `cluster.election_timeout_min`"));
    }
    let peer_address = address("cluster.peer_address", file.peer_address)?;
    let is_advertised = file.advertise.is_some() || !initial_members.is_empty();
    if peer_address.ip().is_unspecified() && !is_advertised {
        let message = format!("is missing; peers cannot reach this node at {peer_address}");
        return Err(ConfigError::key("cluster.advertise", message));
    }
    let (advertise, join) = (file.advertise, file.join);
    Ok(ClusterConfig {
        name,
        peer_address,
        advertise,
        initial_members,
        join,
        heartbeat,
        election_timeout_min,
        election_timeout_max,
        tls: file.tls.map(|PeerTlsFile { ca, cert, key }| PeerTlsConfig { ca, cert, key }),
    })
}

fn members(file: BTreeMap<String, String>, node_id: Option<u64>) -> Checked<BTreeMap<u64, String>> {
    const KEY: &str = "cluster.initial_members";
    let mut members = BTreeMap::new();
    let mut addresses = BTreeSet::new();
    for (id, address) in file {
        let key = format!("{KEY}.{id}");
        let number = id.parse::<u64>().ok().filter(|number| *number > 0 && number.to_string() == id);
        let number = number.ok_or_else(|| ConfigError::key(&key, "a member's id is a number from 1"))?;
        host_and_port(&key, &address)?;
        if !addresses.insert(address.clone()) {
            return Err(ConfigError::key(key, format!("another member has the address {address} too")));
        }
        members.insert(number, address);
    }
    if members.is_empty() {
        return Ok(members);
    }
    let node_id =
        node_id.ok_or_else(|| ConfigError::key("node_id", "is missing; it says which of `cluster.initial_members` this is"))?;
    if !members.contains_key(&node_id) {
        return Err(ConfigError::key(KEY, format!("node_id is {node_id}, and no member has that id")));
    }
    Ok(members)
}

fn admin(file: AdminFile) -> Checked<AdminConfig> {
    if let Some(advertise) = &file.advertise {
        host_and_port("admin.advertise", advertise)?;
    }
    let tokens = tokens(file.tokens)?;
    let tls = file.tls.map(|AdminTlsFile { cert, key, client_ca }| AdminTlsConfig { cert, key, client_ca });
    Ok(AdminConfig { address: address("admin.address", file.address)?, tokens, advertise: file.advertise, tls })
}

fn tokens(file: Vec<TokenFile>) -> Checked<Vec<AdminToken>> {
    let mut names = BTreeSet::new();
    let mut secrets = BTreeSet::new();
    for (index, token) in file.iter().enumerate() {
        if token.name.is_empty() || token.name.len() > 128 || !token.name.bytes().all(|b| b.is_ascii_graphic()) {
            let message = "must be 1 to 128 characters of visible ASCII";
            return Err(ConfigError::key(format!("admin.tokens[{index}].name"), message));
        }
        if !names.insert(&token.name) {
            let message = format!("`{}` stands twice", token.name);
            return Err(ConfigError::key(format!("admin.tokens[{index}].name"), message));
        }
        let key = || format!("admin.tokens[{index}].token");
        if token.token.is_empty() || token.token.len() > 1024 || !token.token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(ConfigError::key(key(), "must be 1 to 1024 characters of visible ASCII"));
        }
        if !secrets.insert(&token.token) {
            return Err(ConfigError::key(key(), "another caller has the same token"));
        }
    }
    Ok(file.into_iter().map(|TokenFile { name, token }| AdminToken { name, token }).collect())
}

fn listeners(file: Vec<ListenerFile>) -> Checked<Vec<ListenerConfig>> {
    if file.is_empty() {
        return Err(ConfigError::key("listener", "is missing; the proxy needs at least one [[listener]]"));
    }
    let listeners: Vec<_> = file.into_iter().enumerate().map(|(index, file)| listener(index, file)).collect::<Checked<_>>()?;
    let mut names = BTreeSet::new();
    for (index, listener) in listeners.iter().enumerate() {
        if !names.insert(&listener.name) {
            let message = format!("another listener is named `{}` too", listener.name);
            return Err(ConfigError::key(format!("listener[{index}].name"), message));
        }
    }
    Ok(listeners)
}

fn listener(index: usize, file: ListenerFile) -> Checked<ListenerConfig> {
    let key = |key: &str| format!("listener[{index}].{key}");
    let name = file.name.unwrap_or_else(|| "default".to_owned());
    if name.is_empty() || name.len() > 253 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        return Err(ConfigError::key(key("name"), "must be 1 to 253 characters of letters, digits, `-`, `.` and `_`"));
    }
    let hostname = file.hostname.as_deref().map(hostname_or_wildcard).transpose();
    let hostname = hostname.map_err(|message| ConfigError::key(key("hostname"), message))?;
    let header_bytes_max = file.header_bytes_max.map_or(64 * 1024, |size| usize::try_from(size.0).unwrap_or(usize::MAX));
    within(&key("header_bytes_max"), header_bytes_max, 4 * 1024, 1024 * 1024)?;
    let connections_max = file.connections_max.unwrap_or(16_384);
    within(&key("connections_max"), connections_max, 1, 1_000_000)?;
    if let Some(most) = file.connections_per_address_max {
        within(&key("connections_per_address_max"), most, 1, 1_000_000)?;
    }
    let body_rate_min = file.body_rate_min.map(|size| size.0);
    if body_rate_min == Some(0) {
        return Err(ConfigError::key(key("body_rate_min"), "must be at least 1; leave it out to ask for no least rate"));
    }
    let short = Duration::from_millis(100);
    let timeout = |name: &str, value: Option<Duration>, seconds| span(&key(name), value, Duration::from_secs(seconds), short);
    Ok(ListenerConfig {
        address: address(&key("address"), file.address)?,
        hostname,
        tls: listener_tls::resolve(&key("tls"), file.tls)?,
        http2: file.http2.unwrap_or(true),
        proxy_protocol: file.proxy_protocol,
        debug_headers: file.debug_headers,
        min_revision: file.min_revision,
        trusted_proxies: networks(&key("trusted_proxies"), &file.trusted_proxies)?,
        drain_timeout: span(&key("drain_timeout"), file.drain_timeout.map(|s| s.0), Duration::from_secs(30), Duration::ZERO)?,
        escaped_slashes: match file.escaped_slashes {
            Some(EscapedSlashesChoice::Keep) => EscapedSlashes::Keep,
            Some(EscapedSlashesChoice::Refuse) | None => EscapedSlashes::Refuse,
        },
        header_bytes_max,
        header_read_timeout: timeout("header_read_timeout", file.header_read_timeout.map(|s| s.0), 10)?,
        idle_timeout: timeout("idle_timeout", file.idle_timeout.map(|s| s.0), 60)?,
        stream_idle_timeout: timeout("stream_idle_timeout", file.stream_idle_timeout.map(|s| s.0), 300)?,
        body_bytes_max: file.body_bytes_max.map(|size| size.0),
        body_rate_min,
        body_rate_window: timeout("body_rate_window", file.body_rate_window.map(|s| s.0), 10)?,
        connections_max,
        connections_per_address_max: file.connections_per_address_max,
        name,
    })
}

/// Peers in clear text, and an admin API that shows tokens and changes to the network or asks nobody who they are, stay on loopback.
fn exposure(config: &NodeConfig) -> Checked<()> {
    if config.insecure {
        return Ok(());
    }
    let peer = config.cluster.peer_address;
    if !peer.ip().is_loopback() && config.cluster.tls.is_none() {
        let message = format!(
            "{peer} is not loopback, and peers speak in clear text: set `cluster.tls` (`raftgate certs` makes what it needs), or \
             `insecure = true` to allow it"
        );
        return Err(ConfigError::key("cluster.peer_address", message));
    }
    let admin = &config.admin;
    if admin.address.ip().is_loopback() {
        return Ok(());
    }
    let message = match &admin.tls {
        None => "is not loopback, and the admin API speaks in clear text: set `admin.tls`, or `insecure = true` to allow it",
        Some(tls) if tls.client_ca.is_none() && admin.tokens.is_empty() => {
            "is not loopback, and everybody may call: set `admin.tokens` or `admin.tls.client_ca`, or `insecure = true` to allow it"
        }
        Some(_) => return Ok(()),
    };
    Err(ConfigError::key("admin.address", format!("{} {message}", admin.address)))
}

fn addresses_differ(config: &NodeConfig) -> Checked<()> {
    let mut seen: BTreeMap<SocketAddr, &str> = BTreeMap::new();
    let fixed = [("cluster.peer_address", config.cluster.peer_address), ("admin.address", config.admin.address)];
    for (key, address) in fixed.into_iter().filter(|(_, address)| address.port() != 0) {
        if let Some(other) = seen.insert(address, key) {
            return Err(ConfigError::key(key, format!("{address} is the address of `{other}` too")));
        }
    }
    for (index, listener) in config.listeners.iter().enumerate() {
        if let Some(other) = seen.get(&listener.address) {
            let message = format!("{} is the address of `{other}` too", listener.address);
            return Err(ConfigError::key(format!("listener[{index}].address"), message));
        }
        let mut earlier = config.listeners[..index].iter().enumerate().filter(|(_, other)| shares(listener, other));
        earlier.try_for_each(|(place, other)| go_together(index, listener, place, other))?;
    }
    Ok(())
}

/// Whether two listeners stand on one socket.
fn shares(listener: &ListenerConfig, other: &ListenerConfig) -> bool {
    listener.address == other.address && listener.address.port() != 0
}

/// Listeners of one address differ in the hosts that they take, and agree on what is decided before a host is known.
fn go_together(index: usize, listener: &ListenerConfig, place: usize, other: &ListenerConfig) -> Checked<()> {
    if listener.hostname == other.hostname {
        let message = format!("{} is the address of `listener[{place}].address` too, with the same `hostname`", listener.address);
        return Err(ConfigError::key(format!("listener[{index}].address"), message));
    }
    let agreements = [
        ("trusted_proxies", listener.trusted_proxies == other.trusted_proxies),
        ("tls", listener.tls.is_some() == other.tls.is_some()),
        ("http2", listener.http2 == other.http2),
        ("proxy_protocol", listener.proxy_protocol == other.proxy_protocol),
        ("connections_max", listener.connections_max == other.connections_max),
        ("connections_per_address_max", listener.connections_per_address_max == other.connections_per_address_max),
        ("header_bytes_max", listener.header_bytes_max == other.header_bytes_max),
        ("body_rate_min", listener.body_rate_min == other.body_rate_min),
        ("body_rate_window", listener.body_rate_window == other.body_rate_window),
        ("header_read_timeout", listener.header_read_timeout == other.header_read_timeout),
        ("idle_timeout", listener.idle_timeout == other.idle_timeout),
        ("stream_idle_timeout", listener.stream_idle_timeout == other.stream_idle_timeout),
        ("drain_timeout", listener.drain_timeout == other.drain_timeout),
    ];
    match agreements.into_iter().find(|(_, agrees)| !agrees) {
        None => Ok(()),
        Some((key, _)) => {
            let message = format!("holds for a connection: it must be that of listener[{place}], which has the same address");
            Err(ConfigError::key(format!("listener[{index}].{key}"), message))
        }
    }
}

fn address(key: &str, text: Option<String>) -> Checked<SocketAddr> {
    let text = text.ok_or_else(|| ConfigError::key(key, "is missing"))?;
    text.parse().map_err(|_| ConfigError::key(key, format!("`{text}` is not an IP address and a port, such as 127.0.0.1:8080")))
}

fn host_and_port(key: &str, text: &str) -> Checked<()> {
    let named = || {
        let (host, port) = text.rsplit_once(':')?;
        let host_is_good = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        (host_is_good && port.parse::<u16>().is_ok()).then_some(())
    };
    match text.parse::<SocketAddr>().ok().map(|_| ()).or_else(named) {
        Some(()) => Ok(()),
        None => Err(ConfigError::key(key, format!("`{text}` is not host:port"))),
    }
}

fn networks(key: &str, texts: &[String]) -> Checked<Vec<IpNet>> {
    let parse = |text: &String| text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok();
    let check = |(index, text): (usize, &String)| {
        parse(text)
            .ok_or_else(|| ConfigError::key(format!("{key}[{index}]"), format!("`{text}` is not an IP address or network")))
    };
    texts.iter().enumerate().map(check).collect()
}

fn within(key: &str, value: usize, min: usize, max: usize) -> Checked<()> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(ConfigError::key(key, format!("{value} is not from {min} to {max}"))) }
}

fn span(key: &str, value: Option<Duration>, default: Duration, min: Duration) -> Checked<Duration> {
    let value = value.unwrap_or(default);
    if (min..=SPAN_MAX).contains(&value) {
        return Ok(value);
    }
    Err(ConfigError::key(key, format!("{value:?} is not from {min:?} to 24h")))
}
