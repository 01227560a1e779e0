//! The handshake of one connection, and what becomes of those that fail.
//!
//! It has `header_read_timeout`, as a head has, and counts for the bounds on connections from its first byte on. One that fails is answered
//! with an alert of TLS and counted by its reason, and the connection ends like any other: an alert is lost where the socket is closed with
//! bytes unread.

use std::io;
use std::net::IpAddr;
use std::rc::Rc;

use http::StatusCode;
use rustls::HandshakeKind;
use rustls::server::{Acceptor, ServerConnection};
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::super::connection::{self, Arrival, Protocol};
use super::super::framing::Flaw;
use super::super::listener::Listener;
use super::super::worker::Worker;
use super::Secured;
use super::client::element;
use super::settings::ALPN_HTTP2;

/// What every handshake begins with: the type of its records (RFC 8446 5.1).
const HANDSHAKE_RECORD: u8 = 22;
/// A fatal alert before anything is agreed on: unrecognized_name (RFC 6066 3). The library would say access_denied.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// A request in clear text.
const PLAIN_HTTP: Flaw = Flaw {
    status: StatusCode::BAD_REQUEST,
    reason: "plain_http",
    detail: "this port speaks HTTPS, and the request came in clear text",
};

/// Why a client did not get a connection.
#[derive(Debug, Error)]
enum Failure {
    /// It speaks something else.
    #[error("what came is not TLS")]
    NotTls,
    /// It speaks HTTP in clear text.
    #[error("what came is HTTP in clear text")]
    PlainHttp,
    /// The table has nothing to show it.
    #[error("no certificate for this name")]
    NoCertificate,
    /// It went away.
    #[error("the connection ended")]
    Closed(#[source] io::Error),
    /// One side refuses what the other is or says.
    #[error("the handshake failed")]
    Refused(#[from] rustls::Error),
}

impl Failure {
    fn of(error: io::Error) -> Failure {
        match error.downcast::<rustls::Error>() {
            Ok(error) => Failure::Refused(error),
            Err(error) => Failure::Closed(error),
        }
    }

    /// As it is counted.
    fn reason(&self) -> &'static str {
        use rustls::Error as Tls;
        match self {
            Failure::NotTls => "not_tls",
            Failure::PlainHttp => PLAIN_HTTP.reason,
            Failure::NoCertificate => "no_certificate",
            Failure::Closed(_) => "closed",
            Failure::Refused(error) => match error {
                Tls::InvalidMessage(_) | Tls::DecryptError | Tls::PeerSentOversizedRecord => "malformed",
                Tls::PeerIncompatible(_) | Tls::NoApplicationProtocol => "incompatible",
                Tls::PeerMisbehaved(_) | Tls::InappropriateMessage { .. } | Tls::InappropriateHandshakeMessage { .. } => {
                    "misbehaved"
                }
                Tls::NoCertificatesPresented | Tls::InvalidCertificate(_) => "client_certificate",
                Tls::AlertReceived(_) => "alert",
                _ => "other",
            },
        }
    }
}

/// A handshake that failed, with the socket where it is still there.
type Failed = (Failure, Option<TcpStream>);

/// Serves one connection of a listener that speaks TLS.
pub(in crate::proxy) async fn serve(worker: Rc<Worker>, listener: Rc<Listener>, stream: TcpStream, address: IpAddr) {
    let Some(arrival) = Arrival::new(&worker, &listener, address) else { return };
    let failures = &worker.metrics.tls_handshake_failures;
    let (stream, secured) = match arrival.in_time(Box::pin(shake_hands(&worker, &listener, stream))).await {
        Some(Ok(shaken)) => shaken,
        Some(Err((failure, stream))) => {
            failures.with_label_values(&[failure.reason()]).inc();
            tracing::debug!(listener = listener.options.name, client = %address, error = &failure as &dyn std::error::Error, "no TLS");
            let refusal = matches!(failure, Failure::PlainHttp).then_some(PLAIN_HTTP);
            if let Some(stream) = stream {
                arrival.refuse(stream, refusal).await;
            }
            return;
        }
        None => return failures.with_label_values(&["timeout"]).inc(),
    };
    drop(arrival);
    connection::serve(worker, listener, stream, address, Some(secured)).await;
}

async fn shake_hands(
    worker: &Worker,
    listener: &Listener,
    mut stream: TcpStream,
) -> Result<(TlsStream<TcpStream>, Secured), Failed> {
    match first_byte(&mut stream).await {
        Ok(HANDSHAKE_RECORD) => {}
        Ok(b'A'..=b'Z') => return Err((Failure::PlainHttp, Some(stream))),
        Ok(_) => return Err((Failure::NotTls, Some(stream))),
        Err(error) => return Err((Failure::Closed(error), None)),
    }
    let mut acceptor = LazyConfigAcceptor::new(Acceptor::default(), stream);
    let mut start = match (&mut acceptor).await {
        Ok(start) => start,
        Err(error) => return Err((Failure::of(error), acceptor.take_io())),
    };
    let name = start.client_hello().server_name().map(str::to_ascii_lowercase);
    let selected = listener.of_host(name.as_deref().unwrap_or_default());
    // Where none takes the name, nothing is served on the connection but 421 and 404, by whichever settings.
    let Some(tls) = selected.unwrap_or(&listener.options).tls.as_ref() else {
        return Err((Failure::NotTls, Some(start.io)));
    };
    if worker.live.load().certificate_for(name.as_deref()).is_none() {
        // Whether it arrives or not, the connection ends.
        let _ = start.io.write_all(&UNRECOGNIZED_NAME).await;
        return Err((Failure::NoCertificate, Some(start.io)));
    }
    let shaken = start.into_stream(tls.config()).into_fallible().await;
    let mut stream = shaken.map_err(|(error, stream)| (Failure::of(error), Some(stream)))?;
    let is_resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
    if is_resumed && let Err(error) = tls.verify_again(stream.get_ref().1.peer_certificates()) {
        // Told by the end of the session: what came of it before is not answered.
        let _ = stream.shutdown().await;
        return Err((Failure::Refused(error), Some(stream.into_inner().0)));
    }
    worker.metrics.tls_handshakes.with_label_values(&[if is_resumed { "resumed" } else { "full" }]).inc();
    let secured = agreed(stream.get_ref().1, selected.map(|options| options.name.clone()));
    Ok((stream, secured))
}

/// The first byte, which stays where it is.
async fn first_byte(stream: &mut TcpStream) -> io::Result<u8> {
    let mut byte = [0];
    match stream.peek(&mut byte).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(byte[0]),
    }
}

fn agreed(session: &ServerConnection, listener: Option<String>) -> Secured {
    let protocol = match session.alpn_protocol() {
        Some(ALPN_HTTP2) => Protocol::Http2,
        // Without ALPN (RFC 9112 is what a client speaks that has said nothing).
        _ => Protocol::Http1,
    };
    let client = session.peer_certificates().and_then(|chain| chain.first()).map(element);
    Secured { protocol, listener, client }
}
