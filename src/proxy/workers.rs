//! All workers together: started, told of changed listeners, and drained.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

use super::listener::{BoundListener, ListenerOptions};
use super::worker::{DRAIN_GRACE, Order, Setup, TICK, start_worker};
use crate::observe::{Metrics, RequestSinks};
use crate::table::Live;
use crate::upstream::TlsClients;

/// What a proxy is started with.
#[derive(Debug)]
pub struct ProxyOptions {
    /// Bound for `workers` workers each.
    pub listeners: Vec<BoundListener>,
    /// The table that requests load.
    pub live: Arc<Live>,
    /// Where it counts.
    pub metrics: Metrics,
    /// Where it tells of requests.
    pub sinks: RequestSinks,
    /// How many threads; the same as at [`bind`](super::bind).
    pub workers: usize,
}

/// Why a proxy does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A worker's runtime or thread could not be made.
    #[error("proxy worker {0} not started")]
    Worker(usize, #[source] io::Error),
}

/// The data plane.
#[derive(Debug)]
pub struct Proxy;

impl Proxy {
    /// Starts the workers. They serve until [`ProxyHandle::drain`], or until the handle is dropped.
    pub fn start(options: ProxyOptions) -> Result<ProxyHandle, StartError> {
        let (draining, _) = watch::channel(false);
        let drain_timeout = options.listeners.iter().map(|l| l.options.drain_timeout).max().unwrap_or_default();
        let mut listeners = options.listeners;
        let (workers, orders): (Vec<_>, Vec<_>) = (0..options.workers.max(1)).map(|_| mpsc::unbounded_channel()).unzip();
        let workers: Arc<[_]> = workers.into();
        let clients = Arc::new(TlsClients::new());
        let mut ended = Vec::new();
        for (index, orders) in orders.into_iter().enumerate() {
            let setup = Setup {
                index,
                clients: Arc::clone(&clients),
                sockets: listeners.iter_mut().filter_map(|bound| bound.part(index, &options.live)).collect(),
                live: Arc::clone(&options.live),
                metrics: options.metrics.clone(),
                sinks: options.sinks.clone(),
                draining: draining.subscribe(),
                orders,
                workers: Arc::clone(&workers),
            };
            ended.push(start_worker(setup).map_err(|error| StartError::Worker(index, error))?);
        }
        Ok(ProxyHandle { live: options.live, draining, workers, ended, drain_timeout })
    }
}

/// The running proxy. Dropping it stops it without a drain.
#[derive(Debug)]
pub struct ProxyHandle {
    live: Arc<Live>,
    draining: watch::Sender<bool>,
    workers: Arc<[mpsc::UnboundedSender<Order>]>,
    ended: Vec<oneshot::Receiver<()>>,
    /// The longest of all listeners that there were.
    drain_timeout: Duration,
}

impl ProxyHandle {
    /// Serves another listener, bound for as many workers as there are.
    pub fn listen(&mut self, mut bound: BoundListener) {
        self.drain_timeout = self.drain_timeout.max(bound.options.drain_timeout);
        for (index, worker) in self.workers.iter().enumerate() {
            if let Some(part) = bound.part(index, &self.live) {
                // A worker that is gone serves nothing.
                let _ = worker.send(Order::Listen(Box::new(part)));
            }
        }
    }

    /// Serves new connections at `address` by other options; `sharing` are the listeners that share the address. Connections that are
    /// open keep what they began with and end with their next answer.
    pub fn set(&mut self, address: SocketAddr, options: &ListenerOptions, sharing: &[ListenerOptions]) {
        self.drain_timeout = self.drain_timeout.max(options.drain_timeout);
        for worker in self.workers.iter() {
            let with_certificates = |options: &ListenerOptions| options.with_certificates_of(&self.live);
            let sharing = sharing.iter().map(with_certificates).collect();
            let _ = worker.send(Order::Set(address, Box::new((with_certificates(options), sharing))));
        }
    }

    /// Accepts no more at `address` and drains its connections as [`drain`](ProxyHandle::drain) does, beside everything else. Done once the
    /// address is free again.
    pub async fn close(&mut self, address: SocketAddr) {
        let closing: Vec<_> = self
            .workers
            .iter()
            .map(|worker| {
                let (closed, wait) = oneshot::channel();
                let _ = worker.send(Order::Close(address, closed));
                wait
            })
            .collect();
        for closed in closing {
            // Dropped either way.
            let _ = closed.await;
        }
    }

    /// Stops accepting, answers with `Connection: close`, finishes what is under way, closes idle connections after a second, and gives
    /// up after each listener's `drain_timeout`. Done once all workers ended.
    pub async fn drain(self) {
        self.draining.send_replace(true);
        let all = async {
            for ended in self.ended {
                // A worker that is gone has ended too.
                let _ = ended.await;
            }
        };
        if tokio::time::timeout(self.drain_timeout + DRAIN_GRACE + 10 * TICK, all).await.is_err() {
            tracing::warn!("a proxy worker did not end in time");
        }
    }
}
