//! One endpoint and its connections.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use std::{io, mem};

use futures_util::future::Either;
use http::uri::Scheme;
use http::{Request, Response, StatusCode};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::answer::AnswerBody;
use super::body::RequestBody;
use super::error::{ExchangeError, SendError, SendFailure};
use super::http1::{Http1, Wire};
use super::http2::{self, Exchange, HandshakeError, Http2Pool, Slot, Unsent};
use super::interim::Interim;
use super::tls::{Secured, TlsClient, TlsError, TlsProblem};
use crate::model::spec::Protocol;

/// Idle connections that one endpoint keeps in one worker.
pub(super) const IDLE_PER_ENDPOINT_MAX: usize = 64;
/// Idle connections that one worker keeps.
pub(super) const IDLE_PER_WORKER_MAX: usize = 4096;
/// How long a connection stays idle at most.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(60);

/// All pools of a worker, for the bound that they share.
#[derive(Debug, Default)]
pub(super) struct IdleBudget {
    count: Cell<usize>,
    endpoints: RefCell<Vec<Weak<Endpoint>>>,
    /// When the last sweep was: time enough for connections that stay idle for a minute.
    now: Cell<Option<Instant>>,
}

impl IdleBudget {
    pub(super) fn register(&self, endpoint: &Rc<Endpoint>) {
        self.endpoints.borrow_mut().push(Rc::downgrade(endpoint));
    }

    pub(super) fn sweep(&self, now: Instant) {
        self.now.set(Some(now));
        self.endpoints.borrow_mut().retain(|endpoint| endpoint.strong_count() > 0);
    }

    fn now(&self) -> Instant {
        self.now.get().unwrap_or_else(Instant::now)
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
    protocol: Protocol,
    tls: Option<Secured>,
    idle: RefCell<VecDeque<(Instant, Box<Http1>)>>,
    shared: Rc<Http2Pool>,
    is_retired: Cell<bool>,
    budget: Rc<IdleBudget>,
}

impl Endpoint {
    pub(super) fn new(
        address: &str,
        protocol: Protocol,
        client: Option<&Arc<TlsClient>>,
        budget: &Rc<IdleBudget>,
    ) -> Rc<Endpoint> {
        let endpoint = Rc::new(Endpoint {
            address: address.into(),
            resolved: address.parse().ok(),
            protocol,
            tls: client.map(|client| Secured::new(client, address)),
            idle: RefCell::default(),
            shared: Rc::default(),
            is_retired: Cell::new(false),
            budget: Rc::clone(budget),
        });
        budget.register(&endpoint);
        endpoint
    }

