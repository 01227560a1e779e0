//! A node's configuration: what one process is told when it starts.
//!
//! It is read when the process starts, and again for its listeners alone at SIGHUP, from three places that each override the one before: a TOML file, `RAFTGATE_...` variables of the environment,
//! and flags. [`source`] merges them into one TOML value, [`mod@file`] gives that value its shape (an unknown key is an error that names
//! the key), [`validate`] resolves it into the types below and refuses what cannot work or is not served yet. Nothing else in the
//! program reads the environment or the file.
//!
//! A variable's name is the key's path in upper case with two underscores between sections: `RAFTGATE_NODE_ID`,
//! `RAFTGATE_ADMIN__ADDRESS`, `RAFTGATE_LISTENER__0__ADDRESS`. Its value is TOML where it reads as a number, a boolean, a quoted string,
//! an array or an inline table, and the bare text otherwise.

mod differences;
mod file;
mod listener_tls;
mod source;
#[cfg(test)]
mod tests;
mod validate;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use thiserror::Error;

pub use source::Overrides;

pub use crate::model::path::EscapedSlashes;

/// Everything that a node is told. Keys of the file have the fields' names, but for `listeners`, which is `[[listener]]` there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// This node's id in its cluster; at least 1. A node that joins a running cluster may leave it out and gets one from the cluster.
    pub node_id: Option<u64>,
    /// Where everything that must survive stands. Default `data`.
    pub data_dir: PathBuf,
    /// Its place among the other nodes.
    pub cluster: ClusterConfig,
    /// The admin API.
    pub admin: AdminConfig,
    /// Where the proxy listens; never empty.
    pub listeners: Vec<ListenerConfig>,
    /// Allows peers in clear text, and an admin API in clear text or open to everybody, on addresses that are not loopback. Default false.
    pub insecure: bool,
    /// Proxy threads; 1 to 1,024. Default: the processor's cores.
    pub workers: usize,
    /// How long a restarted node waits for recovery before it serves what its disk says was committed. Default 1 s.
    pub cold_start_wait: Duration,
    /// The access log.
    pub access_log: AccessLogConfig,
    /// OpenTelemetry traces. Default: none.
    pub tracing: Option<TracingConfig>,
    /// The keys that seal secrets of resources.
    pub secrets: SecretsConfig,
    /// What happens after a storage error. Default [`OnStorageFailure::Serve`].
    pub on_storage_failure: OnStorageFailure,
    /// Filter of the program's own log, as `tracing-subscriber` reads it. Default `info,openraft=warn`. Each warning of the Raft library passes
    /// once a minute at most.
    pub log: String,
}

impl NodeConfig {
    /// Reads the file (if any), the environment and the flags, and checks the whole.
    ///
    /// Errors: the file that cannot be read, or the first key that is unknown, of a wrong type, out of range, or not served yet.
    pub fn load(path: Option<&Path>, overrides: Overrides) -> Result<NodeConfig, ConfigError> {
        source::load(path, source::environment(), overrides)
    }

    /// Keys beside the listeners that `other` has otherwise.
    pub fn differences(&self, other: &NodeConfig) -> Vec<&'static str> {
        differences::of(self, other)
    }
}

/// A node among its peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Nodes of a cluster with another name are refused. Default `raftgate`.
    pub name: String,
    /// Where this node listens for its peers.
    pub peer_address: SocketAddr,
    /// `host:port` under which peers reach this node when it joins a running cluster. Default: `peer_address`.
    pub advertise: Option<String>,
    /// `host:port` of every member of a cluster that is to be formed, this node's own among them. Empty: this node joins a running cluster.
    pub initial_members: BTreeMap<u64, String>,
    /// Peer address of any member of the cluster to join. Without it, and without initial members, an empty node waits until it is added.
    /// A node that belongs to a cluster already has no more use for it.
    pub join: Option<String>,
    /// Between a leader's signs of life. Default 50 ms.
    pub heartbeat: Duration,
    /// The shortest time without a leader before an election. Default 150 ms.
    pub election_timeout_min: Duration,
    /// The longest time without a leader before an election, and the leader's lease. Default 250 ms.
    pub election_timeout_max: Duration,
    /// Mutual TLS with the peers. All nodes have it or none; without it `peer_address` must be loopback, or `insecure` set.
    pub tls: Option<PeerTlsConfig>,
}

