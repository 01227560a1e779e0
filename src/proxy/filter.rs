//! The filters of a rule and of its backends, by what they do.

use http::header::{HOST, InvalidHeaderValue};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::model::spec::{Cors, Filter, HeaderModifier, RequestRedirect, UrlRewrite};

/// Applies every `RequestHeaderModifier`, and the host of a `URLRewrite`, in list order. Error: that host is not a value of a field.
pub(super) fn modify_request(filters: &[Filter], headers: &mut HeaderMap) -> Result<(), InvalidHeaderValue> {
    for filter in filters {
        match filter {
            Filter::RequestHeaderModifier(modifier) => modify(modifier, headers),
            Filter::UrlRewrite(UrlRewrite { hostname: Some(hostname), .. }) => {
                headers.insert(HOST, HeaderValue::from_str(hostname)?);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether a `RequestHeaderModifier` sets, adds or removes this field.
pub(super) fn names_request_field(filters: &[Filter], name: &HeaderName) -> bool {
    filters.iter().any(|filter| match filter {
        Filter::RequestHeaderModifier(modifier) => {
            modifier.set.iter().chain(&modifier.add).any(|field| field.name == name) || modifier.remove.contains(name)
        }
        _ => false,
    })
}

/// Applies every `ResponseHeaderModifier`, in list order.
pub(super) fn modify_response(filters: &[Filter], headers: &mut HeaderMap) {
    for filter in filters {
        if let Filter::ResponseHeaderModifier(modifier) = filter {
            modify(modifier, headers);
        }
    }
}

/// The redirect, if there is one.
pub(super) fn redirect(filters: &[Filter]) -> Option<&RequestRedirect> {
    filters.iter().find_map(|filter| match filter {
        Filter::RequestRedirect(redirect) => Some(redirect),
        _ => None,
    })
}

/// Who may share the answers, if the rule says so.
pub(super) fn cors(filters: &[Filter]) -> Option<&Cors> {
    filters.iter().find_map(|filter| match filter {
        Filter::Cors(cors) => Some(&**cors),
        _ => None,
    })
}

/// The rewrite, if there is one.
pub(super) fn url_rewrite(filters: &[Filter]) -> Option<&UrlRewrite> {
    filters.iter().find_map(|filter| match filter {
        Filter::UrlRewrite(rewrite) => Some(rewrite),
        _ => None,
    })
}

fn modify(modifier: &HeaderModifier, headers: &mut HeaderMap) {
    for field in &modifier.set {
        headers.insert(&field.name, field.value.clone());
    }
    for field in &modifier.add {
        headers.append(&field.name, field.value.clone());
    }
    for name in &modifier.remove {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::header::ACCEPT;

    use super::*;
    use crate::model::spec::HeaderValue as Field;

    #[test]
    fn sets_adds_and_removes() {
        let field =
            |name: &'static str, value| Field { name: HeaderName::from_static(name), value: HeaderValue::from_static(value) };
        let modifier = HeaderModifier { set: vec![field("x-a", "new")], add: vec![field("x-b", "second")], remove: vec![ACCEPT] };
        let filters = [Filter::RequestHeaderModifier(modifier)];
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-a", "1"), ("x-a", "2"), ("x-b", "first"), ("accept", "x")] {
            headers.append(name, HeaderValue::from_static(value));
        }
        modify_response(&filters, &mut headers);
        assert_eq!(headers.len(), 4, "a filter of requests leaves answers alone");
        modify_request(&filters, &mut headers).unwrap();
        let named = ["x-a", "x-b", "accept", "x-c"].map(|name| names_request_field(&filters, &HeaderName::from_static(name)));
        assert_eq!(named, [true, true, true, false]);
        assert_eq!(headers.get_all("x-a").iter().collect::<Vec<_>>(), ["new"]);
        assert_eq!(headers.get_all("x-b").iter().collect::<Vec<_>>(), ["first", "second"]);
        assert!(!headers.contains_key(ACCEPT));
    }
}
