//! What the documents of a write bring with them: what they refer to, and what their author should know.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use bytes::Bytes;
use serde_json::Value;

use super::advice::unreached;
use super::certificates::{Outline, Written, validity};
use super::client_certificates::Shown;
use super::content::at;
use super::explain::Listener;
use super::problem::Problem;
use super::sealing::Sealer;
use super::warnings::Warnings;
use crate::model::spec::{FieldError, Protocol, canonical, other_section, parse_grpc_route, parse_route, parse_service};
use crate::model::{Kind, Name, ResourceKey, State};
use crate::table::{RouteOutline, Snapshot};

/// Where a service has the CAs of its backends.
const CA_CERTIFICATES: &str = "/tls/caCertificates";

/// A place that names a service.
#[derive(Debug, Clone)]
struct Reference {
    place: String,
    service: Name,
    /// Whether gRPC calls go there.
    is_grpc: bool,
    /// Whether it gets copies alone.
    is_mirror: bool,
}

/// A spec that may be proposed.
#[derive(Debug)]
pub(crate) struct Document {
    /// Its canonical form.
    pub(crate) bytes: Bytes,
    /// What its author should know all the same.
    warnings: Vec<String>,
    /// The services that it refers to, and from where.
    references: Vec<Reference>,
    /// The hosts that it is for.
    hostnames: Vec<String>,
    /// The listeners that it is bound to.
    listeners: Vec<String>,
    /// Regular expressions in it.
    pattern_count: usize,
    /// What it speaks, where it is a service.
    protocol: Option<Protocol>,
    /// The certificate that it shows, and where it says so, where it is a service.
    client_certificate: Option<(String, Name)>,
    /// What others may share with it, where it is a certificate.
    certificate: Option<Outline>,
    /// Whether it came with a secret in plain text.
    had_plain_secret: bool,
}

/// Checks the spec of a resource, and seals its secrets. `pointer` is where it stands in the request: `/operations/3/spec`.
pub(crate) fn document(sealer: &Sealer, key: &ResourceKey, spec: &Value, pointer: &str) -> Result<Document, Vec<FieldError>> {
    let kind = key.kind;
    let (mut pattern_count, mut protocol, mut client_certificate, mut admitted) = (0, None, None, None);
    let (mut hostnames, mut listeners) = (Vec::new(), Vec::new());
    let (warnings, references) = match kind {
        Kind::Route | Kind::GrpcRoute => {
            let is_grpc = kind == Kind::GrpcRoute;
            let parsed = if is_grpc { parse_grpc_route(spec) } else { parse_route(spec) };
            let parsed = parsed.map_err(|errors| under(pointer, errors))?;
            let references = parsed.spec.references().map(|named| Reference {
                place: format!("{pointer}{}", named.pointer),
                service: named.service.clone(),
                is_grpc,
                is_mirror: named.is_mirror,
            });
            let references = references.collect();
            pattern_count = parsed.spec.pattern_count();
            (hostnames, listeners) = (parsed.spec.hostnames, parsed.spec.listeners);
            (parsed.warnings, references)
        }
        Kind::Service => {
            let parsed = parse_service(spec).map_err(|errors| under(pointer, errors))?;
            if let Some(label) = spec.pointer(CA_CERTIFICATES).and_then(Value::as_str).and_then(other_section) {
                let message = format!("it holds `{label}`, and anybody who may read sees it: only certificates stand here");
                return Err(vec![at(format!("{pointer}{CA_CERTIFICATES}"), message)]);
            }
            protocol = Some(parsed.spec.protocol);
            let shown = parsed.spec.client_certificate().cloned();
            client_certificate = shown.map(|name| (format!("{pointer}/tls/clientCertificate"), name));
            (parsed.warnings, Vec::new())
        }
        Kind::Certificate => {
            let certificate = sealer.certificate(key, spec).map_err(|errors| under(pointer, errors))?;
            let warnings = validity(&certificate.chain, SystemTime::now()).into_iter().collect();
            admitted = Some(certificate);
            (warnings, Vec::new())
        }
        Kind::Unknown(_) => return Err(vec![at(pointer, "this kind is not supported yet")]),
    };
    let spec = admitted.as_ref().map_or(spec, |admitted| &admitted.document);
    let bytes = canonical(spec).map_err(|error| under(pointer, vec![error]))?;
    let had_plain_secret = admitted.as_ref().is_some_and(|admitted| admitted.was_plain);
    let certificate = admitted.as_ref().map(Outline::of);
    Ok(Document {
        bytes,
        warnings,
        references,
        hostnames,
        listeners,
        pattern_count,
        protocol,
        client_certificate,
        certificate,
        had_plain_secret,
    })
}

