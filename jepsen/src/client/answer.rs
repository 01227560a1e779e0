//! Answers, and what they say about an operation.

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::Value as Json;

use crate::history::{Key, Kind, Read, ReadAll, Written};
use crate::routes;

/// A complete answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// Null where it is not JSON.
    pub(crate) body: Json,
}

/// No answer, or none of use.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Nothing was sent: no connection came to be.
    pub(crate) unsent: bool,
    pub(crate) text: String,
}

impl Failure {
    /// It may have been sent.
    pub(crate) fn unknown(text: impl Into<String>) -> Failure {
        Failure { unsent: false, text: text.into() }
    }

    /// What became of a request that ended with this error.
    pub(crate) fn of(error: &reqwest::Error) -> Failure {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        Failure { unsent: error.is_connect(), text }
    }
}

impl Answer {
    /// A header's text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The revision that it was answered at.
    pub(crate) fn revision(&self) -> Option<u64> {
        self.header("raftgate-revision")?.parse().ok()
    }

    /// The body of a success.
    pub(crate) fn success(&self) -> Result<&Json, Failure> {
        if self.status.is_success() { Ok(&self.body) } else { Err(Failure::unknown(self.problem())) }
    }

    /// The routes of one key or one pair; a 404 says that the one key does not exist.
    pub(crate) fn read(&self, keys: &[Key]) -> Result<Read, Failure> {
        let revision = self.revision();
        let found: Vec<Json> = match (self.status, keys) {
            (StatusCode::NOT_FOUND, [_]) => Vec::new(),
            (_, [_]) => vec![self.success()?.clone()],
            _ => self.success()?["items"].as_array().cloned().unwrap_or_default(),
        };
        let revision = revision.ok_or_else(|| Failure::unknown(format!("an answer without a revision: {}", self.problem())))?;
        let found = items(&found)?;
        let of_key = |key: &Key| found.iter().find(|item| item.key == *key).map(|item| (item.revision, item.value));
        Ok(Read { revision, items: keys.iter().map(of_key).collect() })
    }

    /// All routes, which must all be in this one answer.
    pub(crate) fn read_all(&self) -> Result<ReadAll, Failure> {
        let page = self.success()?;
        if page["continue"].is_string() {
            return Err(Failure::unknown("the routes do not fit into one page, and two are not one revision"));
        }
        let listed = page["items"].as_array().zip(self.revision());
        let (listed, revision) = listed.ok_or_else(|| Failure::unknown("a page without items or revision"))?;
        let items = items(listed)?.into_iter().map(|item| (item.key, item.revision, item.value));
        Ok(ReadAll { revision, items: items.collect() })
    }

    /// Status and words, for the history.
    fn problem(&self) -> String {
        format!("{}: {}", self.status.as_u16(), self.body["detail"].as_str().unwrap_or("no detail"))
    }
}

fn items(resources: &[Json]) -> Result<Vec<routes::Item>, Failure> {
    let read = |resource| routes::read(resource).ok_or_else(|| Failure::unknown(format!("not a route of the test: {resource}")));
    resources.iter().map(read).collect()
}

/// What became of a write.
pub(crate) fn judge_write(answer: Result<Answer, Failure>) -> (Kind, Option<Written>, Option<String>) {
    let answer = match answer {
        Ok(answer) => answer,
        Err(Failure { unsent: true, text }) => return (Kind::Fail, None, Some(text)),
        Err(Failure { unsent: false, text }) => return (Kind::Info, None, Some(text)),
    };
    if answer.status.is_success() {
        let made = answer.body["revision"].as_u64().zip(answer.body["changed"].as_bool());
        return match made {
            Some((revision, changed)) => (Kind::Ok, Some(Written { revision, changed }), None),
            None => (Kind::Info, None, Some(format!("a success without a revision: {}", answer.body))),
        };
    }
    let kind = match answer.body["outcome"].as_str() {
        Some("notApplied") => Kind::Fail,
        _ => Kind::Info,
    };
    (kind, None, Some(answer.problem()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(status: u16, body: Json) -> Answer {
        let headers = HeaderMap::from_iter([(
            reqwest::header::HeaderName::from_static("raftgate-revision"),
            reqwest::header::HeaderValue::from_static("7"),
        )]);
        Answer { status: StatusCode::from_u16(status).unwrap(), headers, body }
    }

    #[test]
    fn only_a_certain_no_is_a_failure() {
        let cases = [
            (Ok(answer(200, json!({"revision": 4, "changed": true}))), Kind::Ok),
            (Ok(answer(201, json!({"revision": 4, "changed": true}))), Kind::Ok),
            (Ok(answer(200, json!({}))), Kind::Info),
            (Ok(answer(412, json!({"outcome": "notApplied"}))), Kind::Fail),
            (Ok(answer(503, json!({"outcome": "notApplied"}))), Kind::Fail),
            (Ok(answer(503, json!({"outcome": "unknown"}))), Kind::Info),
            (Ok(answer(504, json!({"outcome": "unknown"}))), Kind::Info),
            (Ok(answer(500, Json::Null)), Kind::Info),
            (Ok(answer(503, Json::Null)), Kind::Info),
            (Err(Failure { unsent: true, text: "refused".to_owned() }), Kind::Fail),
            (Err(Failure::unknown("timed out")), Kind::Info),
        ];
        for (given, kind) in cases {
            let words = format!("{given:?}");
            assert_eq!(judge_write(given).0, kind, "{words}");
        }
        let made = judge_write(Ok(answer(200, json!({"revision": 4, "changed": false})))).1;
        assert_eq!(made, Some(Written { revision: 4, changed: false }));
    }

    #[test]
    fn a_missing_route_is_an_answer_and_a_second_page_is_none() {
        let missing = answer(404, json!({"detail": "no such route"})).read(&[3]).unwrap();
        assert_eq!(missing, Read { revision: 7, items: vec![None] });
        assert!(answer(503, json!({})).read(&[3]).is_err());
        let route = json!({"name": routes::name(3), "revision": 5, "spec": routes::spec(3, 11)});
        let pair = answer(200, json!({"items": [route]})).read(&[2, 3]).unwrap();
        assert_eq!(pair.items, [None, Some((5, 11))]);
        let page = json!({"items": [route], "continue": "x"});
        assert!(answer(200, page).read_all().is_err());
        assert_eq!(answer(200, json!({"items": [route]})).read_all().unwrap().items, [(3, 5, 11)]);
    }
}
