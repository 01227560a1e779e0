//! The backends behind the proxies: each answers every request with its name, unless it is told to misbehave.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderValue;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::routes::BACKEND_HEADER;

/// How long a slow backend thinks: far below every timeout.
const SLOW: Duration = Duration::from_millis(400);
/// Between two attempts at its own port, which a connection of somebody else may have.
const LISTEN_AGAIN: Duration = Duration::from_millis(20);

/// How a backend behaves. A change ends all of its connections, as the end of its process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// It answers.
    Well,
    /// It does not listen.
    Gone,
    /// It resets a connection once a request has come.
    Resets,
    /// It answers late.
    Slow,
    /// It ends its half of a connection once a request has come, and says nothing.
    HalfCloses,
}

/// A backend that answers until it is dropped.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    manner: watch::Sender<Manner>,
    _tasks: JoinSet<()>,
}

impl Backend {
    /// Listens on any port of `host`.
    pub(crate) async fn start(name: String, host: &str) -> anyhow::Result<Backend> {
        let listener = TcpListener::bind((host, 0)).await?;
        let address = listener.local_addr()?;
        let header = HeaderValue::from_str(&name)?;
        let mut tasks = JoinSet::new();
        let (manner, told) = watch::channel(Manner::Well);
        tasks.spawn(serve(listener, address, header, told));
        Ok(Backend { name, address, manner, _tasks: tasks })
    }

    /// From now on it behaves so.
    pub(crate) fn behave(&self, manner: Manner) {
        self.manner.send_replace(manner);
    }
}

/// One manner after the other, each with connections of its own.
async fn serve(listener: TcpListener, address: SocketAddr, name: HeaderValue, mut told: watch::Receiver<Manner>) {
    let mut listener = Some(listener);
    loop {
        let manner = *told.borrow_and_update();
        if manner == Manner::Gone {
            listener = None;
        } else if listener.is_none() {
            listener = TcpListener::bind(address).await.ok();
        }
        let changed = match &listener {
            Some(listener) => tokio::select! {
                changed = told.changed() => changed,
                () = accept(listener, &name, manner) => return,
            },
            None if manner == Manner::Gone => told.changed().await,
            None => {
                tokio::time::sleep(LISTEN_AGAIN).await;
                Ok(())
            }
        };
        if changed.is_err() {
            return;
        }
    }
}

async fn accept(listener: &TcpListener, name: &HeaderValue, manner: Manner) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        match manner {
            Manner::Resets | Manner::HalfCloses => connections.spawn(break_off(stream, manner)),
            Manner::Well | Manner::Slow | Manner::Gone => connections.spawn(answer(stream, name.clone(), manner)),
        };
    }
}

async fn answer(stream: TcpStream, name: HeaderValue, manner: Manner) {
    let service = service_fn(|_: Request<Incoming>| {
        let mut response = Response::new(Empty::<Bytes>::new());
        response.headers_mut().insert(BACKEND_HEADER, name.clone());
        async move {
            if manner == Manner::Slow {
                tokio::time::sleep(SLOW).await;
            }
            Ok::<_, Infallible>(response)
        }
    });
    // How a connection ends is the proxy's affair.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// Reads some of a request and answers nothing. What fails here was broken off by the other side.
async fn break_off(mut stream: TcpStream, manner: Manner) {
    let mut head = [0u8; 4096];
    if stream.read(&mut head).await.is_err() {
        return;
    }
    if manner == Manner::Resets {
        // Without time to linger, closing is a reset.
        let _ = stream.set_zero_linger();
        return;
    }
    let _ = stream.shutdown().await;
    while stream.read(&mut head).await.is_ok_and(|count| count > 0) {}
}

/// What a client without a gateway meets at the backend.
pub(crate) async fn probe(address: SocketAddr) -> Manner {
    let Ok(mut stream) = TcpStream::connect(address).await else { return Manner::Gone };
    let began = tokio::time::Instant::now();
    if stream.write_all(b"GET / HTTP/1.1\r\nhost: probe\r\n\r\n").await.is_err() {
        return Manner::Resets;
    }
    match stream.read(&mut [0u8; 4096]).await {
        Err(_) => Manner::Resets,
        Ok(0) => Manner::HalfCloses,
        Ok(_) if began.elapsed() >= SLOW => Manner::Slow,
        Ok(_) => Manner::Well,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_backend_behaves_as_it_is_told() {
        let backend = Backend::start("backend-0".to_owned(), "127.0.0.1").await.unwrap();
        for manner in [Manner::Gone, Manner::Resets, Manner::Slow, Manner::HalfCloses, Manner::Gone, Manner::Well] {
            backend.behave(manner);
            let seen = crate::cluster::wait_for(Duration::from_secs(5), || async {
                Some(probe(backend.address).await).filter(|&seen| seen == manner)
            });
            assert_eq!(seen.await, Some(manner));
        }
    }
}
