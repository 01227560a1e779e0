//! The blocking half of `PUT /v1/config`: from the text of a configuration to the operations that make it so.
//!
//! One resource at a time is read, checked and compared with a State. What differs becomes an operation; operations are handed on in
//! batches, each as large as one transaction. So what is held at one time does not grow with the text; what does grow is 16 bytes and a
//! flag for each resource, by which resources that stand twice are found, and those that no longer stand there.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::content::{Draft, Fields, at, type_of};
use super::document::Format;
use super::explain::Listener;
use super::findings::Findings;
use super::problem::{ERRORS_MAX, Problem};
use super::sealing::Sealer;
use crate::documents::{self, Form, Limits, Place, ReadError, Sink};
use crate::model::limits::{TRANSACTION_BYTES_MAX, TRANSACTION_OPERATIONS_MAX};
use crate::model::spec::FieldError;
use crate::model::{Digest, Kind, Operation, ResourceKey, State};
use crate::table::Live;

/// How much of one resource, or of one YAML document, is held at most.
const LIMITS: Limits =
    Limits { resource_bytes_max: 4 * 1024 * 1024, document_bytes_max: super::body::BODY_BYTES_MAX, values_max: 1_000_000 };

/// After how many resources what gives no warning is forgotten.
const SETTLE_INTERVAL: usize = 1024;

/// What a configuration is read for.
pub(crate) struct Reading {
    /// The State that it is compared with.
    pub(crate) base: State,
    /// This node's table, which knows the regular expressions that are there.
    pub(crate) live: Arc<Live>,
    /// This node's listeners.
    pub(crate) listeners: Arc<[Listener]>,
    /// Whether what it does not name goes.
    pub(crate) prune: bool,
    /// Whether it is only told what would happen: then the first batch is kept, and the others are counted.
    pub(crate) dry_run: bool,
    /// Takes the full batches.
    pub(crate) batches: mpsc::Sender<Vec<Operation>>,
}

/// What a configuration comes to.
#[derive(Debug)]
pub(crate) struct Wanted {
    base: State,
    prune: bool,
    named: Named,
    /// What was not handed on.
    pub(crate) pending: Batch,
    /// Operations beyond `pending` that a dry run does not show.
    pub(crate) omitted: usize,
    /// What was met in the documents.
    pub(crate) findings: Findings,
    /// Services and certificates that go.
    pub(crate) gone: BTreeSet<ResourceKey>,
}

impl Wanted {
    /// Whether the configuration names this resource.
    pub(crate) fn names(&self, key: &ResourceKey) -> bool {
        self.named.get(key).is_some()
    }

    /// How many of its resources were there as it wants them.
    pub(crate) fn unchanged_count(&self) -> usize {
        self.named.0.values().filter(|is_changed| !**is_changed).count()
    }

    /// What else is to be done where others have made `state` of the State that this was compared with.
    pub(crate) fn catch_up(&mut self, state: &State) -> Vec<Operation> {
        let mut operations = Vec::new();
        for (before, after) in state.changes_since(&self.base) {
            let Some(key) = after.or(before).map(|resource| &resource.key) else { continue };
            let operation = match self.named.get(key) {
                // What it shall be is on its way already.
                Some(true) => None,
                // It was as wanted.
                Some(false) => self.base.get(key).map(|wanted| Operation::Put { key: key.clone(), spec: wanted.spec.clone() }),
                None if self.prune && after.is_some() => Some(Operation::Delete { key: key.clone() }),
                None => None,
            };
            operations.extend(operation);
        }
        operations.iter().for_each(|operation| self.named.change(operation.key()));
        operations
    }
}

/// The resources that a configuration names, and whether an operation on each is on its way.
#[derive(Debug, Default)]
struct Named(HashMap<[u8; 16], bool>);

impl Named {
    fn hash(key: &ResourceKey) -> [u8; 16] {
        let kind = u16::from(key.kind).to_le_bytes();
        let digest = Digest::of_parts([kind.as_slice(), key.name.as_str().as_bytes()]);
        digest.0.first_chunk().copied().unwrap_or_default()
    }

    fn get(&self, key: &ResourceKey) -> Option<bool> {
        self.0.get(&Named::hash(key)).copied()
    }

