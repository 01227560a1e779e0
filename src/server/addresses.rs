//! The addresses of a node: taken before anything else is done, and written down for whoever started it with port 0.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
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
    pub(super) sites: Vec<Site>,
    /// In the order of `sites`.
    pub(super) listeners: Vec<BoundListener>,
}

impl Bound {
    /// Binds them all, or says which key has an address that cannot be had.
    pub(super) async fn take(config: &NodeConfig) -> Result<Bound, ServerError> {
        let peer = listen("cluster.peer_address", config.cluster.peer_address).await?;
        let admin = listen("admin.address", config.admin.address).await?;
        let (mut sites, mut listeners) = (Vec::new(), Vec::new());
        for group in Group::all(&config.listeners) {
            let (site, bound) = group.bind(config.workers)?;
            sites.push(site);
            listeners.push(bound);
        }
        Ok(Bound { peer, admin, sites, listeners })
    }

    /// Where they are, ports resolved.
    pub(super) fn addresses(&self) -> Result<Addresses, ServerError> {
        let local = |listener: &TcpListener| listener.local_addr().map_err(system("a bound address"));
        Ok(Addresses { peer: local(&self.peer)?, admin: local(&self.admin)?, listeners: by_name(&self.sites) })
    }
}

/// The listeners of one address, as they are configured: never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    /// Their places in the file.
    places: Vec<usize>,
    pub(super) listeners: Vec<ListenerConfig>,
}

impl Group {
    /// Listeners by their address. Those of port 0 each get a port of their own.
    pub(super) fn all(listeners: &[ListenerConfig]) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for (index, listener) in listeners.iter().enumerate() {
            let is_shared = |group: &&mut Group| listener.address.port() != 0 && group.address() == listener.address;
            match groups.iter_mut().find(is_shared) {
                Some(group) => {
                    group.places.push(index);
                    group.listeners.push(listener.clone());
                }
                None => groups.push(Group { places: vec![index], listeners: vec![listener.clone()] }),
            }
        }
        groups
    }

    fn address(&self) -> SocketAddr {
        self.listeners[0].address
    }

    /// Whether it is what stands at `site`, perhaps with other options. A port that the system chose belongs to the listener's name.
    pub(super) fn is_of(&self, site: &Site) -> bool {
        let (own, there) = (&self.listeners[0], &site.listeners[0]);
        own.address == there.address && (own.address.port() != 0 || own.name == there.name)
    }

    /// The options of the listener that holds for connections, and of those that share its address.
    ///
    /// # Errors
    ///
    /// One cannot speak TLS as it is told.
    pub(super) fn options(&self) -> Result<(ListenerOptions, Vec<ListenerOptions>), ServerError> {
        let first = options(self.places[0], &self.listeners[0])?;
        let rest = self.places.iter().zip(&self.listeners).skip(1);
        let sharing = rest.map(|(place, listener)| options(*place, listener)).collect::<Result<_, _>>()?;
        Ok((first, sharing))
    }

    /// Takes the address.
    ///
    /// # Errors
    ///
    /// It cannot be had, or a listener cannot speak TLS as it is told.
    pub(super) fn bind(self, workers: usize) -> Result<(Site, BoundListener), ServerError> {
        let options = self.options()?;
        let bound = proxy::bind(options.0.clone(), self.address(), workers).map_err(|BindError { address, source, .. }| {
            let key = format!("listener[{}].address", self.places[0]);
            ServerError::Bind { key, address, source }
        });
        let mut bound = bound?;
        options.1.iter().for_each(|options| bound.share(options.clone()));
        Ok((Site { address: bound.address(), listeners: self.listeners, options }, bound))
    }
}

/// An address that the proxy listens on, and the listeners there.
#[derive(Debug, Clone)]
pub(super) struct Site {
    /// The port resolved.
    pub(super) address: SocketAddr,
    pub(super) listeners: Vec<ListenerConfig>,
    /// Those of the listener that holds for connections, and of those that share its address.
    pub(super) options: (ListenerOptions, Vec<ListenerOptions>),
}

/// The addresses of the listeners, ports resolved.
pub(super) fn by_name(sites: &[Site]) -> BTreeMap<String, SocketAddr> {
    let named = |site: &Site| {
        let address = site.address;
        site.listeners.iter().map(|listener| (listener.name.clone(), address)).collect::<Vec<_>>()
    };
    sites.iter().flat_map(named).collect()
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

/// Networks by their first address and the length of their prefix.
pub(super) fn trusted_proxies(config: &ListenerConfig) -> Vec<(IpAddr, u8)> {
    config.trusted_proxies.iter().map(|network| (network.network(), network.prefix_len())).collect()
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
        trusted_proxies: trusted_proxies(config),
        drain_timeout: config.drain_timeout,
        escaped_slashes: config.escaped_slashes,
        header_bytes_max: config.header_bytes_max,
        header_read_timeout: config.header_read_timeout,
        body_bytes_max: config.body_bytes_max,
        body_rate_min: config.body_rate_min,
        body_rate_window: config.body_rate_window,
        connections_max: config.connections_max,
        connections_per_address_max: config.connections_per_address_max,
        idle_timeout: config.idle_timeout,
        stream_idle_timeout: config.stream_idle_timeout,
    })
}
