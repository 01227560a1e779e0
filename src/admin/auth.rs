//! Who calls: bearer tokens (RFC 6750).
//!
//! Without any token the API is open and everybody is `anonymous`; the configuration allows that on a loopback address only, or where
//! the operator said `insecure = true`.

use std::sync::Arc;

use http::{HeaderMap, header};

use super::problem::Problem;
use crate::model::Digest;

/// Callers that this node knows.
#[derive(Debug, Clone, Default)]
pub struct Tokens(Vec<(Arc<str>, Digest)>);

/// The name of callers without a token.
const ANONYMOUS: &str = "anonymous";

impl Tokens {
    /// Pairs of a name, which history records, and the token itself. Only a digest of the token is kept.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Tokens {
        Tokens(pairs.into_iter().map(|(name, token)| (Arc::from(name), digest(&token))).collect())
    }

    /// The caller's name.
    pub(crate) fn caller(&self, headers: &HeaderMap) -> Result<Arc<str>, Problem> {
        if self.0.is_empty() {
            return Ok(Arc::from(ANONYMOUS));
        }
        let given = headers.get(header::AUTHORIZATION).ok_or_else(|| Problem::unauthorized("header authorization is missing"))?;
        let token = given.to_str().ok().and_then(bearer);
        let token = token.ok_or_else(|| Problem::unauthorized("header authorization is not \"Bearer <token>\""))?;
        self.holder(token).ok_or_else(|| Problem::unauthorized("the token is not known"))
    }

    /// Looks at every token and at every byte, and at digests only: the time it takes tells nothing of a token.
    fn holder(&self, token: &str) -> Option<Arc<str>> {
        let given = digest(token);
        let equal = |known: &Digest| known.0.iter().zip(given.0).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0;
        self.0.iter().fold(None, |found, (name, known)| if equal(known) { Some(Arc::clone(name)) } else { found })
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
    fn a_token_names_its_holder() {
        let tokens = Tokens::new([("ci".to_owned(), "s3cret".to_owned()), ("ops".to_owned(), "other".to_owned())]);
        let caller = |value: &'static str| {
            tokens.caller(&HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(value))])).ok()
        };
        assert_eq!(caller("Bearer s3cret").as_deref(), Some("ci"));
        assert_eq!(caller("bearer other").as_deref(), Some("ops"));
        for bad in ["Bearer s3cre", "Bearer ", "s3cret", "Basic s3cret"] {
            assert_eq!(caller(bad), None, "{bad}");
        }
        assert!(tokens.caller(&HeaderMap::new()).is_err());
        assert_eq!(Tokens::default().caller(&HeaderMap::new()).ok().as_deref(), Some(ANONYMOUS));
    }
}