fn under(pointer: &str, errors: Vec<FieldError>) -> Vec<FieldError> {
    errors.into_iter().map(|error| FieldError { path: format!("{pointer}{}", error.path), message: error.message }).collect()
}

/// What was met in the documents of a write.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Of the documents themselves.
    warnings: Warnings,
    /// Of what a long upload does not keep: routes that this node's listeners leave out.
    left_out: Warnings,
    references: Vec<Reference>,
    /// Whether there were more references, of services or to them, than are kept.
    is_cut: bool,
    /// Where routes are bound to listeners, and to which.
    bindings: Vec<(String, String)>,
    /// The routes. Once there are more than [`OUTLINES_MAX`], those that came since the last [`Findings::settle`].
    outlines: Vec<RouteOutline>,
    route_count: usize,
    has_grpc: bool,
    /// Services, and what they speak.
    services: BTreeMap<Name, Option<Protocol>>,
    /// Client certificates of services.
    shown: Shown,
    /// Regular expressions.
    pattern_count: usize,
    /// Certificates, by what others may share with them.
    pub(super) certificates: Written,
    /// Whether a secret came in plain text.
    pub(super) had_plain_secret: bool,
}

/// References to services that are yet to come, kept for a warning at most. Beyond them nobody is warned.
const REFERENCES_MAX: usize = 10_000;
/// Routes that are kept for what is told of them together, at most. Where there are more, it is told of the table that they made.
const OUTLINES_MAX: usize = 10_000;
/// Regular expressions in the whole table at most: each takes kilobytes on every node. Judged by the live table of the node that takes the
/// write, so that writes at several nodes at once may pass it by what they bring.
pub(super) const PATTERNS_MAX: usize = 10_000;

impl Findings {
    /// Takes note of a document that stands at `pointer`, and gives its canonical form.
    pub(super) fn add(&mut self, key: &ResourceKey, document: Document, pointer: &str) -> Bytes {
        self.warnings.add(document.warnings.iter().map(|warning| format!("{key}: {warning}")));
        let references = document.references.into_iter();
        self.references
            .extend(references.map(|reference| Reference { place: format!("{key}: {}", reference.place), ..reference }));
        let listeners = document.listeners.iter();
        self.bindings.extend(listeners.map(|listener| (format!("{key}: {pointer}/listeners"), listener.clone())));
        if matches!(key.kind, Kind::Route | Kind::GrpcRoute) {
            let (hostnames, listeners) = (document.hostnames, document.listeners);
            self.outline(RouteOutline { key: key.clone(), hostnames, listeners });
        }
        self.pattern_count += document.pattern_count;
        if key.kind == Kind::Service {
            self.services.insert(key.name.clone(), document.protocol);
        }
        if let Some((place, certificate)) = document.client_certificate {
            self.shown.name(format!("{key}: {place}"), certificate);
        }
        if key.kind == Kind::Certificate {
            self.shown.write(&key.name);
        }
        if let Some(outline) = document.certificate {
            self.certificates.add(&key.name, outline);
        }
        self.had_plain_secret |= document.had_plain_secret;
        document.bytes
    }

    fn outline(&mut self, outline: RouteOutline) {
        self.route_count += 1;
        self.has_grpc |= outline.key.kind == Kind::GrpcRoute;
        self.outlines.push(outline);
    }

    /// The routes of the documents, where they are not too many.
    pub(super) fn outlines(&self) -> &[RouteOutline] {
        if self.is_large() { &[] } else { &self.outlines }
    }

    /// Whether there are more routes than are kept.
    pub(super) fn is_large(&self) -> bool {
        self.route_count > OUTLINES_MAX
    }

    /// Whether there is a gRPC route.
    pub(super) fn has_grpc(&self) -> bool {
        self.has_grpc
    }

