//! The resources of one document, given away while it is read.

use std::cell::Cell;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Value};

use super::strict::{Key, StrictValue, repeated};
use super::{Form, Limits, Place, ReadError, Sink};

/// The field of a document that holds its list.
const ITEMS: &str = "items";

/// What the resource that is read may still take.
#[derive(Debug)]
pub(super) struct Budget {
    limits: Limits,
    /// Bytes of text, of which whoever reads the source takes. 0 also once nothing more shall be read.
    pub(super) bytes: Cell<usize>,
    values: Cell<usize>,
    /// What [`Budget::values`] began with.
    values_granted: Cell<usize>,
    /// Values that the rest of the text may have.
    values_left: Cell<usize>,
}

impl Budget {
    pub(super) fn new(limits: Limits, values_left: usize) -> Budget {
        let bytes = Cell::new(limits.resource_bytes_max);
        let (values, values_granted, values_left) = (Cell::new(0), Cell::new(0), Cell::new(values_left));
        let budget = Budget { limits, bytes, values, values_granted, values_left };
        budget.renew();
        budget
    }

    /// For the next resource.
    pub(super) fn renew(&self) {
        self.grant(self.limits.resource_bytes_max, self.limits.values_max);
    }

    /// Of all values of a text one more may be taken for each of `bytes`.
    pub(super) fn allow(&self, bytes: usize) {
        self.values_left.set(self.values_left.get().saturating_add(bytes));
        self.renew();
    }

    fn grant(&self, bytes: usize, values: usize) {
        let taken = self.values_granted.get() - self.values.get();
        self.values_left.set(self.values_left.get().saturating_sub(taken));
        let values = values.min(self.values_left.get());
        self.values_granted.set(values);
        self.values.set(values);
        self.bytes.set(bytes);
    }

    /// What was asked for and not there.
    fn exceeded(&self) -> Option<String> {
        let Limits { resource_bytes_max, values_max, .. } = self.limits;
        if self.bytes.get() == 0 {
            return Some(format!("over the limit of {resource_bytes_max} bytes"));
        }
        match self.values.get() {
            0 if self.values_granted.get() < values_max => Some("aliases that stand for too many values".to_owned()),
            0 => Some(format!("over the limit of {values_max} values")),
            _ => None,
        }
    }
}

/// One reading of a text.
pub(super) struct Reading<'a, S: Sink> {
    sink: &'a mut S,
    pub(super) budget: &'a Budget,
    /// The document that is read.
    pub(super) document: usize,
    /// The element of its list that is read.
    item: Option<usize>,
    refused: Option<S::Error>,
}

impl<'a, S: Sink> Reading<'a, S> {
    pub(super) fn new(sink: &'a mut S, budget: &'a Budget) -> Self {
        Reading { sink, budget, document: 0, item: None, refused: None }
    }

    /// Reads one document. Errors of the source and of its language are the caller's to tell, after [`Reading::broken_off`].
    pub(super) fn read<'de, D: Deserializer<'de>>(&mut self, deserializer: D) -> Result<(), D::Error> {
        let found = deserializer.deserialize_any(Part { reading: &mut *self, is_document: true })?;
        let taken = match found {
            Found::Value(Value::Null) => return Ok(()),
            Found::Value(value) => self.sink.resource(Place { document: self.document, item: None }, value),
            Found::List(form, fields) => self.sink.envelope(self.document, form, fields),
        };
        self.document += 1;
        taken.map_err(|error| self.stop(error))
    }

    /// Why [`Reading::read`] failed, unless for an error of the text or its source.
    pub(super) fn broken_off(&mut self) -> Option<ReadError<S::Error>> {
        if let Some(error) = self.refused.take() {
            return Some(ReadError::Sink(error));
        }
        let what = self.budget.exceeded()?;
        let place = self.item.map_or_else(|| "the document".to_owned(), |item| format!("the resource at /{ITEMS}/{item}"));
        Some(ReadError::TooLarge { document: self.document, message: format!("{place} is {what}") })
    }

    fn stop<E: serde::de::Error>(&mut self, error: S::Error) -> E {
        self.refused = Some(error);
        // Parsers look for the end of a list whose reader failed.
        self.budget.bytes.set(0);
        E::custom("refused")
    }

    /// Gives the elements away, each on a budget of its own.
    fn items<'de, A: SeqAccess<'de>>(&mut self, mut items: A) -> Result<(), A::Error> {
        let budget = self.budget;
        let around = (budget.bytes.get(), budget.values.get());
        for item in 0.. {
            budget.renew();
            self.item = Some(item);
            let Some(value) = items.next_element_seed(StrictValue { budget: &budget.values })? else { break };
            let place = Place { document: self.document, item: self.item };
            self.sink.resource(place, value).map_err(|error| self.stop(error))?;
        }
        self.item = None;
        budget.grant(around.0, around.1);
        Ok(())
    }
}

/// What a document or its `items` came to.
enum Found {
    Value(Value),
    /// A list, given away, and what stood around it.
    List(Form, Map<String, Value>),
}

/// A document, or what stands under its `items`.
struct Part<'r, 'a, S: Sink> {
    reading: &'r mut Reading<'a, S>,
    is_document: bool,
}

impl<'a, S: Sink> Part<'_, 'a, S> {
    fn strict(&self) -> StrictValue<'a> {
        StrictValue { budget: &self.reading.budget.values }
    }
}

impl<'de, S: Sink> DeserializeSeed<'de> for Part<'_, '_, S> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, S: Sink> Visitor<'de> for Part<'_, '_, S> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.strict().expecting(f)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Found, E> {
        self.strict().visit_unit().map(Found::Value)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Found, E> {
        self.strict().visit_none().map(Found::Value)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Found, E> {
        self.strict().visit_bool(value).map(Found::Value)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Found, E> {
        self.strict().visit_i64(value).map(Found::Value)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Found, E> {
        self.strict().visit_u64(value).map(Found::Value)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Found, E> {
        self.strict().visit_f64(value).map(Found::Value)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Found, E> {
        self.strict().visit_str(value).map(Found::Value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Found, A::Error> {
        self.reading.items(items)?;
        Ok(Found::List(Form::List, Map::new()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Found, A::Error> {
        let strict = self.strict();
        if !self.is_document {
            return strict.visit_map(entries).map(Found::Value);
        }
        let mut fields = Map::new();
        let mut is_list = false;
        while let Some(key) = entries.next_key_seed(Key)? {
            let is_items = key == ITEMS;
            match fields.entry(key) {
                Entry::Occupied(entry) => return Err(repeated(entry.key())),
                Entry::Vacant(_) if is_items && is_list => return Err(repeated(ITEMS)),
                Entry::Vacant(entry) if is_items => {
                    match entries.next_value_seed(Part { reading: &mut *self.reading, is_document: false })? {
                        Found::Value(value) => {
                            entry.insert(value);
                        }
                        Found::List(..) => is_list = true,
                    }
                }
                Entry::Vacant(entry) => {
                    entry.insert(entries.next_value_seed(strict)?);
                }
            }
        }
        Ok(if is_list { Found::List(Form::Items, fields) } else { Found::Value(Value::Object(fields)) })
    }
}
