//! The backends behind the proxies: each answers every request with its name.

use std::convert::Infallible;
use std::net::SocketAddr;

use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderValue;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::routes::BACKEND_HEADER;

/// A backend that answers until it is dropped.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Backend {
    /// Listens on any port of `host`.
    pub(crate) async fn start(name: String, host: &str) -> anyhow::Result<Backend> {
        let listener = TcpListener::bind((host, 0)).await?;
        let address = listener.local_addr()?;
        let header = HeaderValue::from_str(&name)?;
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, header));
        Ok(Backend { name, address, _tasks: tasks })
    }
}

async fn accept(listener: TcpListener, name: HeaderValue) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        let name = name.clone();
        connections.spawn(async move {
            let service = service_fn(|_: Request<Incoming>| {
                let mut response = Response::new(Empty::<Bytes>::new());
                response.headers_mut().insert(BACKEND_HEADER, name.clone());
                async move { Ok::<_, Infallible>(response) }
            });
            // How a connection ends is the proxy's affair.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