/// `cluster.tls`: who this node is among its peers. Files are PEM; they are looked at every few seconds, and what changed holds for
/// connections that are made from then on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerTlsConfig {
    /// The CAs of the cluster's nodes. More than one while a new CA takes over.
    pub ca: PathBuf,
    /// This node's certificate, its chain after it. Its alternative names have the host by which peers reach this node, and the URI
    /// `raftgate://CLUSTER/node/N` with `cluster.name` and `node_id`. A node that joins without `node_id` takes its id from there.
    pub cert: PathBuf,
    /// The certificate's key.
    pub key: PathBuf,
}

/// The admin API's address and callers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where it listens.
    pub address: SocketAddr,
    /// Who may call, by token. Empty, and without `tls.client_ca`: everybody who can reach the address.
    pub tokens: Vec<AdminToken>,
    /// `host:port` under which others reach it, for `/v1/cluster`. Default: the bound address.
    pub advertise: Option<String>,
    /// HTTPS in place of HTTP. Off loopback it is needed, and with it `tokens` or `client_ca`, unless `insecure` is set.
    pub tls: Option<AdminTlsConfig>,
}

/// `admin.tls`: the admin API's certificate. Files are PEM, and looked at again as those of [`PeerTlsConfig`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminTlsConfig {
    /// The certificate, its chain after it.
    pub cert: PathBuf,
    /// The certificate's key.
    pub key: PathBuf,
    /// The CAs of callers. A caller that shows a certificate of theirs needs no token, and history knows it by the certificate's common
    /// name (or else its first name). One that shows none needs a token; health (`/livez`, `/readyz`) answers everybody.
    pub client_ca: Option<PathBuf>,
}

/// A caller of the admin API, known by `Authorization: Bearer TOKEN`.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminToken {
    /// Stands as the actor in history; unique.
    pub name: String,
    /// The secret; visible ASCII.
    pub token: String,
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminToken").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A place where the proxy takes requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerConfig {
    /// What routes call it in `listeners`; unique. Default `default`.
    pub name: String,
    /// Where it listens. Listeners that share an address differ in `hostname` and agree on what holds for a connection: whether there is
    /// `tls`, `http2`, `proxy_protocol`, `trusted_proxies`, `connections_max`, `connections_per_address_max`, `header_bytes_max`, `body_rate_*` and
    /// all timeouts.
    pub address: SocketAddr,
    /// Takes the requests for these hosts, where no listener of the address has a more specific one (Gateway API's listener isolation).
    /// Default: all hosts.
    pub hostname: Option<String>,
    /// Speaks TLS alone, with the `Certificate` resources of the table. `tls = true` takes every default; a section `[listener.tls]` under the
    /// listener says more. Default `false`: clear text.
    pub tls: Option<ListenerTlsConfig>,
    /// Whether HTTP/2 is spoken beside HTTP/1.1: over TLS by ALPN, in clear text by prior knowledge (RFC 9113 3.3). Default true.
    pub http2: bool,
    /// Demands a header of the PROXY protocol, version 1 or 2, of every connection, and takes the client's address from it: for a listener
    /// that only load balancers reach. Default false.
    pub proxy_protocol: bool,
    /// Adds `Raftgate-Revision` to every answer. Default false.
    pub debug_headers: bool,
    /// Honours `Raftgate-Min-Revision` of requests. Default false.
    pub min_revision: bool,
    /// Clients whose `X-Forwarded-*` are believed. Default none.
    pub trusted_proxies: Vec<IpNet>,
    /// How long requests under way may take to end at shutdown. Default 30 s.
    pub drain_timeout: Duration,
    /// What happens to `%2F` and `%5C` in paths. Default `"refuse"`.
    pub escaped_slashes: EscapedSlashes,
    /// Bytes of a request's head at most; 4 KiB to 1 MiB. Default 64 KiB.
    pub header_bytes_max: usize,
    /// How long a client may take to send a request's head. Default 10 s.
    pub header_read_timeout: Duration,
    /// How long a connection may stand without a request. Default 60 s.
    pub idle_timeout: Duration,
    /// How long an exchange may stand still, without a byte either way. Default 300 s.
    pub stream_idle_timeout: Duration,
    /// Bytes of a request's body at most, where the rule has no `limits.maxRequestBody` of its own. Default: no limit, for bodies are
    /// streamed.
    pub body_bytes_max: Option<u64>,
    /// Bytes a second that a client has to send of a request's body, and to take of an answer, while it alone is waited for; a slower one is
    /// given up. gRPC calls and tunnels are exempt: they may be silent. `"240B"` is what Kestrel asks for, 500 what Apache does. Default: no
    /// least rate, as in nginx, HAProxy and Envoy.
    pub body_rate_min: Option<u64>,
    /// How far behind `body_rate_min` a client may be. Default 10 s.
    pub body_rate_window: Duration,
    /// Connections open at once, at most. Default 16,384.
    pub connections_max: usize,
    /// Connections open at once from one IPv4 address or one /64 of IPv6, at most. Default: no limit of its own.
    pub connections_per_address_max: Option<usize>,
}

