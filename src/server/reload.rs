//! SIGHUP: the listeners become what the configuration says now.
//!
//! What can fail comes first (reading, checking, binding), so that a fault leaves everything as it was. Then new listeners are served,
//! those that changed serve new connections by their new options, and those that are gone are drained. Changed files of the node's own
//! certificates are taken at once, without the wait for the next look ([`certificates`](super::certificates)). What else changed in the
//! configuration is named, for it waits for a restart.

use std::sync::Arc;

use thiserror::Error;
use tokio::task;
use tracing::{error, info, warn};

use super::addresses::{Group, Site, by_name};
use super::{Reread, Server, ServerError, explain};
use crate::config::{ConfigError, NodeConfig};
use crate::proxy::BoundListener;

/// Why the configuration that was read again is not taken.
#[derive(Debug, Error)]
enum ReloadError {
    /// It is not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A new listener cannot be bound, or one cannot speak TLS as it is told.
    #[error(transparent)]
    Listener(#[from] ServerError),
    /// The reader panicked.
    #[error("the configuration was not read: {0}")]
    Read(#[from] task::JoinError),
}

impl Server {
    /// Takes over what can be changed while the node runs; an error is told, and changes nothing. The node's own certificates are looked
    /// at in any case.
    pub(super) async fn reload(&mut self, reread: &Reread) {
        let certificates = self.certificates.clone();
        if let Err(error) = task::spawn_blocking(move || certificates.renew()).await {
            error!(%error, "looking at the certificates");
        }
        let result = match self.take_over(reread).await {
            Ok(()) => "applied",
            Err(error) => {
                error!(error = &error as &dyn std::error::Error, "configuration refused: the listeners stay as they are");
                "refused"
            }
        };
        self.metrics.config_reloads.with_label_values(&[result]).inc();
    }

    async fn take_over(&mut self, reread: &Reread) -> Result<(), ReloadError> {
        let read = Arc::clone(reread);
        let config = task::spawn_blocking(move || read()).await??;
        let Some(proxy) = &mut self.proxy else { return Ok(()) };
        let Changes { sites, added, changed, gone } = Changes::of(&self.sites, &config)?;
        let counts = (added.len(), changed.len(), gone.len());
        added.into_iter().for_each(|bound| proxy.listen(bound));
        for Site { address, options: (first, sharing), .. } in &changed {
            proxy.set(*address, first, sharing);
        }
        for site in gone {
            proxy.close(site.address).await;
        }
        self.sites = sites;
        self.addresses.listeners = by_name(&self.sites);
        self.explained.send_replace(config.listeners.iter().map(explain).collect());
        if let Err(error) = self.addresses.write(&self.config.data_dir) {
            warn!(%error, "addresses.json in the data directory is not up to date");
        }
        for key in self.config.differences(&config) {
            warn!(key, "configuration key changed: it takes effect when the node is started again");
        }
        self.config.listeners = config.listeners;
        let (added, changed, gone) = counts;
        info!(added, changed, gone, "listeners read again");
        Ok(())
    }
}

/// From the listeners that there are to those that are wanted.
struct Changes {
    /// What there is afterwards.
    sites: Vec<Site>,
    added: Vec<BoundListener>,
    changed: Vec<Site>,
    gone: Vec<Site>,
}

impl Changes {
    /// Binds what is new, and reads what TLS needs.
    fn of(present: &[Site], config: &NodeConfig) -> Result<Changes, ServerError> {
        let mut changes = Changes { sites: Vec::new(), added: Vec::new(), changed: Vec::new(), gone: Vec::new() };
        let groups = Group::all(&config.listeners);
        let is_gone = |site: &&Site| !groups.iter().any(|group| group.is_of(site));
        changes.gone = present.iter().filter(is_gone).cloned().collect();
        for group in groups {
            let Some(site) = present.iter().find(|site| group.is_of(site)) else {
                let (site, bound) = group.bind(config.workers)?;
                changes.added.push(bound);
                changes.sites.push(site);
                continue;
            };
            let new = Site { address: site.address, options: group.options()?, listeners: group.listeners };
            if new.options != site.options {
                changes.changed.push(new.clone());
            }
            changes.sites.push(new);
        }
        Ok(changes)
    }
}
