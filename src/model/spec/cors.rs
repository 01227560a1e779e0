//! Cross-origin resource sharing (Gateway API `HTTPCORSFilter`, the Fetch standard's CORS protocol).

use http::HeaderValue;

/// Who may read a rule's answers from a page of another origin. The gateway answers preflights by it, and writes the fields itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// The origins that may.
    pub allow_origins: Origins,
    /// Whether a page may do so with the user's cookies and credentials. Then nothing is answered with a `*`.
    pub allow_credentials: bool,
    /// `Access-Control-Allow-Methods`.
    pub allow_methods: Listed,
    /// `Access-Control-Allow-Headers`.
    pub allow_headers: Listed,
    /// `Access-Control-Expose-Headers`.
    pub expose_headers: Listed,
    /// How long a browser may keep the answer to a preflight, in seconds; at least 1, default 5.
    pub max_age: u32,
}

/// Names of a field of the CORS protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    /// None: the field is left out.
    Nothing,
    /// `*`
    All,
    /// As they stand in the field, with commas between.
    Names(HeaderValue),
}

/// The origins of a [`Cors`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// `*`
    All,
    /// Those that match one of these, at most 64.
    Of(Vec<OriginPattern>),
}

/// `https://example.com`, `https://*.example.com:8443` or `http://*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginPattern {
    /// `https`, else `http`.
    pub is_https: bool,
    /// The host.
    pub host: OriginHost,
    /// The port; without one in the document that of the scheme.
    pub port: u16,
}

/// The host of an [`OriginPattern`], in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginHost {
    /// `*`
    Any,
    /// This one.
    Exact(String),
    /// Any that ends in this, with one label or more before it. Starts with a dot.
    Under(String),
}

/// The parts of an origin: scheme, host and port (RFC 6454 6.2), which a port of the scheme's own is not written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin<'a> {
    /// `https`, else `http`.
    pub is_https: bool,
    /// As written.
    pub host: &'a str,
    /// 1 to 65535.
    pub port: u16,
}

impl<'a> Origin<'a> {
    /// Takes `text` apart; `None` where it is no origin of HTTP. That the host is a name or an address is not looked at.
    pub fn parse(text: &'a str) -> Option<Origin<'a>> {
        let (scheme, rest) = text.split_once("://")?;
        let (is_https, default) = match scheme {
            "https" => (true, 443),
            "http" => (false, 80),
            _ => return None,
        };
        // The colons of an IPv6 address stand in brackets.
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
                (host, port.parse().ok().filter(|port| is_number && *port > 0)?)
            }
            _ => (rest, default),
        };
        let is_host = !host.is_empty() && !host.contains(['/', '\\', '?', '#', '@', ' ']);
        is_host.then_some(Origin { is_https, host, port })
    }
}

impl OriginPattern {
    /// Whether `origin` is one of these.
    pub fn matches(&self, origin: &Origin<'_>) -> bool {
        let is_host = match &self.host {
            OriginHost::Any => true,
            OriginHost::Exact(host) => host == origin.host,
            OriginHost::Under(suffix) => origin.host.len() > suffix.len() && origin.host.ends_with(suffix.as_str()),
        };
        self.is_https == origin.is_https && self.port == origin.port && is_host
    }
}

impl Origins {
    /// Whether an `Origin` field with this value is among them.
    pub fn contain(&self, value: &HeaderValue) -> bool {
        match self {
            Origins::All => true,
            Origins::Of(patterns) => value
                .to_str()
                .ok()
                .and_then(Origin::parse)
                .is_some_and(|origin| patterns.iter().any(|pattern| pattern.matches(&origin))),
        }
    }
}
