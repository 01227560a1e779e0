//! Reads: pages of resources, the live table, the cluster.
//!
//! Reads of resources are linearizable unless the client says `?consistency=local`; table and cluster are this node's own view.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State as Shares};
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Shared;
use super::body::offload;
use super::call::Call;
use super::problem::Problem;
use super::query::Parameters;
use super::render::{json_at, key_value, resource_text, system_time, text_at};
use super::resources::TargetKind;
use crate::model::limits::NAME_CHARS_MAX;
use crate::model::{Digest, Kind, Name, Resource, ResourceKey, Revision, State};
use crate::raft::{MemberStatus, ReadError};
use crate::table::PUBLICATIONS_MAX;

const PAGE_ITEMS_DEFAULT: usize = 100;
const PAGE_ITEMS_MAX: usize = 1000;
/// Resources that one page looks at: with `hostname` a page may be shorter than asked for, even empty, and still go on.
const PAGE_SCANNED_MAX: usize = 20_000;
/// Hexadecimal digits of the check in a `continue` token.
const TOKEN_CHECK_CHARS: usize = 8;
/// Bytes after which a page ends.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The State to answer from: up to date, or this node's own with `?consistency=local`.
pub(crate) async fn state_for(shared: &Shared, call: &Call, parameters: &Parameters) -> Result<State, Problem> {
    if parameters.choice("consistency", "local", "linearizable")? {
        return Ok(shared.admin.cluster.state());
    }
    shared.admin.cluster.read(call.deadline).await.map_err(|error| unreadable(&error))
}

/// The problem of a read that could not be made linearizable.
pub(crate) fn unreadable(error: &ReadError) -> Problem {
    if matches!(error, ReadError::Diverged(_)) {
        return Problem::diverged(format!("{error}; ask another node (?consistency=local reads what this node has)"));
    }
    Problem::unavailable(format!("no linearizable read (?consistency=local reads what this node has): {error}"))
}

/// `GET /v1/{kind-plural}?limit=&continue=&prefix=&hostname=`
pub(crate) async fn list(
    Shares(shared): Shares<Arc<Shared>>,
    Extension(call): Extension<Call>,
    TargetKind(kind): TargetKind,
    request: Request,
) -> Result<Response, Problem> {
    let mut known = vec!["limit", "continue", "prefix", "consistency"];
    known.extend(matches!(kind, Kind::Route | Kind::GrpcRoute).then_some("hostname"));
    let parameters = Parameters::read(request.uri(), &known)?;
    let wanted = Wanted::read(kind, &parameters)?;
    let state = state_for(&shared, &call, &parameters).await?;
    let revision = state.revision();
    // Reading hostnames out of documents, or taking secrets out, takes long enough to leave the async workers.
    let reads_documents = wanted.hostname.is_some() || !kind.secret_fields().is_empty();
    let cost = if reads_documents { usize::MAX } else { 0 };
    let body = offload(cost, move || Ok(wanted.page(&state))).await?;
    Ok(text_at(StatusCode::OK, revision, body))
}

/// What a page shall hold.
#[derive(Debug)]
struct Wanted {
    kind: Kind,
    limit: usize,
    /// Whether this is the first page.
    first: bool,
    /// Names come after this one.
    after: Option<Name>,
    prefix: String,
    hostname: Option<String>,
}

impl Wanted {
    fn read(kind: Kind, parameters: &Parameters) -> Result<Wanted, Problem> {
        let prefix = parameters.get("prefix").unwrap_or_default().to_owned();
        let mut wanted = Wanted {
            kind,
            limit: parameters.number("limit", PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX)?,
            first: true,
            after: first_with(&prefix),
            prefix,
            hostname: parameters.get("hostname").map(str::to_ascii_lowercase),
        };
        if let Some(token) = parameters.get("continue") {
            (wanted.first, wanted.after) = (false, Some(wanted.name_in(token)?));
        }
        Ok(wanted)
    }

