//! What an answer says of pages of other origins: the CORS protocol of the Fetch standard, as Gateway API's `HTTPCORSFilter` has it.
//!
//! The gateway alone says it for a rule that has the filter: what a backend says is replaced. An origin that is not allowed gets the same
//! answer without a word of sharing, and its browser keeps the answer from the page. A preflight (an OPTIONS with `Origin` and
//! `Access-Control-Request-Method`) is answered by the gateway with 204, and never sent on. With credentials browsers do not take `*`:
//! then the fields repeat what the request asks for.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
    SET_COOKIE, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, request};

use crate::model::spec::{Cors, Listed, Origins};

const ALL: HeaderValue = HeaderValue::from_static("*");
const TRUE: HeaderValue = HeaderValue::from_static("true");
const VARY_ORIGIN: HeaderValue = HeaderValue::from_static("Origin");

/// What the answer to one request will say.
#[derive(Debug)]
pub(super) struct Sharing {
    /// `Access-Control-Allow-Origin`; `None` where the request has no origin, or one that is not allowed.
    allow_origin: Option<HeaderValue>,
    allow_credentials: bool,
    /// Whether another origin would get another answer.
    varies: bool,
    part: Part,
}

/// What depends on the kind of the request.
#[derive(Debug)]
enum Part {
    Preflight { allow_methods: Option<HeaderValue>, allow_headers: Option<HeaderValue>, max_age: u32 },
    Actual { expose_headers: Listed },
}

impl Sharing {
    /// Of the request with this head.
    pub(super) fn of(cors: &Cors, head: &request::Parts) -> Sharing {
        let repeats_origin = cors.allow_credentials || cors.allow_origins != Origins::All;
        let mut origins = head.headers.get_all(ORIGIN).iter();
        let origin = origins.next().filter(|_| origins.next().is_none());
        let allowed = origin.filter(|origin| cors.allow_origins.contain(origin));
        let asked_method = head.headers.get(ACCESS_CONTROL_REQUEST_METHOD);
        let part = match (&head.method, origin, asked_method) {
            (&Method::OPTIONS, Some(_), Some(asked_method)) => {
                let asked_headers = head.headers.get(ACCESS_CONTROL_REQUEST_HEADERS);
                Part::Preflight {
                    allow_methods: allow_list(&cors.allow_methods, cors.allow_credentials, Some(asked_method)),
                    allow_headers: allow_list(&cors.allow_headers, cors.allow_credentials, asked_headers),
                    max_age: cors.max_age,
                }
            }
            _ => Part::Actual { expose_headers: cors.expose_headers.clone() },
        };
        Sharing {
            allow_origin: allowed.map(|origin| if repeats_origin { origin.clone() } else { ALL }),
            allow_credentials: cors.allow_credentials,
            varies: repeats_origin,
            part,
        }
    }

    /// Whether the gateway answers the request itself.
    pub(super) fn is_preflight(&self) -> bool {
        matches!(self.part, Part::Preflight { .. })
    }

    /// Puts it into the head of the answer, in place of what a backend says.
    pub(super) fn write(self, headers: &mut HeaderMap) {
        let said: Vec<HeaderName> = headers.keys().filter(|name| is_sharing(name)).cloned().collect();
        for name in said {
            headers.remove(name);
        }
        if self.varies && !varies_by_origin(headers) {
            headers.append(VARY, VARY_ORIGIN);
        }
        let Some(origin) = self.allow_origin else { return };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.allow_credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        }
        match self.part {
            Part::Preflight { allow_methods, allow_headers, max_age } => {
                headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(max_age));
                allow_methods.map(|names| headers.insert(ACCESS_CONTROL_ALLOW_METHODS, names));
                allow_headers.map(|names| headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names));
            }
            Part::Actual { expose_headers } => {
                let names = expose_list(expose_headers, self.allow_credentials, headers);
                names.map(|names| headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, names));
            }
        }
    }
}

fn is_sharing(name: &HeaderName) -> bool {
    name.as_str().starts_with("access-control-")
}

/// The value of an `Access-Control-Allow-` field. All of something means all that is asked for, where `*` cannot be said.
fn allow_list(listed: &Listed, has_credentials: bool, asked: Option<&HeaderValue>) -> Option<HeaderValue> {
    match listed {
        Listed::Nothing => None,
        Listed::Names(names) => Some(names.clone()),
        Listed::All if has_credentials => asked.cloned(),
        Listed::All => Some(ALL),
    }
}

/// The value of `Access-Control-Expose-Headers`. All means the names of all fields of the answer, where `*` cannot be said.
fn expose_list(listed: Listed, has_credentials: bool, headers: &HeaderMap) -> Option<HeaderValue> {
    match listed {
        Listed::Nothing => None,
        Listed::Names(names) => Some(names),
        Listed::All if has_credentials => {
            let names = headers.keys().filter(|name| !is_sharing(name) && **name != SET_COOKIE);
            let names: Vec<&str> = names.map(HeaderName::as_str).collect();
            HeaderValue::try_from(names.join(", ")).ok()
        }
        Listed::All => Some(ALL),
    }
}

fn varies_by_origin(headers: &HeaderMap) -> bool {
    let values = headers.get_all(VARY).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|name| matches!(name.trim(), "*") || name.trim().eq_ignore_ascii_case("origin"))
}
