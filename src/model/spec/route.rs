//! `Route`: field names and semantics of Gateway API `HTTPRoute` v1, plus `PathTemplate`.
//!
//! A `GRPCRoute` is read into the same types: its services and methods are paths.
//!
//! These are the *resolved* types: defaults filled in, names lower-cased where the standard compares them so, paths normalised.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method, StatusCode};
use smol_str::SmolStr;

use super::cors::Cors;
use super::mirror::RequestMirror;
use super::pattern::Pattern;
use crate::model::Name;

/// A route as it is served.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteSpec {
    /// Host names in lower case, `*.` only as the first label; empty means every host.
    pub hostnames: Vec<String>,
    /// Names of the listeners that serve it; empty means all.
    pub listeners: Vec<String>,
    /// At least one.
    pub rules: Vec<Rule>,
}

impl RouteSpec {
    /// Regular expressions in it.
    pub fn pattern_count(&self) -> usize {
        self.rules.iter().map(Rule::pattern_count).sum()
    }
}

impl Rule {
    /// Regular expressions in it.
    pub fn pattern_count(&self) -> usize {
        self.matches.iter().map(RouteMatch::pattern_count).sum()
    }
}

/// One rule: matches (any of them), filters in order, and where the request goes.
///
/// There may be a million: its lists are no longer than what they hold, and it is laid out as written, so that what a look-up reads stands first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Rule {
    /// Never empty: without any in the document there is one `PathPrefix /`.
    pub matches: Matches,
    /// Unique within the route.
    pub name: Option<Box<str>>,
    /// Run in list order.
    pub filters: Box<[Filter]>,
    /// Shares are proportional to the weights.
    pub backend_refs: Box<[BackendRef]>,
    /// Deadlines of this rule. Boxed: few rules have any.
    pub timeouts: Option<Box<Timeouts>>,
    /// When a request is sent again. Boxed: few rules have one.
    pub retry: Option<Box<Retry>>,
    /// Bounds of what a client may send.
    pub limits: RuleLimits,
}

impl Rule {
    /// Its deadlines, all disabled where it has none.
    pub fn timeouts(&self) -> Timeouts {
        self.timeouts.as_deref().copied().unwrap_or_default()
    }
}

/// The matches of a rule, in list order.
///
/// Nearly always there is one, which stands in place: then a look-up among a million rules waits for memory once less.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Matches {
    /// One alone.
    One(RouteMatch),
    /// Any other number.
    Several(Box<[RouteMatch]>),
}

impl Default for Matches {
    fn default() -> Matches {
        Matches::Several(Box::default())
    }
}

impl From<Vec<RouteMatch>> for Matches {
    fn from(mut matches: Vec<RouteMatch>) -> Matches {
        match matches.pop() {
            Some(only) if matches.is_empty() => Matches::One(only),
            last => Matches::Several(matches.into_iter().chain(last).collect()),
        }
    }
}

impl Deref for Matches {
    type Target = [RouteMatch];

    fn deref(&self) -> &[RouteMatch] {
        match self {
            Matches::One(only) => std::slice::from_ref(only),
            Matches::Several(matches) => matches,
        }
    }
}

/// All conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteMatch {
    /// On the normalised path.
    pub path: PathMatch,
    /// Exact, case-sensitive (RFC 9110 9.1).
    pub method: Option<Method>,
    /// Names are unique: of repeated ones the first counted.
    pub headers: Box<[HeaderMatch]>,
    /// Names are unique: of repeated ones the first counted.
    pub query_params: Box<[QueryMatch]>,
}

impl RouteMatch {
    fn pattern_count(&self) -> usize {
        let is_pattern = |value: &ValueMatch| matches!(value, ValueMatch::RegularExpression(_));
        let headers = self.headers.iter().filter(|header| is_pattern(&header.value)).count();
        let query = self.query_params.iter().filter(|query| is_pattern(&query.value)).count();
        self.path.pattern.as_ref().map_or(0, |pattern| pattern.regex_count()) + headers + query
    }
}

/// How a path is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PathMatchType {
    /// The whole path.
    Exact,
    /// Element by element, with parameters (this project's addition).
    PathTemplate,
    /// The whole path, by an expression.
    RegularExpression,
    /// Whole path elements from the left; a trailing `/` of the value is ignored.
    PathPrefix,
}

/// A condition on the path. The value is normalised as request paths are; an expression is taken as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathMatch {
    /// How it is compared.
    pub match_type: PathMatchType,
    /// Starts with `/`, but for an expression, whose text it is. A short one stands in place.
    pub value: SmolStr,
    /// What `value` compiles to: there for `RegularExpression` and for nothing else.
    pub pattern: Option<Arc<Pattern>>,
}