    /// False: it was named before.
    fn add(&mut self, key: &ResourceKey) -> bool {
        self.0.insert(Named::hash(key), false).is_none()
    }

    fn change(&mut self, key: &ResourceKey) {
        self.0.insert(Named::hash(key), true);
    }
}

/// Operations that fit into one transaction.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    operations: Vec<Operation>,
    byte_count: usize,
}

impl Batch {
    /// What is in it.
    pub(crate) fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// Whether nothing is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// All that is in it; nothing is left.
    pub(crate) fn take(&mut self) -> Vec<Operation> {
        std::mem::take(self).operations
    }

    /// Adds an operation. Where it has no room, gives what there was and begins anew.
    pub(crate) fn push(&mut self, operation: Operation) -> Option<Vec<Operation>> {
        let full = (!self.has_room(&operation)).then(|| self.take());
        self.byte_count += operation.byte_count();
        self.operations.push(operation);
        full
    }

    fn has_room(&self, operation: &Operation) -> bool {
        self.operations.len() < TRANSACTION_OPERATIONS_MAX && self.byte_count + operation.byte_count() <= TRANSACTION_BYTES_MAX
    }
}

/// Why reading ends early.
enum Halt {
    /// There are as many faults as one answer tells.
    Faulty,
    /// Nobody takes the batches any more.
    Abandoned,
}

struct Reader {
    reading: Reading,
    draft: Draft,
    wanted: Wanted,
    resource_count: usize,
    /// Regular expressions of the table that these replace.
    replaced_patterns: usize,
}

impl Reading {
    /// Reads all of `text`. Blocks.
    pub(crate) fn run(self, text: impl Read, format: Format) -> Result<Wanted, Problem> {
        let (base, prune) = (self.base.clone(), self.prune);
        let wanted = Wanted {
            base,
            prune,
            named: Named::default(),
            pending: Batch::default(),
            omitted: 0,
            findings: Findings::default(),
            gone: BTreeSet::new(),
        };
        let sealer = Sealer::new(self.live.keyring(), self.base.clone());
        let mut reader = Reader { reading: self, draft: Draft::naming(sealer), wanted, resource_count: 0, replaced_patterns: 0 };
        let (language, read) = match format {
            Format::Json => ("JSON", documents::read_json(text, &mut reader, &LIMITS)),
            Format::Yaml => ("YAML", documents::read_yaml(text, &mut reader, &LIMITS)),
        };
        match read {
            Ok(count) => reader.finish(count),
            Err(ReadError::Sink(Halt::Faulty)) => Err(reader.faults()),
            Err(ReadError::Sink(Halt::Abandoned)) => Err(Problem::unavailable("the upload was given up")),
            Err(ReadError::Io(error)) => Err(Problem::malformed(format!("the body broke off: {error}"))),
            Err(ReadError::Syntax { message, .. }) => {
                Err(Problem::malformed(format!("the body is not valid {language}: {message}")))
            }
            Err(ReadError::TooLarge { message, .. }) => Err(Problem::too_large(message)),
        }
    }
}

impl Sink for Reader {
    type Error = Halt;

    fn resource(&mut self, place: Place, value: Value) -> Result<(), Halt> {
        let pointer = pointer_of(place);
        if let Err(errors) = self.take(place, &value, &pointer) {
            self.draft.errors(errors);
        }
        if self.draft.error_count() >= ERRORS_MAX {
            return Err(Halt::Faulty);
        }
        self.resource_count += 1;
        if self.resource_count.is_multiple_of(SETTLE_INTERVAL) {
            let present = (!self.wanted.prune).then_some(&self.wanted.base);
            self.draft.content().findings.settle(present, &self.reading.listeners);
        }
        let operations = std::mem::take(&mut self.draft.content().operations);
        operations.into_iter().try_for_each(|operation| self.want(operation))
    }

    fn envelope(&mut self, document: usize, form: Form, fields: Map<String, Value>) -> Result<(), Halt> {
        let pointer = pointer_of(Place { document, item: None });
        match form {
            Form::List => self.draft.errors([at(pointer, "expected an object of items, found a list")]),
            Form::Items => {
                self.draft.errors(Fields::read(&Value::Object(fields), &pointer, &["items"]).err().into_iter().flatten())
            }
        }
        Ok(())
    }
}