    /// `host:port`, as the service's document has it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What it speaks.
    pub(super) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Whether it goes over TLS under the settings of `client`, or in clear text where there is none.
    pub(super) fn is_secured_by(&self, client: Option<&Arc<TlsClient>>) -> bool {
        match (&self.tls, client) {
            (Some(tls), Some(client)) => tls.is_of(client),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    /// A connection that takes a request at once: one that is kept, or a new one, opened within `connect_timeout`. `fresh` asks for a
    /// new one in any case.
    pub async fn connection(&self, connect_timeout: Duration, fresh: bool) -> Result<Connection, SendFailure> {
        if !self.protocol.carries_grpc()
            && !fresh
            && let Some(kept) = self.take_idle()
        {
            return Ok(Connection { channel: Channel::Http1(kept), is_reused: true });
        }
        // Rare, and large: not a part of every request.
        match Box::pin(timeout(connect_timeout, self.open(fresh))).await {
            Ok(opened) => opened,
            Err(_) => Err(SendFailure::ConnectTimeout { address: self.address.clone() }),
        }
    }

    async fn open(&self, fresh: bool) -> Result<Connection, SendFailure> {
        match self.protocol {
            Protocol::Http1 | Protocol::Https => {
                let channel = Channel::Http1(self.open_http1().await?);
                Ok(Connection { channel, is_reused: false })
            }
            Protocol::H2c | Protocol::H2 => {
                let (slot, is_reused) = self.shared.slot(fresh, || self.open_http2()).await?;
                Ok(Connection { channel: Channel::Http2(slot), is_reused })
            }
        }
    }

    /// Closes what was idle for too long or was closed by the other side.
    pub(super) fn sweep(&self, now: Instant) {
        let mut idle = self.idle.borrow_mut();
        let before = idle.len();
        idle.retain_mut(|(since, connection)| now.duration_since(*since) < IDLE_MAX && connection.is_silent());
        self.budget.count.set(self.budget.count.get() - (before - idle.len()));
        self.shared.sweep(now, IDLE_MAX);
    }

    /// The service goes on without it: what is idle is closed now, and what is under way once it is through.
    pub(super) fn retire(&self) {
        self.is_retired.set(true);
        let idle = std::mem::take(&mut *self.idle.borrow_mut());
        self.budget.count.set(self.budget.count.get() - idle.len());
        self.shared.let_go();
    }

    fn take_idle(&self) -> Option<Box<Http1>> {
        let mut idle = self.idle.borrow_mut();
        while let Some((_, mut connection)) = idle.pop_back() {
            self.budget.count.set(self.budget.count.get() - 1);
            if connection.is_silent() {
                return Some(connection);
            }
        }
        None
    }

    /// The exchange over `connection` is over. It is kept if it can be used again.
    pub(super) fn take_back(&self, mut connection: Box<Http1>) {
        if !connection.end() || self.is_retired.get() {
            return;
        }
        if self.idle.borrow().len() >= IDLE_PER_ENDPOINT_MAX {
            self.close_oldest();
        }
        self.budget.make_room();
        self.idle.borrow_mut().push_back((self.budget.now(), connection));
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

    async fn open_http1(&self) -> Result<Box<Http1>, SendFailure> {
        let stream = self.connect().await?;
        let wire = match &self.tls {
            None => Wire::Clear(stream),
            Some(tls) => Wire::Secured(Box::new(self.secure(tls, stream).await?)),
        };
        Ok(Http1::new(wire))
    }

    async fn open_http2(&self) -> Result<http2::Begun, SendFailure> {
        let stream = self.connect().await?;
        let begun = match &self.tls {
            None => http2::handshake(stream).await,
            Some(tls) => http2::handshake(self.secure(tls, stream).await?).await,
        };
        begun.map_err(|error| match error {
            HandshakeError::Failed { source, read: Some(read) } => match TlsProblem::behind(&read) {
                Some(problem) => self.not_secured(problem, Some(read)),
                None => self.terminated(ExchangeError::Http2(source)),
            },
            HandshakeError::Failed { source, read: None } => self.terminated(ExchangeError::Http2(source)),
            HandshakeError::Ended => self.not_connected(io::ErrorKind::UnexpectedEof.into()),
        })
    }

    async fn secure(&self, tls: &Secured, stream: TcpStream) -> Result<TlsStream<TcpStream>, SendFailure> {
        tls.handshake(stream).await.map_err(|error| match error {
            TlsError::Tls(problem, source) => self.not_secured(problem, source),
            TlsError::Io(source) => self.not_connected(source),
        })
    }

    async fn connect(&self) -> Result<TcpStream, SendFailure> {
        let stream = match self.resolved {
            Some(address) => TcpStream::connect(address).await,
            None => self.connect_by_name().await?,
        };
        let stream = stream.map_err(|source| self.not_connected(source))?;
        stream.set_nodelay(true).map_err(|source| self.not_connected(source))?;
        Ok(stream)
    }

    fn failed(&self, source: ExchangeError, request: Option<Request<RequestBody>>, is_unsent: bool) -> SendError {
        let failure = match source.is_malformed() {
            true => SendFailure::Protocol { address: self.address.clone(), source },
            false => self.terminated(source),
        };
        SendError { failure: Box::new(failure), request: request.map(Box::new), is_unsent, interim: Interim::default() }
    }

    /// A connection that ended. Over TLS 1.3 the gateway's own side of the handshake is done before the endpoint judges it (RFC 8446 4.4),
    /// so that a refusal comes in place of an answer.
    fn terminated(&self, source: ExchangeError) -> SendFailure {
        match TlsProblem::behind(&source) {
            Some(problem) => self.not_secured(problem, Some(io::Error::other(source))),
            None => SendFailure::Terminated { address: self.address.clone(), source },
        }
    }

    fn not_secured(&self, problem: TlsProblem, source: Option<io::Error>) -> SendFailure {
        SendFailure::Tls { address: self.address.clone(), problem, source }
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

#[cfg(test)]
impl Endpoint {
    /// How many connections of HTTP/1.1 stand idle.
    pub(super) fn idle_count(&self) -> usize {
        self.idle.borrow().len()
    }
}

#[cfg(test)]
impl Connection {
    /// Waits until the other side has closed or said something.
    pub(super) async fn gone(&mut self) {
        let Channel::Http1(connection) = &mut self.channel else { return };
        while connection.is_silent() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.budget.count.set(self.budget.count.get() - self.idle.get_mut().len());
    }
}

/// What a request goes over.
#[derive(Debug)]
enum Channel {
    Http1(Box<Http1>),
    Http2(Slot),
}

/// A connection to an endpoint, or a stream of one. Dropping it closes it.
#[derive(Debug)]
pub struct Connection {
    channel: Channel,
    is_reused: bool,
}

impl Connection {
    /// Whether an earlier request went over it, so that the other side may have closed it in the meantime.
    pub fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// Whether a request that failed before an answer began comes back, as long as its body is there from its first byte. Over HTTP/2 it
    /// does only if nothing of it went out.
    pub fn gives_back(&self) -> bool {
        matches!(self.channel, Channel::Http1(_))
    }

    /// Sends `request` and waits for the head of the answer, without a deadline of its own.
    pub fn send(
        self,
        endpoint: &Rc<Endpoint>,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<AnswerBody>, SendError>> {
        // Handed over before anything is waited for, so that what waits does not hold the request too.
        match self.channel {
            Channel::Http1(mut connection) => {
                connection.begin(request);
                Either::Left(answer_of_http1(connection, Rc::clone(endpoint)))
            }
            Channel::Http2(slot) => {
                let scheme = if endpoint.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
                let begun = Exchange::begin(slot, request, scheme);
                // Boxed: each request over HTTP/1.1 would hold it as well.
                Either::Right(Box::pin(answer_of_http2(begun, Rc::clone(endpoint))))
            }
        }
    }
}

/// Waits for the head of an answer over HTTP/2.
async fn answer_of_http2(
    begun: Result<Exchange, Box<Unsent>>,
    endpoint: Rc<Endpoint>,
) -> Result<Response<AnswerBody>, SendError> {
    let exchange = match begun {
        Ok(exchange) => exchange,
        Err(unsent) => return Err(endpoint.failed(ExchangeError::Http2(unsent.source), unsent.request, true)),
    };
    match exchange.head().await {
        Ok(response) => Ok(response.map(AnswerBody::of_http2)),
        Err((error, interim)) => Err(SendError { interim, ..endpoint.failed(error, None, false) }),
    }
}

/// Sends what began, and waits for the head of its answer.
///
/// It is sent one turn later than it might: what else came with it is read first, and then all of it goes out in one run. To send each
/// request between two reads gives a backend on the same machine the time to fall asleep, and to wake it costs a microsecond or two. One
/// with a body goes out at once: bodies that wait for each other leave the processor's cache before they are sent, which costs more.
async fn answer_of_http1(mut connection: Box<Http1>, endpoint: Rc<Endpoint>) -> Result<Response<AnswerBody>, SendError> {
    let mut is_next_turn = connection.has_body();
    let answered = poll_fn(|cx| {
        if !mem::replace(&mut is_next_turn, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        connection.poll_head(cx)
    });
    match answered.await {
        Ok(response) => {
            let is_switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
            Ok(response.map(|()| AnswerBody::of_http1(connection, endpoint, is_switched)))
        }
        Err(error) => {
            let is_unsent = connection.is_unsent();
            let request = connection.take_request();
            let interim = connection.take_interim();
            Err(SendError { interim, ..endpoint.failed(ExchangeError::Http1(error), request, is_unsent) })
        }
    }
}
