//! The client that does nothing wrong.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// An answer that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);

type Sender = SendRequest<Empty<Bytes>>;

/// How often is asked, and over what.
#[derive(Clone, Copy)]
pub(super) struct Rhythm {
    address: SocketAddr,
    length: Duration,
    connections: u32,
    rate: u32,
    is_kept: bool,
}

impl Rhythm {
    /// Over a few connections that stay open.
    pub(super) fn kept(address: SocketAddr, length: Duration) -> Rhythm {
        Rhythm { address, length, connections: 4, rate: 100, is_kept: true }
    }

    /// Over a new connection each time.
    pub(super) fn new(address: SocketAddr, length: Duration) -> Rhythm {
        Rhythm { address, length, connections: 4, rate: 20, is_kept: false }
    }
}

/// What became of the requests of one rhythm.
#[derive(Default)]
pub(super) struct Report {
    times: Vec<Duration>,
    pub(super) failed: usize,
}

impl Report {
    pub(super) fn asked(&self) -> usize {
        self.times.len() + self.failed
    }

    /// A quantile of the answers that were good, in microseconds.
    pub(super) fn micros(&self, share: f64) -> u128 {
        let place = (self.times.len() as f64 * share) as usize;
        self.times.get(place.min(self.times.len().saturating_sub(1))).map_or(0, Duration::as_micros)
    }
}

/// Asks in both rhythms at once.
pub(super) async fn ask(rhythms: [Rhythm; 2]) -> [Report; 2] {
    let [kept, new] = rhythms.map(|rhythm| tokio::spawn(follow(rhythm)));
    [kept.await.unwrap(), new.await.unwrap()]
}

async fn follow(rhythm: Rhythm) -> Report {
    let mut tasks = JoinSet::new();
    let period = Duration::from_secs(1) * rhythm.connections / rhythm.rate;
    for number in 0..rhythm.connections {
        let first = Instant::now() + period * number / rhythm.connections;
        tasks.spawn(one_by_one(rhythm, first, period));
    }
    let mut whole = Report::default();
    for report in tasks.join_all().await {
        whole.times.extend(report.times);
        whole.failed += report.failed;
    }
    whole.times.sort();
    whole
}

async fn one_by_one(rhythm: Rhythm, first: Instant, period: Duration) -> Report {
    let mut report = Report::default();
    let mut sender = None;
    let mut due = first;
    while due < first + rhythm.length {
        sleep_until(due).await;
        let kept = sender.take().filter(|_| rhythm.is_kept);
        match timeout(PATIENCE, once(rhythm.address, kept)).await {
            Ok(Some(used)) => {
                report.times.push(due.elapsed());
                sender = Some(used);
            }
            Ok(None) | Err(_) => report.failed += 1,
        }
        due += period;
    }
    report
}

/// One request; gives the connection back where the answer was good.
async fn once(address: SocketAddr, kept: Option<Sender>) -> Option<Sender> {
    let mut sender = match kept {
        Some(kept) => kept,
        None => {
            let stream = TcpStream::connect(address).await.ok()?;
            stream.set_nodelay(true).ok()?;
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
            tokio::spawn(connection);
            sender
        }
    };
    sender.ready().await.ok()?;
    let request = Request::get("/").header("host", "bench.example.com").body(Empty::new()).ok()?;
    let answer = sender.send_request(request).await.ok()?;
    let is_good = answer.status().is_success();
    answer.into_body().collect().await.ok()?;
    is_good.then_some(sender)
}
