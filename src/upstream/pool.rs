//! One endpoint and its connections.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::body::{BodyProgress, BodyState, RequestBody};
use super::error::{SendError, SendFailure};

/// Idle connections that one endpoint keeps in one worker.
pub(super) const IDLE_PER_ENDPOINT_MAX: usize = 64;
/// Idle connections that one worker keeps.
pub(super) const IDLE_PER_WORKER_MAX: usize = 4096;
/// How long a connection stays idle at most.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(60);
/// Bytes of an answer's head, and what is buffered of a connection at most.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Fields of an answer's head.
const HEADERS_MAX: usize = 128;

/// All pools of a worker, for the bound that they share.
#[derive(Debug, Default)]
pub(super) struct IdleBudget {
    count: Cell<usize>,
    endpoints: RefCell<Vec<Weak<Endpoint>>>,
}

impl IdleBudget {
    pub(super) fn register(&self, endpoint: &Rc<Endpoint>) {
        self.endpoints.borrow_mut().push(Rc::downgrade(endpoint));
    }

    pub(super) fn sweep(&self) {
        self.endpoints.borrow_mut().retain(|endpoint| endpoint.strong_count() > 0);
    }

    /// Makes room for one more by closing the oldest of all. A scan, but only at the bound.
    fn make_room(&self) {
        if self.count.get() < IDLE_PER_WORKER_MAX {
            return;
        }
        let endpoints = self.endpoints.borrow();
        let oldest = endpoints.iter().filter_map(Weak::upgrade).filter_map(|endpoint| endpoint.oldest().map(|at| (at, endpoint)));
        if let Some((_, endpoint)) = oldest.min_by_key(|(at, _)| *at) {
            endpoint.close_oldest();
        }
    }
}

/// One address of a service, as one worker sees it.
#[derive(Debug)]
pub struct Endpoint {
    address: Box<str>,
    resolved: Option<SocketAddr>,
    idle: RefCell<VecDeque<(Instant, Connection)>>,
    budget: Rc<IdleBudget>,
}

impl Endpoint {
    pub(super) fn new(address: &str, budget: &Rc<IdleBudget>) -> Rc<Endpoint> {
        let endpoint = Rc::new(Endpoint {
            address: address.into(),
            resolved: address.parse().ok(),
            idle: RefCell::default(),
            budget: Rc::clone(budget),
        });
        budget.register(&endpoint);
        endpoint
    }

    /// `host:port`, as the service's document has it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The youngest idle connection, or a new one, opened within `connect_timeout`. `fresh` asks for a new one in any case.
    pub async fn connection(&self, connect_timeout: Duration, fresh: bool) -> Result<Connection, SendFailure> {
        if !fresh && let Some(connection) = self.take_idle() {
            return Ok(connection);
        }
        match timeout(connect_timeout, self.open()).await {
            Ok(opened) => opened,
            Err(_) => Err(SendFailure::ConnectTimeout { address: self.address.clone() }),
        }
    }

    /// Closes what was idle for too long or was closed by the other side.
    pub(super) fn sweep(&self, now: Instant) {
        let mut idle = self.idle.borrow_mut();
        let before = idle.len();
        idle.retain(|(since, connection)| now.duration_since(*since) < IDLE_MAX && !connection.sender.is_closed());
        self.budget.count.set(self.budget.count.get() - (before - idle.len()));
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        while let Some((_, mut connection)) = idle.pop_back() {
            self.budget.count.set(self.budget.count.get() - 1);
            if connection.sender.is_ready() {
                connection.is_reused = true;
                return Some(connection);
            }
        }
        None
    }

    fn put_idle(&self, connection: Connection) {
        if self.idle.borrow().len() >= IDLE_PER_ENDPOINT_MAX {
            self.close_oldest();
        }
        self.budget.make_room();
        self.idle.borrow_mut().push_back((Instant::now(), connection));
        self.budget.count.set(self.budget.count.get() + 1);
    }

    fn oldest(&self) -> Option<Instant> {
        self.idle.borrow().front().map(|(since, _)| *since)
    }

    fn close_oldest(&self) {
        if self.idle.borrow_mut().pop_front().is_some() {
            self.budget.count.set(self.budget.count.get() - 1);
        }
    }

    async fn open(&self) -> Result<Connection, SendFailure> {
        let stream = match self.resolved {
            Some(address) => TcpStream::connect(address).await,
            None => self.connect_by_name().await?,
        };
        let stream = stream.map_err(|source| self.not_connected(source))?;
        stream.set_nodelay(true).map_err(|source| self.not_connected(source))?;
        let mut builder = http1::Builder::new();
        builder.max_buf_size(BUFFER_BYTES_MAX).max_headers(HEADERS_MAX);
        let handshake = builder.handshake(TokioIo::new(stream)).await;
        let (sender, connection) =
            handshake.map_err(|source| SendFailure::Terminated { address: self.address.clone(), source })?;
        let task = tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to an endpoint ended");
            }
        });
        Ok(Connection { sender, task: task.abort_handle(), is_reused: false })
    }

    async fn connect_by_name(&self) -> Result<io::Result<TcpStream>, SendFailure> {
        let unresolved = |source| SendFailure::Resolve { address: self.address.clone(), source };
        let addresses = tokio::net::lookup_host(&*self.address).await.map_err(unresolved)?;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "no address");
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(Ok(stream)),
                Err(error) => last = error,
            }
        }
        Ok(Err(last))
    }

    fn not_connected(&self, source: io::Error) -> SendFailure {
        let address = self.address.clone();
        match source.kind() {
            io::ErrorKind::ConnectionRefused => SendFailure::Refused { address },
            _ => SendFailure::Connect { address, source },
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.budget.count.set(self.budget.count.get() - self.idle.get_mut().len());
    }
}

/// A connection to an endpoint. Dropping it closes it.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<RequestBody>,
    task: AbortHandle,
    is_reused: bool,
}

impl Connection {
    /// Whether an earlier request went over it, so that the other side may have closed it in the meantime.
    pub fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// Sends `request` and waits for the head of the answer, without a deadline of its own.
    pub async fn send(
        mut self,
        endpoint: &Rc<Endpoint>,
        request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Lease), SendError> {
        let progress = request.body().progress();
        match self.sender.try_send_request(request).await {
            Ok(response) => Ok((response, Lease { connection: Some(self), endpoint: Rc::clone(endpoint), progress })),
            Err(mut error) => {
                let unsent = error.take_message().map(Box::new);
                let source = error.into_error();
                let address = endpoint.address.clone();
                let failure = match source.is_parse() {
                    true => SendFailure::Protocol { address, source },
                    false => SendFailure::Terminated { address, source },
                };
                Err(SendError { failure: Box::new(failure), unsent })
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The use of a connection for one exchange, from its head to the end of the answer.
#[derive(Debug)]
pub struct Lease {
    connection: Option<Connection>,
    endpoint: Rc<Endpoint>,
    progress: Option<Rc<BodyProgress>>,
}

impl Lease {
    /// The answer is through. The connection is kept only where the request's body is through too.
    pub fn finish(mut self) {
        let is_sent = self.progress.as_ref().is_none_or(|progress| progress.state() == BodyState::Complete);
        if let Some(connection) = self.connection.take()
            && is_sent
            && !connection.sender.is_closed()
        {
            self.endpoint.put_idle(connection);
        }
    }
}
