//! Who calls: by a bearer token (RFC 6750), or by the certificate of the connection.
//!
//! A token that is sent counts, and a wrong one is refused even beside a certificate: whoever sends one means to be its holder. Where this
//! node neither has tokens nor asks for certificates, the API is open and everybody is `anonymous`; the configuration allows that on a
//! loopback address only, or where the operator said `insecure = true`.

use std::sync::Arc;

use http::{HeaderMap, header};

use super::problem::Problem;
use crate::model::Digest;
use crate::tls::CallerName;

/// Callers that this node knows.
#[derive(Debug, Clone, Default)]
pub struct Callers {
    tokens: Vec<(Arc<str>, Digest)>,
    by_certificate: bool,
}

/// The name of callers whom nobody asks.
const ANONYMOUS: &str = "anonymous";

impl Callers {
    /// Pairs of a name, which history records, and a token, of which only a digest is kept; and whether a certificate will do too, which
    /// connections have verified by then.
    pub fn new(tokens: impl IntoIterator<Item = (String, String)>, by_certificate: bool) -> Callers {
        let tokens = tokens.into_iter().map(|(name, token)| (Arc::from(name), digest(&token))).collect();
        Callers { tokens, by_certificate }
    }

    /// The name of the caller that sent `headers` on a connection with a certificate for `shown`.
    pub(crate) fn caller(&self, headers: &HeaderMap, shown: Option<&CallerName>) -> Result<Arc<str>, Problem> {
        let is_open = self.tokens.is_empty() && !self.by_certificate;
        match (headers.get(header::AUTHORIZATION), shown.filter(|_| self.by_certificate)) {
            _ if is_open => Ok(Arc::from(ANONYMOUS)),
            (Some(given), _) if !self.tokens.is_empty() => {
                let token = given.to_str().ok().and_then(bearer);
                let token = token.ok_or_else(|| Problem::unauthorized("header authorization is not \"Bearer <token>\""))?;
                self.holder(token).ok_or_else(|| Problem::unauthorized("the token is not known"))
            }
            (_, Some(CallerName(name))) => Ok(Arc::clone(name)),
            (_, None) => Err(Problem::unauthorized(match (self.tokens.is_empty(), self.by_certificate) {
                (false, false) => "header authorization is missing",
                (false, true) => "neither header authorization nor a client certificate that names somebody",
                (true, _) => "no client certificate that names somebody",
            })),
        }
    }

    /// Looks at every token and at every byte, and at digests only: the time it takes tells nothing of a token.
    fn holder(&self, token: &str) -> Option<Arc<str>> {
        let given = digest(token);
        let equal = |known: &Digest| known.0.iter().zip(given.0).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0;
        self.tokens.iter().fold(None, |found, (name, known)| if equal(known) { Some(Arc::clone(name)) } else { found })
    }
}

/// The token of a `Bearer` credential; the scheme's case does not matter (RFC 9110 11.1).
fn bearer(credentials: &str) -> Option<&str> {
    let (scheme, token) = credentials.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn digest(token: &str) -> Digest {
    Digest::of_parts([token.as_bytes()])
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_token_or_a_certificate_names_its_holder() {
        let tokens = || [("ci".to_owned(), "s3cret".to_owned()), ("ops".to_owned(), "other".to_owned())];
        let named = CallerName(Arc::from("alice"));
        let caller = |callers: &Callers, value: Option<&'static str>, shown: Option<&CallerName>| {
            let headers = value.map(|value| (header::AUTHORIZATION, HeaderValue::from_static(value)));
            callers.caller(&HeaderMap::from_iter(headers), shown).ok()
        };
        let by_token = Callers::new(tokens(), false);
        assert_eq!(caller(&by_token, Some("Bearer s3cret"), None).as_deref(), Some("ci"));
        assert_eq!(caller(&by_token, Some("bearer other"), None).as_deref(), Some("ops"));
        for bad in ["Bearer s3cre", "Bearer ", "s3cret", "Basic s3cret"] {
            assert_eq!(caller(&by_token, Some(bad), None), None, "{bad}");
        }
        assert_eq!(caller(&by_token, None, None), None);
        assert_eq!(caller(&by_token, None, Some(&named)), None, "nobody asked for certificates");
        let by_either = Callers::new(tokens(), true);
        assert_eq!(caller(&by_either, None, Some(&named)).as_deref(), Some("alice"));
        assert_eq!(caller(&by_either, Some("Bearer s3cret"), Some(&named)).as_deref(), Some("ci"));
        assert_eq!(caller(&by_either, Some("Bearer wrong"), Some(&named)), None);
        assert_eq!(caller(&by_either, None, None), None);
        let by_certificate = Callers::new([], true);
        assert_eq!(caller(&by_certificate, Some("Bearer any"), Some(&named)).as_deref(), Some("alice"));
        assert_eq!(caller(&by_certificate, Some("Bearer any"), None), None);
        assert_eq!(caller(&Callers::default(), None, None).as_deref(), Some(ANONYMOUS));
    }
}
