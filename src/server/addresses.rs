//! The addresses of a node: taken before anything else is done, and written down for whoever started it with port 0.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use serde::Serialize;
use tokio::net::TcpListener;

use super::{ServerError, system};
use crate::config::{ListenerConfig, NodeConfig};
use crate::proxy::{self, BindError, BoundListener, ListenerOptions, Tls};

/// Every socket of a node, bound.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) peer: TcpListener,
    pub(super) admin: TcpListener,
    pub(super) listeners: Vec<BoundListener>,
    /// The listeners' names, each with its place in `listeners`.
    names: Vec<(String, usize)>,
}

impl Bound {
    /// Binds them all, or says which key has an address that cannot be had.
    pub(super) async fn take(config: &NodeConfig) -> Result<Bound, ServerError> {
        let peer = listen("cluster.peer_address", config.cluster.peer_address).await?;
        let admin = listen("admin.address", config.admin.address).await?;
        let mut bound = Bound { peer, admin, listeners: Vec::new(), names: Vec::new() };
        for (index, listener) in config.listeners.iter().enumerate() {
            bound.add(index, listener, config.workers)?;
        }
        Ok(bound)
    }

    /// Binds a listener, or lets it share the address of one before it.
    fn add(&mut self, index: usize, listener: &ListenerConfig, workers: usize) -> Result<(), ServerError> {
        let shared = self.listeners.iter().position(|bound| bound.address() == listener.address);
        let place = shared.unwrap_or(self.listeners.len());
        let options = options(index, listener)?;
        match self.listeners.get_mut(place) {
            Some(bound) => bound.share(options),
            None => {
                let bound = proxy::bind(options, listener.address, workers);
                self.listeners.push(bound.map_err(|BindError { address, source, .. }| {
                    let key = format!("listener[{index}].address");
                    ServerError::Bind { key, address, source }
                })?);
            }
        }
        self.names.push((listener.name.clone(), place));
        Ok(())
    }

    /// Where they are, ports resolved.
    pub(super) fn addresses(&self) -> Result<Addresses, ServerError> {
        let local = |listener: &TcpListener| listener.local_addr().map_err(system("a bound address"));
        let listeners = self.names.iter().map(|(name, place)| (name.clone(), self.listeners[*place].address())).collect();
        Ok(Addresses { peer: local(&self.peer)?, admin: local(&self.admin)?, listeners })
    }
}

/// Where a node listens.
#[derive(Debug, Serialize)]
pub(super) struct Addresses {
    pub(super) peer: SocketAddr,
    pub(super) admin: SocketAddr,
    /// By the listener's name.
    pub(super) listeners: BTreeMap<String, SocketAddr>,
}

impl Addresses {
    /// Writes `addresses.json` into `dir`: whole or not at all, so that a reader never sees half of it.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        let (path, temporary) = (dir.join("addresses.json"), dir.join("addresses.json.new"));
        fs::write(&temporary, format!("{}\n", serde_json::to_string_pretty(self)?))?;
        fs::rename(temporary, path)
    }
}

async fn listen(key: &str, address: SocketAddr) -> Result<TcpListener, ServerError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| ServerError::Bind { key: key.to_owned(), address, source })
}

fn options(index: usize, config: &ListenerConfig) -> Result<ListenerOptions, ServerError> {
    let tls = config.tls.as_ref().map(|tls| Tls::new(tls, config.http2)).transpose();
    let tls = tls.map_err(|source| ServerError::Tls { key: format!("listener[{index}].tls.{}", source.key()), source })?;
    Ok(ListenerOptions {
        tls,
        name: config.name.clone(),
        hostname: config.hostname.clone(),
        http2: config.http2,
        proxy_protocol: config.proxy_protocol,
        debug_headers: config.debug_headers,
        min_revision: config.min_revision,
        trusted_proxies: config.trusted_proxies.iter().map(|network| (network.network(), network.prefix_len())).collect(),
        drain_timeout: config.drain_timeout,
        escaped_slashes: config.escaped_slashes,
        header_bytes_max: config.header_bytes_max,
        header_read_timeout: config.header_read_timeout,
        body_bytes_max: config.body_bytes_max,
        connections_max: config.connections_max,
        connections_per_address_max: config.connections_per_address_max,
        idle_timeout: config.idle_timeout,
        stream_idle_timeout: config.stream_idle_timeout,
    })
}