impl Reader {
    fn take(&mut self, place: Place, value: &Value, pointer: &str) -> Result<(), Vec<FieldError>> {
        if place.item.is_none() && value.get("kind").is_none() {
            // A list of items does not come here: it is given away item by item.
            let fields = Fields::read(value, pointer, &["items"])?;
            let items = fields.required("items").map_err(|error| vec![error])?;
            return Err(vec![at(fields.path("items"), format!("expected a list, found {}", type_of(items)))]);
        }
        let fields = Fields::read(value, pointer, &["kind", "name", "spec"])?;
        let key = fields.key()?;
        let spec = fields.required("spec").map_err(|error| vec![error])?;
        if !self.wanted.named.add(&key) {
            return Err(vec![at(pointer, format!("{key} stands twice in the configuration"))]);
        }
        self.draft.put(key, spec, &fields.path("spec"));
        Ok(())
    }

    /// Hands an operation on, if it changes something.
    fn want(&mut self, operation: Operation) -> Result<(), Halt> {
        let key = operation.key();
        self.count_replaced(key);
        if let Operation::Put { key, spec } = &operation
            && self.wanted.base.get(key).is_some_and(|present| present.spec == *spec)
        {
            return Ok(());
        }
        self.wanted.named.change(key);
        if self.draft.error_count() > 0 {
            return Ok(());
        }
        if self.reading.dry_run && (self.wanted.omitted > 0 || !self.wanted.pending.has_room(&operation)) {
            self.wanted.omitted += 1;
            return Ok(());
        }
        match self.wanted.pending.push(operation) {
            Some(full) => self.reading.batches.blocking_send(full).map_err(|_| Halt::Abandoned),
            None => Ok(()),
        }
    }

    fn count_replaced(&mut self, key: &ResourceKey) {
        let table = self.reading.live.load();
        if table.pattern_count() > 0 {
            self.replaced_patterns += table.pattern_count_of(key);
        }
    }

    fn finish(mut self, document_count: usize) -> Result<Wanted, Problem> {
        if document_count == 0 {
            // An upload that was cut off must not pass for a wish to remove everything.
            self.draft.errors([at("", "the body holds no document; an empty configuration is written as items: []")]);
        }
        if self.draft.error_count() > 0 {
            return Err(self.faults());
        }
        if self.wanted.prune && self.remove_the_rest().is_break() {
            return Err(Problem::unavailable("the upload was given up"));
        }
        let findings = std::mem::take(&mut self.draft.content().findings);
        findings.check_patterns(&self.reading.live.load(), self.replaced_patterns)?;
        Ok(Wanted { findings, ..self.wanted })
    }

    fn remove_the_rest(&mut self) -> ControlFlow<()> {
        let base = self.wanted.base.clone();
        for key in Kind::SERVED.into_iter().flat_map(|kind| base.resources_after(kind, None)).map(|resource| &resource.key) {
            if self.wanted.named.get(key).is_some() {
                continue;
            }
            if matches!(key.kind, Kind::Service | Kind::Certificate) {
                self.wanted.gone.insert(key.clone());
            }
            if self.want(Operation::Delete { key: key.clone() }).is_err() {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn faults(self) -> Problem {
        match self.draft.finish() {
            Err(problem) => problem,
            Ok(_) => Problem::internal("a draft without faults was refused"),
        }
    }
}

/// The first document is spoken of as if it were alone: whether another follows is not known when it is read.
fn pointer_of(place: Place) -> String {
    let document = if place.document == 0 { String::new() } else { format!("/{}", place.document) };
    place.item.map_or(document.clone(), |item| format!("{document}/items/{item}"))
}

/// A body that comes piece by piece, as something to read from.
pub(crate) struct BodyReader {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    present: Bytes,
}

impl BodyReader {
    pub(crate) fn new(pieces: mpsc::Receiver<io::Result<Bytes>>) -> BodyReader {
        BodyReader { pieces, present: Bytes::new() }
    }
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.present.has_remaining() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.present = piece?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.present.remaining());
        self.present.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}
