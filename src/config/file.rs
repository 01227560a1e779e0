//! The configuration's shape in TOML, before it is checked: one struct a section, every key optional unless nothing could stand for it.
//!
//! Keys that the contract names and this version does not serve are read too, so that [`super::validate`] can say so.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::listener_tls::ListenerTlsFile;
use super::value::{Size, Span};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NodeFile {
    pub(super) node_id: Option<u64>,
    #[serde(default = "default_data_dir")]
    pub(super) data_dir: PathBuf,
    #[serde(default)]
    pub(super) cluster: ClusterFile,
    #[serde(default)]
    pub(super) admin: AdminFile,
    #[serde(default)]
    pub(super) listener: Vec<ListenerFile>,
    #[serde(default)]
    pub(super) insecure: bool,
    pub(super) workers: Option<usize>,
    pub(super) cold_start_wait: Option<Span>,
    #[serde(default)]
    pub(super) access_log: AccessLogFile,
    pub(super) tracing: Option<TracingFile>,
    #[serde(default)]
    pub(super) secrets: SecretsFile,
    pub(super) on_storage_failure: Option<StorageFailureChoice>,
    pub(super) log: Option<String>,
}

fn default_data_dir() -> PathBuf {
    PathBuf::from("data")
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClusterFile {
    pub(super) name: Option<String>,
    pub(super) peer_address: Option<String>,
    #[serde(default)]
    pub(super) initial_members: BTreeMap<String, String>,
    pub(super) join: Option<String>,
    pub(super) advertise: Option<String>,
    pub(super) heartbeat: Option<Span>,
    pub(super) election_timeout_min: Option<Span>,
    pub(super) election_timeout_max: Option<Span>,
    pub(super) tls: Option<PeerTlsFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PeerTlsFile {
    pub(super) ca: PathBuf,
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AdminFile {
    pub(super) address: Option<String>,
    #[serde(default)]
    pub(super) tokens: Vec<TokenFile>,
    pub(super) advertise: Option<String>,
    pub(super) tls: Option<AdminTlsFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AdminTlsFile {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
    pub(super) client_ca: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenFile {
    pub(super) name: String,
    pub(super) token: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListenerFile {
    pub(super) name: Option<String>,
    pub(super) address: Option<String>,
    #[serde(default)]
    pub(super) debug_headers: bool,
    #[serde(default)]
    pub(super) min_revision: bool,
    #[serde(default)]
    pub(super) trusted_proxies: Vec<String>,
    pub(super) drain_timeout: Option<Span>,
    pub(super) escaped_slashes: Option<EscapedSlashesChoice>,
    pub(super) header_bytes_max: Option<Size>,
    pub(super) header_read_timeout: Option<Span>,
    pub(super) idle_timeout: Option<Span>,
    pub(super) stream_idle_timeout: Option<Span>,
    pub(super) body_bytes_max: Option<Size>,
    pub(super) body_rate_min: Option<Size>,
    pub(super) body_rate_window: Option<Span>,
    pub(super) connections_max: Option<usize>,
    pub(super) connections_per_address_max: Option<usize>,
    pub(super) hostname: Option<String>,
    pub(super) tls: Option<ListenerTlsFile>,
    pub(super) http2: Option<bool>,
    #[serde(default)]
    pub(super) proxy_protocol: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AccessLogFile {
    pub(super) path: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TracingFile {
    pub(super) otlp_endpoint: Option<String>,
    pub(super) sample_ratio: Option<f64>,
    pub(super) service_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SecretsFile {
    pub(super) key_file: Option<PathBuf>,
    #[serde(default)]
    pub(super) previous_key_files: Vec<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum StorageFailureChoice {
    Serve,
    Exit,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum EscapedSlashesChoice {
    Refuse,
    Keep,
}
