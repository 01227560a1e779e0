//! Why TLS did not come about, in the terms of RFC 9209.

use std::error::Error as StdError;
use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};
use thiserror::Error as ThisError;

/// Why there is no TLS with an endpoint. What it says names no address and no certificate: clients may read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ThisError)]
pub enum TlsProblem {
    /// Its certificate is refused (`tls_certificate_error`).
    #[error("the endpoint's certificate {0}")]
    Certificate(&'static str),
    /// It refused the gateway with this alert (`tls_alert_received`).
    #[error("the endpoint sent TLS alert {code} ({0:?}){hint}", code = u8::from(*.0), hint = hint(*.0))]
    Alert(AlertDescription),
    /// What it says is not TLS as the service demands it (`tls_protocol_error`).
    #[error("{0}")]
    Protocol(&'static str),
    /// Nobody can vouch for it: the service names no CAs, and the machine has none.
    #[error("this node's machine has no CA certificates: the service needs tls.caCertificates")]
    NoAuthorities,
}

/// What an alert says of the two sides.
fn hint(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::CertificateRequired => ": it demands a client certificate",
        AlertDescription::NoApplicationProtocol => ": it does not speak the service's protocol",
        AlertDescription::ProtocolVersion => ": it does not speak the service's versions of TLS",
        AlertDescription::UnrecognisedName => ": it does not know the service's hostname",
        _ => "",
    }
}

impl TlsProblem {
    /// HTTP/2 was not agreed on.
    pub(in crate::upstream) const NO_HTTP2: TlsProblem =
        TlsProblem::Protocol("the endpoint did not agree on HTTP/2 (ALPN h2), which the service's protocol demands");
    /// The host of the endpoint is nothing that a certificate is for.
    pub(super) const NO_NAME: TlsProblem = TlsProblem::Protocol("the endpoint's host is not a name that TLS knows");

    /// The problem behind an error of a connection, if TLS is what went wrong.
    pub(in crate::upstream) fn behind(error: &(dyn StdError + 'static)) -> Option<TlsProblem> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<Error>() {
                return Some(TlsProblem::of(found));
            }
            // Of an error within an `io::Error`, `source` gives the source alone.
            next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
                Some(inner) => Some(inner),
                None => error.source(),
            };
        }
        None
    }

    fn of(error: &Error) -> TlsProblem {
        match error {
            Error::InvalidCertificate(error) => TlsProblem::Certificate(complaint(error)),
            Error::NoCertificatesPresented => TlsProblem::Certificate("is missing"),
            Error::AlertReceived(alert) => TlsProblem::Alert(*alert),
            Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => {
                TlsProblem::Protocol("the endpoint does not speak TLS")
            }
            Error::PeerIncompatible(_) => {
                TlsProblem::Protocol("the endpoint and the service have no version, cipher suite or extension of TLS in common")
            }
            _ => TlsProblem::Protocol("the endpoint broke the rules of TLS"),
        }
    }
}

fn complaint(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "is not valid yet",
        CertificateError::UnknownIssuer => "is of no CA that the service trusts",
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "is not for the name that the service expects"
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => "is not for servers",
        CertificateError::Revoked => "is revoked",
        _ => "cannot be verified",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_found_and_named() {
        let within = |error: Error| io::Error::other(io::Error::new(io::ErrorKind::InvalidData, error));
        let table = [
            (Error::InvalidCertificate(CertificateError::Expired), "the endpoint's certificate has expired"),
            (Error::InvalidCertificate(CertificateError::BadSignature), "the endpoint's certificate cannot be verified"),
            (Error::NoCertificatesPresented, "the endpoint's certificate is missing"),
            (
                Error::AlertReceived(AlertDescription::CertificateRequired),
                "the endpoint sent TLS alert 116 (CertificateRequired): it demands a client certificate",
            ),
            (Error::InvalidMessage(InvalidMessage::InvalidContentType), "the endpoint does not speak TLS"),
            (Error::DecryptError, "the endpoint broke the rules of TLS"),
        ];
        for (error, expected) in table {
            let problem = TlsProblem::behind(&within(error)).expect("a problem");
            assert_eq!(problem.to_string(), expected);
        }
        assert_eq!(TlsProblem::behind(&io::Error::from(io::ErrorKind::UnexpectedEof)), None);
    }
}