    /// What the next page is asked for with, where this one ends at `name`: the name, and a check of it and of what is asked. The name
    /// need not exist any more when the token comes back. The check tells slips from tokens; it is no secret, and guards nothing.
    fn token(&self, name: &Name) -> String {
        let hostname = self.hostname.as_deref().map(|hostname| format!("hostname={hostname}")).unwrap_or_default();
        let parts = [self.kind.as_str(), &self.prefix, &hostname, name.as_str()];
        let check = Digest::of_parts(parts.map(str::as_bytes)).to_string();
        format!("{name}~{check:.TOKEN_CHECK_CHARS$}")
    }

    /// The name in a token that a page of the same question ended with.
    fn name_in(&self, token: &str) -> Result<Name, Problem> {
        let name = token.rsplit_once('~').and_then(|(name, _)| Name::new(name).ok());
        name.filter(|name| self.token(name) == token).ok_or_else(|| {
            let detail = "is not what a page before answered to the same kind, prefix and hostname";
            Problem::malformed(format!("query parameter \"continue\" {detail}"))
        })
    }

    fn page(&self, state: &State) -> String {
        let mut items = String::new();
        let mut last = None;
        let mut count = 0;
        let mut candidates = self.candidates(state).enumerate().peekable();
        while let Some((scanned, resource)) = candidates.next() {
            if self.wants(resource) {
                let separator = if count == 0 { "" } else { "," };
                items.push_str(separator);
                items.push_str(&resource_text(resource));
                count += 1;
            }
            let full = count == self.limit || scanned + 1 == PAGE_SCANNED_MAX || items.len() >= PAGE_BYTES_MAX;
            if full && candidates.peek().is_some() {
                last = Some(&resource.key.name);
                break;
            }
        }
        match last {
            Some(name) => format!(r#"{{"items":[{items}],"continue":"{}"}}"#, self.token(name)),
            None => format!(r#"{{"items":[{items}]}}"#),
        }
    }

    /// Resources with the prefix after the last one of the page before, by name.
    fn candidates<'a>(&'a self, state: &'a State) -> impl Iterator<Item = &'a Arc<Resource>> {
        // On the first page the prefix itself and the bound, which is not part of the range that comes after it.
        let bounds = [Name::new(&self.prefix).ok(), self.after.clone()].into_iter().flatten().filter(|_| self.first);
        let exact = bounds.filter_map(|name| state.get(&ResourceKey::new(self.kind, name)));
        let rest = state.resources_after(self.kind, self.after.as_ref());
        exact.chain(rest.take_while(|resource| resource.key.name.as_str().starts_with(&self.prefix)))
    }

    fn wants(&self, resource: &Resource) -> bool {
        let Some(hostname) = &self.hostname else { return true };
        let hosts = serde_json::from_slice::<Hosts>(&resource.spec).unwrap_or_default();
        hosts.hostnames.iter().any(|known| known.eq_ignore_ascii_case(hostname))
    }
}

/// The one field that `hostname` looks at.
#[derive(Debug, Default, Deserialize)]
struct Hosts {
    #[serde(default)]
    hostnames: Vec<String>,
}

/// The least name that is longer than `prefix` and begins with it: `-` is the least character, but not the last of a name. `None` where
/// there is no prefix.
fn first_with(prefix: &str) -> Option<Name> {
    if prefix.is_empty() {
        return None;
    }
    // A prefix that no name can have finds nothing, wherever the range begins.
    Name::new(&format!("{prefix:-<width$}0", width = NAME_CHARS_MAX - 1)).ok()
}

/// `GET /v1/table`: what this node serves.
pub(crate) async fn table(Shares(shared): Shares<Arc<Shared>>, request: Request) -> Result<Response, Problem> {
    only_local(&request)?;
    let snapshot = shared.admin.live.load();
    let counts = snapshot.counts();
    let listeners = shared.admin.listeners();
    let listeners: Vec<&str> = listeners.iter().map(|listener| listener.name.as_str()).collect();
    let with_reason = |key: &ResourceKey, reason: &str| {
        let mut value = key_value(key);
        value["reason"] = json!(reason);
        value
    };
    let elsewhere = snapshot
        .bound_elsewhere(&listeners)
        .map(|(route, listener)| with_reason(route, &format!("listener {listener:?} does not exist on this node")));
    let waiting = snapshot.waiting().map(|(route, reason)| with_reason(&route, &reason));
    let not_compiled = snapshot.not_compiled().map(|(key, reason)| with_reason(key, reason)).chain(waiting).chain(elsewhere);
    let not_compiled_count = counts.not_compiled + snapshot.bound_elsewhere(&listeners).count();
    let body = json!({
        "revision": snapshot.revision,
        "digest": snapshot.digest.to_string(),
        "routes": counts.routes,
        "services": counts.services,
        "certificates": counts.certificates,
        "publishedAt": snapshot.published_at().map(system_time),
        "notCompiledCount": not_compiled_count,
        "notCompiled": not_compiled.take(PAGE_ITEMS_MAX).collect::<Vec<Value>>(),
    });
    Ok(json_at(StatusCode::OK, snapshot.revision, &body))
}

/// `GET /v1/table/publications?fromRevision=&limit=`: when this node published the last revisions, by the machine's monotonic clock. It
/// measures how long a change takes to be live: no polling is as exact.
pub(crate) async fn publications(Shares(shared): Shares<Arc<Shared>>, request: Request) -> Result<Response, Problem> {
    let parameters = Parameters::read(request.uri(), &["fromRevision", "limit"])?;
    let from = parameters.number("fromRevision", 1, usize::MAX)?;
    let limit = parameters.number("limit", PAGE_ITEMS_DEFAULT, PUBLICATIONS_MAX)?;
    let publications = shared
        .admin
        .live
        .publications(Revision(from as u64), limit)
        .into_iter()
        .map(|publication| json!({"revision": publication.revision, "monotonicNanos": publication.monotonic_nanos}));
    let body = json!({"publications": publications.collect::<Vec<Value>>()});
    Ok(json_at(StatusCode::OK, shared.admin.live.load().revision, &body))
}

/// What is this node's own view has no linearizable form; saying so in the request is fine.
fn only_local(request: &Request) -> Result<(), Problem> {
    let parameters = Parameters::read(request.uri(), &["consistency"])?;
    match parameters.get("consistency") {
        None | Some("local") => Ok(()),
        Some(other) => Err(Problem::malformed(format!("query parameter \"consistency\" is local here, not {other:?}"))),
    }
}

/// `GET /v1/cluster`: the cluster as this node sees it.
pub(crate) async fn cluster(Shares(shared): Shares<Arc<Shared>>, request: Request) -> Result<Response, Problem> {
    only_local(&request)?;
    let status = shared.admin.cluster.status();
    let state = shared.admin.cluster.state();
    #[cfg_attr(not(feature = "next-format"), expect(unused_mut, reason = "a later version adds a field"))]
    let mut body = json!({
        "clusterId": status.cluster_id,
        "clusterName": status.cluster_name,
        "nodeId": status.node_id,
        "leader": status.leader,
        "term": status.term,
        "quorum": status.quorum,
        "members": status.members.iter().map(member).collect::<Vec<Value>>(),
        "revision": state.revision(),
        "digest": state.digest().to_string(),
        "stateDigest": state.state_digest().to_string(),
        "lastLogIndex": status.last_log_index,
        "committedIndex": status.committed_index,
        "appliedIndex": status.applied_index,
        "snapshotIndex": status.snapshot_index,
        "purgedIndex": status.purged_index,
        "storageFailed": status.storage_failed,
        "bootstrapFailed": status.bootstrap_failed,
        "featureLevel": state.feature_level(),
        "removed": status.removed,
        "jointVoters": status.joint,
        "diverged": status.diverged.or_else(|| shared.admin.live.divergence().map(|what| format!("live table: {what}"))),
    });
    #[cfg(feature = "next-format")]
    {
        body["note"] = json!(state.note());
    }
    Ok(json_at(StatusCode::OK, state.revision(), &body))
}

pub(crate) fn member(member: &MemberStatus) -> Value {
    json!({
        "id": member.id,
        "role": member.role.as_str(),
        "peerAddress": member.peer_address,
        "adminAddress": member.admin_address,
        "version": member.version,
        "revision": member.revision,
        "digest": member.digest.map(|digest| digest.to_string()),
        "published": member.published,
        "lagEntries": member.lag_entries,
        "reachable": member.reachable,
        "diverged": member.diverged,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::{Command, CommandBody, Operation, Timestamp, Transaction};

    fn state(names: &[&str]) -> State {
        let operations = names.iter().map(|name| Operation::Put {
            key: ResourceKey::new(Kind::Route, Name::new(name).expect("a name")),
            spec: Bytes::from(format!("{{\"hostnames\":[\"{}.example\"]}}", &name[..1])),
        });
        let transaction = Transaction { operations: operations.collect(), ..Transaction::default() };
        let body = CommandBody::Transaction(transaction);
        State::default().preview(&Command { proposed_at: Timestamp(1), actor: "test".to_owned(), body }).1
    }

    fn pages(state: &State, query: &str) -> Vec<String> {
        let mut names = Vec::new();
        let mut token = String::new();
        loop {
            let page = read(Kind::Route, &format!("{query}{token}")).expect("wanted").page(state);
            let page: Value = serde_json::from_str(&page).expect("JSON");
            let items = page["items"].as_array().expect("items");
            names.extend(items.iter().filter_map(|item| item["name"].as_str().map(str::to_owned)));
            match page["continue"].as_str() {
                Some(next) => token = format!("&continue={next}"),
                None => return names,
            }
        }
    }

    fn read(kind: Kind, query: &str) -> Result<Wanted, Problem> {
        let uri = format!("/v1/routes?{query}").parse().expect("a URI");
        let parameters = Parameters::read(&uri, &["limit", "prefix", "hostname", "continue"]).expect("parameters");
        Wanted::read(kind, &parameters)
    }

    #[test]
    fn a_token_goes_on_where_its_page_ended_and_others_are_refused() {
        let page = |state: &State, query: &str| -> Value {
            let page = read(Kind::Route, query).map(|wanted| wanted.page(state));
            serde_json::from_str(&page.unwrap_or_else(|problem| panic!("{query}: {problem:?}"))).expect("JSON")
        };
        let first = page(&state(&["aa", "ab", "ac"]), "limit=2&prefix=a");
        let token = first["continue"].as_str().expect("a token");
        // The resource that the page ended with may be gone by now.
        let next = page(&state(&["aa", "ac"]), &format!("limit=7&prefix=a&continue={token}"));
        assert_eq!((next["items"].as_array().map(Vec::len), &next["items"][0]["name"]), (Some(1), &json!("ac")));
        let mut cases = vec![(Kind::Service, format!("prefix=a&continue={token}"))];
        let others = [token.to_owned(), format!("{token}&prefix=ab"), format!("{token}&prefix=a&hostname=h")];
        cases.extend(others.map(|query| (Kind::Route, format!("continue={query}"))));
        for token in ["", "ab", "zzz", "~", "ab~", "ab~00000000", "A~1", "%2F", &token.replace("ab", "ac"), &format!("{token}0")]
        {
            cases.push((Kind::Route, format!("prefix=a&continue={token}")));
        }
        for (kind, query) in cases {
            let problem = read(kind, &query).expect_err(&query);
            assert!(problem.detail().contains("\"continue\" is not what a page before answered"), "{query}: {problem:?}");
        }
    }

    #[test]
    fn pages_hold_every_resource_once_in_order() {
        let names = ["0", "a", "a--0", "a-b", "a.b", "a0", "a_b", "ab", "b", "z9"];
        let state = state(&names);
        for limit in 1..=11 {
            assert_eq!(pages(&state, &format!("limit={limit}")), names, "limit {limit}");
            for prefix in ["a", "a-", "a_", "ab", "b", "z", "A", "-", "zz", "a--0"] {
                let expected: Vec<&str> = names.iter().copied().filter(|name| name.starts_with(prefix)).collect();
                assert_eq!(pages(&state, &format!("limit={limit}&prefix={prefix}")), expected, "limit {limit}, prefix {prefix}");
            }
        }
        assert_eq!(pages(&state, "limit=1&hostname=B.example"), ["b"]);
        assert!(pages(&state, "prefix=b&hostname=a.example").is_empty());
    }
}
