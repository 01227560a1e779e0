//! The routes of a test: a key's name, the spec that holds a value, and the way back.

use serde_json::{Value as Json, json};

use crate::history::{BACKENDS, Key, Value, backend_of};

/// The response header in which a route shows its value.
pub(crate) const VALUE_HEADER: &str = "x-test-value";
/// The response header in which a backend gives its name.
pub(crate) const BACKEND_HEADER: &str = "x-test-backend";
/// What the names of all routes of a test begin with.
pub(crate) const PREFIX: &str = "key-";

/// A key's route. The two keys of a pair share a prefix, so that one page reads both.
pub(crate) fn name(key: Key) -> String {
    format!("{}{}", pair_prefix(key), key % 2)
}

/// What the names of a key and its partner begin with, and no other's.
pub(crate) fn pair_prefix(key: Key) -> String {
    format!("{PREFIX}{:05}-", key / 2)
}

/// The host that a key's route serves.
pub(crate) fn hostname(key: Key) -> String {
    format!("{}.test", name(key))
}

/// The spec of a key's route with a value: shown in a header of every answer, and named by the backend.
pub(crate) fn spec(key: Key, value: Value) -> Json {
    json!({
        "hostnames": [hostname(key)],
        "rules": [{
            "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
            "filters": [{"type": "ResponseHeaderModifier",
                         "responseHeaderModifier": {"set": [{"name": VALUE_HEADER, "value": value.to_string()}]}}],
            "backendRefs": [{"name": backend_of(value)}],
        }],
    })
}

/// The services that values name.
pub(crate) fn services() -> impl Iterator<Item = String> {
    (0..BACKENDS).map(backend_of)
}

/// What an answer says of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) key: Key,
    /// The route's own revision.
    pub(crate) revision: u64,
    pub(crate) value: Value,
}

/// Reads a route of the admin API.
pub(crate) fn read(resource: &Json) -> Option<Item> {
    let (pair, half) = resource["name"].as_str()?.strip_prefix(PREFIX)?.split_once('-')?;
    let key = pair.parse::<Key>().ok()? * 2 + half.parse::<Key>().ok()?;
    let set = &resource["spec"]["rules"][0]["filters"][0]["responseHeaderModifier"]["set"][0];
    Some(Item { key, revision: resource["revision"].as_u64()?, value: set["value"].as_str()?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for key in [0, 1, 7, 12_345] {
            let resource = json!({"kind": "Route", "name": name(key), "revision": 9, "spec": spec(key, 4_000_000_002)});
            assert_eq!(read(&resource), Some(Item { key, revision: 9, value: 4_000_000_002 }));
        }
        assert_eq!(read(&json!({"kind": "Route", "name": "other", "revision": 9, "spec": {}})), None);
    }

    #[test]
    fn a_pair_and_no_other_key_has_its_prefix() {
        let with_prefix: Vec<Key> = (0..100).filter(|&key| name(key).starts_with(&pair_prefix(6))).collect();
        assert_eq!(with_prefix, [6, 7]);
    }
}