/// A condition on a value: all of it must be so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueMatch {
    /// These bytes, with case.
    Exact(String),
    /// What the expression matches.
    RegularExpression(Arc<Pattern>),
}

impl ValueMatch {
    /// Whether it holds for `value`.
    pub fn matches(&self, value: &[u8]) -> bool {
        match self {
            ValueMatch::Exact(expected) => expected.as_bytes() == value,
            ValueMatch::RegularExpression(pattern) => pattern.matches(value),
        }
    }
}

impl fmt::Display for ValueMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueMatch::Exact(text) => f.write_str(text),
            ValueMatch::RegularExpression(pattern) => write!(f, "~ {}", pattern.text()),
        }
    }
}

/// A condition on a header; repeated fields are joined with a comma.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderMatch {
    /// Compared without case.
    pub name: HeaderName,
    /// What its value must be.
    pub value: ValueMatch,
}

/// A condition on a query parameter; of a repeated parameter the first counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryMatch {
    /// Compared with case, after percent-decoding the request's.
    pub name: String,
    /// What its value must be, after percent-decoding the request's.
    pub value: ValueMatch,
}

/// What is done to a request or its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// Before it is sent on.
    RequestHeaderModifier(HeaderModifier),
    /// Before it is answered.
    ResponseHeaderModifier(HeaderModifier),
    /// Answered at once; excludes backends and rewrites.
    RequestRedirect(RequestRedirect),
    /// Changes what the backend sees.
    UrlRewrite(UrlRewrite),
    /// Says which pages of other origins may read the answers. Boxed: it is large, and few rules have one.
    Cors(Box<Cors>),
    /// Sends a copy elsewhere and drops its answer. May repeat.
    RequestMirror(RequestMirror),
}

/// Header changes, in the order set, add, remove; a name occurs in one of them at most.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderModifier {
    /// Replace every value of the name.
    pub set: Vec<HeaderValue>,
    /// Append a value.
    pub add: Vec<HeaderValue>,
    /// Remove every value.
    pub remove: Vec<HeaderName>,
}

/// A header field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderValue {
    /// Its name.
    pub name: HeaderName,
    /// A valid field value (RFC 9110 5.5).
    pub value: http::HeaderValue,
}

/// Scheme of a redirect's `Location`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedirectScheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

/// A redirect. What is not given stays as in the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRedirect {
    /// Scheme of the `Location`.
    pub scheme: Option<RedirectScheme>,
    /// Host of the `Location`.
    pub hostname: Option<String>,
    /// Path of the `Location`.
    pub path: Option<PathModifier>,
    /// Port of the `Location`; without it the scheme's well-known port where `scheme` is set, else the listener's.
    pub port: Option<u16>,
    /// 301, 302 (default), 303, 307 or 308.
    pub status_code: StatusCode,
}

/// A rewrite of what the backend sees.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UrlRewrite {
    /// The new `Host`.
    pub hostname: Option<String>,
    /// The new path.
    pub path: Option<PathModifier>,
}

/// How a path is changed. The query stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathModifier {
    /// The whole path. `{name}` takes a parameter of the rule's `PathTemplate` matches.
    ReplaceFullPath(String),
    /// The matched prefix; the rule has exactly one match, of type `PathPrefix`.
    ReplacePrefixMatch(String),
}

/// A share of the requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendRef {
    /// The `Service`; it need not exist yet.
    pub name: Name,
    /// 0 to 1,000,000, default 1; the share is weight by sum, 0 gets nothing.
    pub weight: u32,
    /// Run after the rule's, for the requests of this share alone. Header modifiers and rewrites; what a rewrite sets here counts
    /// instead of what the rule's sets.
    pub filters: Box<[Filter]>,
}

/// Deadlines; `None` is disabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeouts {
    /// From the arrival of the head to the end of the answer, over all tries.
    pub request: Option<Duration>,
    /// One try; at most `request`, where that is set.
    pub backend_request: Option<Duration>,
}

/// What a client may send; this project's addition. `None`: as the listener has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RuleLimits {
    /// Bytes of a request's body.
    pub max_request_body: Option<u64>,
}

/// When a request is sent again (Gateway API `HTTPRouteRetry`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Statuses of a backend's answer, 400 to 599, for which the request is sent again whatever its method.
    pub codes: Vec<StatusCode>,
    /// Re-tries at most, beside the first try; at least 1, which is the default.
    pub attempts: u32,
    /// The least wait before a re-try; default 25 ms.
    pub backoff: Duration,
}
