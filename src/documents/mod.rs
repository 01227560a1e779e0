//! Resources out of JSON or YAML text of any length, one at a time.
//!
//! Files of the command line and bodies of `PUT /v1/config` are texts of one or more *documents*. A document is a resource; or a list of
//! them, `[...]`; or `{"items": [...]}` with other fields around the list, as a node shows a configuration and Kubernetes a `List`. What
//! is read goes to a [`Sink`] as soon as it is complete, so that a million resources take the memory of one:
//!
//! - [`read_json`] reads documents that follow one another, with or without white space between them, and gives the elements of a list
//!   while it reads the list.
//! - [`read_yaml`] cuts the text at document markers and holds one document. YAML cannot be read in smaller pieces: an alias at its end
//!   may stand for what its beginning names.
//!
//! A document that is empty (`null`; in YAML also nothing but comments) is passed over and has no number. A byte order mark at the
//! beginning of a text is no part of it.
//!
//! # What is refused
//!
//! Values are taken by [`StrictValue`], the one reader of outside text, which every other JSON body goes through as well: `serde_json`
//! keeps the last of two equal keys, so that two readers of one document could see two different routes. Here a repeated key is an error.
//! Depth is bounded by the parsers (128 levels; lists and mappings in brackets of YAML are counted before its parser sees them), the rest
//! by [`Limits`]. Whether fields mean anything is for the sink to judge.

mod flow;
mod json;
mod resources;
mod strict;
#[cfg(test)]
mod tests;
mod yaml;

use std::io;

use serde_json::{Map, Value};
use thiserror::Error;

pub(crate) use json::read_json;
pub(crate) use strict::StrictValue;
pub(crate) use yaml::read_yaml;

/// Where a resource stands in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its document, counted from 0.
    pub(crate) document: usize,
    /// Its place in the document's list, counted from 0; `None` where the document itself is the resource.
    pub(crate) item: Option<usize>,
}

/// How a document is a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// `{"items": [...]}`
    Items,
    /// `[...]`
    List,
}

/// Takes what is read, in the order of the text. After its first error nothing more is read.
pub(crate) trait Sink {
    /// Why it does not want to go on.
    type Error;

    /// A resource. Any value that is no list: what has `items` that are none comes here as well.
    fn resource(&mut self, place: Place, value: Value) -> Result<(), Self::Error>;

    /// The end of a document that was a list, with the fields beside `items`, wherever in the document they stood.
    fn envelope(&mut self, document: usize, form: Form, fields: Map<String, Value>) -> Result<(), Self::Error>;
}

/// How much is held at one time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of the JSON text of one resource, the white space before it included; and of all that stands around one document's list.
    pub(crate) resource_bytes_max: usize,
    /// Values (of any type, at any depth) of one resource. In YAML, whose aliases name one value many times, also how many more values
    /// than bytes a text may have.
    pub(crate) values_max: usize,
    /// Bytes of one YAML document.
    pub(crate) document_bytes_max: usize,
}

/// Why a text was not read to its end. Documents are counted from 0.
#[derive(Debug, Error)]
pub(crate) enum ReadError<E> {
    /// It could not be read.
    #[error("{0}")]
    Io(#[source] io::Error),
    /// It is no such text, or broke off.
    #[error("{message}")]
    Syntax {
        /// Which document.
        document: usize,
        /// What is wrong, with line and column.
        message: String,
    },
    /// More than [`Limits`].
    #[error("{message}")]
    TooLarge {
        /// Which document.
        document: usize,
        /// What is too large, and what helps.
        message: String,
    },
    /// The sink does not want to go on.
    #[error("{0}")]
    Sink(E),
}