/// How a listener speaks TLS. Which certificate it shows is not said here: that is the table's, by the name that the client asks for (SNI).
/// Where listeners share an address, the one that this name selects decides by its own section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerTlsConfig {
    /// The least version that is spoken: `"1.2"` or `"1.3"`. Default `"1.2"`.
    pub min_version: TlsVersion,
    /// Cipher suites by their IANA names, such as `TLS_AES_128_GCM_SHA256`. Empty (the default): all that are supported, each of which
    /// is good. Among those that both sides know the client's order decides.
    pub cipher_suites: Vec<String>,
    /// Asks clients for a certificate that one of the CAs in this PEM file signed, and passes it on as `X-Forwarded-Client-Cert`. Read at
    /// the start and at SIGHUP. Default: clients are not asked.
    pub client_ca: Option<PathBuf>,
    /// Whether a client may come without a certificate: `"require"` or `"request"`. One that is shown must be good either way. Needs
    /// `client_ca`. Default `"require"`.
    pub client_auth: ClientAuth,
    /// Lets clients resume sessions (RFC 8446 2.2, RFC 5077). The key of the tickets is made in the process and changes every six hours.
    /// Default true.
    pub session_tickets: bool,
}

impl Default for ListenerTlsConfig {
    fn default() -> ListenerTlsConfig {
        ListenerTlsConfig {
            min_version: TlsVersion::Tls12,
            cipher_suites: Vec::new(),
            client_ca: None,
            client_auth: ClientAuth::Require,
            session_tickets: true,
        }
    }
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// Whether clients of a listener need a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// The handshake fails without one.
    Require,
    /// It goes on without one.
    Request,
}

/// One JSON object a request, off by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLogConfig {
    /// The file that lines are appended to; `-` is the standard output. `None`: no access log.
    pub path: Option<PathBuf>,
}

/// A span for each sampled request, sent by OTLP over gRPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracingConfig {
    /// The collector, as `http://HOST:PORT`: one beside the node, for spans go in clear text.
    pub otlp_endpoint: String,
    /// Of a million requests without a `traceparent`, how many are sampled: `tracing.sample_ratio` (0 to 1, default 1) in millionths. Requests
    /// with one are sampled where it says so.
    pub sampled_per_million: u32,
    /// `service.name` of the spans. Default `raftgate`.
    pub service_name: String,
}

/// Files of sealing keys, each 32 random bytes as base64 or hexadecimal digits; `raftgate secrets new-key FILE` makes one. All nodes of a
/// cluster need the same.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SecretsConfig {
    /// The key that seals. Without it a node takes no resources with secrets, and does not serve them. Default: none.
    pub key_file: Option<PathBuf>,
    /// Keys that were used before, which only open what was sealed with them. Default none.
    pub previous_key_files: Vec<PathBuf>,
}

/// What a node does when its disk failed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnStorageFailure {
    /// The proxy goes on with its last table; Raft has stopped.
    #[default]
    Serve,
    /// The process drains and exits with status 1.
    Exit,
}

/// Why a configuration was refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration file {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("configuration file {path}: {source}")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        source: toml::de::Error,
    },
    /// A key is unknown, missing, or has a wrong value.
    #[error("configuration key `{key}`{origin}: {message}")]
    Key {
        /// Its path: `listener[0].address`.
        key: String,
        /// ` (from RAFTGATE_...)` where the environment gave it, else empty.
        origin: String,
        /// What is wrong.
        message: String,
    },
}

impl ConfigError {
    fn key(key: impl Into<String>, message: impl Into<String>) -> ConfigError {
        ConfigError::Key { key: key.into(), origin: String::new(), message: message.into() }
    }
}
