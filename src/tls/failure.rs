//! Why a handshake came to nothing, in words for a person and in a closed set for a metric.

use std::io;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError, Error as TlsError, InvalidMessage};
use thiserror::Error;

/// Why a handshake came to nothing.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// It was not done in time.
    #[error("no handshake within {0:?}")]
    Deadline(Duration),
    /// The other side does not speak TLS.
    #[error("it speaks in clear text, and this side TLS: both need it, or neither")]
    ClearText,
    /// The other side's certificate is not one that this side takes.
    #[error("its certificate {0}")]
    Certificate(String),
    /// The other side does not take this one's certificate, or wants another version or suite.
    #[error("it refuses the handshake ({0:?}): is this side's certificate of the CA that it knows, and in date?")]
    Alert(AlertDescription),
    /// Bytes that are no TLS, or none that is served.
    #[error("{0}")]
    Protocol(TlsError),
    /// The connection ended.
    #[error("broke off: {0}")]
    Broken(#[source] io::Error),
}

impl HandshakeError {
    /// The value of a metric's label.
    pub fn reason(&self) -> &'static str {
        match self {
            HandshakeError::Deadline(_) => "deadline",
            HandshakeError::ClearText => "clear_text",
            HandshakeError::Certificate(_) => "certificate",
            HandshakeError::Alert(_) => "alert",
            HandshakeError::Protocol(_) => "protocol",
            HandshakeError::Broken(_) => "broken",
        }
    }

    /// tokio-rustls hides the cause in an `io::Error`.
    pub(super) fn of(error: io::Error) -> HandshakeError {
        let Some(cause) = error.get_ref().and_then(|cause| cause.downcast_ref::<TlsError>()) else {
            return HandshakeError::Broken(error);
        };
        match cause {
            TlsError::InvalidMessage(InvalidMessage::InvalidContentType) => HandshakeError::ClearText,
            TlsError::NoCertificatesPresented => HandshakeError::Certificate("is missing: it shows none".to_owned()),
            TlsError::InvalidCertificate(cause) => HandshakeError::Certificate(said_of(cause)),
            TlsError::AlertReceived(alert) => HandshakeError::Alert(*alert),
            cause => HandshakeError::Protocol(cause.clone()),
        }
    }
}

fn said_of(cause: &CertificateError) -> String {
    match cause {
        CertificateError::UnknownIssuer => "is not signed by the CA that this side knows".to_owned(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => format!("has expired: {cause}"),
        cause => format!("is not accepted: {cause}"),
    }
}

/// What a caller of the admin API can do about an error of TLS.
pub fn advice(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    match error.downcast_ref::<TlsError>()? {
        TlsError::InvalidCertificate(CertificateError::UnknownIssuer) => {
            Some("--ca FILE says which CA the nodes' certificates are of")
        }
        TlsError::InvalidMessage(InvalidMessage::InvalidContentType) => {
            Some("this node answers in clear text: call it by http://")
        }
        TlsError::AlertReceived(_) => {
            Some("--cert FILE and --key FILE say who calls, by a certificate that the node's admin.tls.client_ca signed")
        }
        _ => None,
    }
}

impl From<HandshakeError> for io::Error {
    fn from(error: HandshakeError) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}
