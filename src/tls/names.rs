//! What a certificate says: which node it is for, who shows it, how long it holds.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use crate::model::NodeId;

/// What begins the URI of a node.
const SCHEME: &str = "raftgate://";

/// How long before its end a certificate is spoken of, at most: two weeks.
const NOTICE_SECONDS_MAX: i64 = 14 * 86_400;

/// The longest name of a caller, as long as that of a token may be.
const CALLER_BYTES_MAX: usize = 128;

/// The URI that stands for a node in its certificate.
pub(super) fn node_uri(cluster: &str, node: NodeId) -> String {
    format!("{SCHEME}{cluster}/node/{node}")
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    X509Certificate::from_der(certificate).map(|(_, parsed)| parsed).map_err(|error| format!("is no X.509 certificate: {error}"))
}

fn alternative_names<'a>(certificate: &'a X509Certificate<'a>) -> &'a [GeneralName<'a>] {
    match certificate.subject_alternative_name() {
        Ok(Some(extension)) => &extension.value.general_names,
        Ok(None) | Err(_) => &[],
    }
}

/// The node of `cluster` that a certificate is for; exactly one.
pub(super) fn node_of(certificate: &CertificateDer<'_>, cluster: &str) -> Result<NodeId, String> {
    let parsed = parse(certificate)?;
    let uris: Vec<&str> = alternative_names(&parsed)
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) if uri.starts_with(SCHEME) => Some(*uri),
            _ => None,
        })
        .collect();
    let expected = node_uri(cluster, 0);
    let prefix = expected.trim_end_matches('0');
    match uris[..] {
        [] => Err(format!(
            "names no node: it lacks the URI {prefix}N among its subject alternative names (raftgate certs node puts it there)"
        )),
        [uri] => {
            let id = uri
                .strip_prefix(prefix)
                .and_then(|id| id.parse::<NodeId>().ok().filter(|&number| number > 0 && number.to_string() == id));
            id.ok_or_else(|| format!("is for {uri}, and cluster.name asks for {prefix}N"))
        }
        _ => Err(format!("is for several nodes: {}", uris.join(", "))),
    }
}

/// The name by which history knows somebody who showed a certificate: 1 to 128 visible characters of ASCII.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerName(pub Arc<str>);

/// The subject's common name, or else the first usable one of the alternative names.
pub(super) fn caller_of(certificate: &CertificateDer<'_>) -> Option<CallerName> {
    let parsed = parse(certificate).ok()?;
    let common = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    let others = alternative_names(&parsed).iter().filter_map(|name| match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) | GeneralName::RFC822Name(name) => Some(*name),
        _ => None,
    });
    let usable = |name: &&str| (1..=CALLER_BYTES_MAX).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic());
    common.chain(others).find(usable).map(|name| CallerName(Arc::from(name)))
}

/// From when until when a certificate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Seconds since 1970.
    pub begins_at: i64,
    /// Seconds since 1970.
    pub ends_at: i64,
}

impl Validity {
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Result<Validity, String> {
        let parsed = parse(certificate)?;
        let validity = parsed.validity();
        Ok(Validity { begins_at: validity.not_before.timestamp(), ends_at: validity.not_after.timestamp() })
    }

    /// What a person should be told about it at `now`: that it has ended, has not begun, or ends soon, which is within a quarter of its
    /// whole time and two weeks.
    pub fn concern(self, now: SystemTime) -> Option<String> {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().try_into().unwrap_or(i64::MAX));
        let notice = (self.ends_at.saturating_sub(self.begins_at) / 4).min(NOTICE_SECONDS_MAX);
        match self {
            Validity { ends_at, .. } if ends_at <= now => Some(format!("expired at {}: renew it", Instant(ends_at))),
            Validity { begins_at, .. } if begins_at > now => {
                Some(format!("is valid from {} on only: is the clock right?", Instant(begins_at)))
            }
            Validity { ends_at, .. } if ends_at.saturating_sub(notice) <= now => {
                Some(format!("expires at {}: renew it", Instant(ends_at)))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Validity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Instant(self.ends_at))
    }
}

/// Seconds since 1970 as a time that people read.
struct Instant(i64);

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Beyond the year 9999 humantime has no words.
        let seconds = u64::try_from(self.0).unwrap_or(0).min(253_402_300_799);
        write!(f, "{}", humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)))
    }
}