    /// Warnings for the answer: the documents' own, those of `waiting`, references to services and certificates that stand neither in `state` nor among these, or that are
    /// `gone`, and routes that this node's `listeners` leave out.
    pub(super) fn warnings(
        &self,
        state: &State,
        gone: &BTreeSet<ResourceKey>,
        waiting: Vec<String>,
        listeners: &[Listener],
    ) -> Warnings {
        let of_references = self.references.iter().filter_map(|reference| {
            let present =
                if gone.contains(&ResourceKey::new(Kind::Service, reference.service.clone())) { None } else { Some(state) };
            reference.warning(self.service(&reference.service, present))
        });
        let mut warnings = self.warnings.clone();
        warnings.add(waiting);
        let mut missing = Warnings::default();
        missing.add(of_references);
        missing.add(self.shown.warnings(state, gone));
        if self.is_cut && missing != Warnings::default() {
            // As of these, some of those that were not kept may name what did not come later.
            missing.cut();
        }
        warnings.append(missing);
        warnings.append(self.left_out.clone());
        warnings.add(self.unbound(listeners));
        warnings.append(unreached(&self.outlines, listeners));
        warnings
    }

    fn unbound(&self, listeners: &[Listener]) -> impl Iterator<Item = String> {
        self.bindings.iter().filter(|(_, name)| !is_here(name, listeners)).map(|(place, name)| {
            format!("{place}: listener {name:?} does not exist on this node; only nodes that have it serve the route there")
        })
    }

    /// Forgets what gives no warning, and what is too much for one answer, so that a long upload does not grow. `present` is the State whose
    /// services stay, if they do.
    pub(crate) fn settle(&mut self, present: Option<&State>, listeners: &[Listener]) {
        let mut references = std::mem::take(&mut self.references);
        references.retain(|reference| reference.warning(self.service(&reference.service, present)).is_some());
        let is_cut = references.len() > REFERENCES_MAX;
        references.truncate(REFERENCES_MAX);
        self.references = references;
        self.is_cut |= self.shown.settle(present) || is_cut;
        let mut left_out = std::mem::take(&mut self.left_out);
        left_out.add(self.unbound(listeners));
        self.bindings.clear();
        if self.is_large() {
            left_out.append(unreached(&std::mem::take(&mut self.outlines), listeners));
        }
        self.left_out = left_out;
    }

    /// Refuses regular expressions beyond [`PATTERNS_MAX`], counted with those of `table` of which these replace `replaced`.
    pub(crate) fn check_patterns(&self, table: &Snapshot, replaced: usize) -> Result<(), Problem> {
        let count = table.pattern_count().saturating_sub(replaced) + self.pattern_count;
        if self.pattern_count == 0 || count <= PATTERNS_MAX {
            return Ok(());
        }
        Err(Problem::too_large(format!(
            "the table would hold {count} regular expressions, the limit is {PATTERNS_MAX}; PathPrefix and PathTemplate have none"
        )))
    }

    #[cfg(test)]
    pub(super) fn claim_patterns(&mut self, count: usize) {
        self.pattern_count = count;
    }

    /// What the service of that name speaks; `None`: there is none. Where a State's document cannot be read here, it is taken to carry all.
    fn service(&self, name: &Name, present: Option<&State>) -> Option<Option<Protocol>> {
        let made = self.services.get(name).copied();
        made.or_else(|| Some(protocol_of(&present?.get(&ResourceKey::new(Kind::Service, name.clone()))?.spec)))
    }
}

fn is_here(name: &str, listeners: &[Listener]) -> bool {
    listeners.iter().any(|listener| listener.name == name)
}

impl Reference {
    /// What its author should know, where there is such a service that speaks this, or none.
    fn warning(&self, service: Option<Option<Protocol>>) -> Option<String> {
        let Reference { place, service: name, is_grpc, is_mirror } = self;
        let name = name.as_str();
        let answer = if *is_grpc { "UNAVAILABLE" } else { "500" };
        let Some(protocol) = service else {
            let meanwhile = match is_mirror {
                true => "nothing is mirrored to it".to_owned(),
                false => format!("its share is answered with {answer}"),
            };
            return Some(format!("{place}: service {name:?} does not exist; {meanwhile} until it does"));
        };
        let refused = *is_grpc && !protocol.is_none_or(Protocol::carries_grpc);
        let then = if *is_mirror { "no call is mirrored to it" } else { "its share is answered with UNAVAILABLE" };
        refused.then(|| format!("{place}: service {name:?} speaks HTTP/1.1, which carries no gRPC: {then}"))
    }
}

/// What a service speaks, as far as this version can read it.
fn protocol_of(spec: &Bytes) -> Option<Protocol> {
    let document = serde_json::from_slice(spec).ok()?;
    parse_service(&document).ok().map(|parsed| parsed.spec.protocol)
}
