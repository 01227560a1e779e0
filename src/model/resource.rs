//! Resources: what a route table is made of.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smol_str::SmolStr;
use thiserror::Error;

use super::ids::{Revision, Timestamp};
use super::limits::NAME_CHARS_MAX;

/// What a resource is. In the log a kind is a number, so that a node passes on kinds that it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "u16", into = "u16")]
pub enum Kind {
    /// Which requests, and what happens to them (Gateway API `HTTPRoute`).
    Route,
    /// A backend and its endpoints.
    Service,
    /// Which gRPC calls, and what happens to them (Gateway API `GRPCRoute`). Feature level 1.
    GrpcRoute,
    /// A certificate chain and its private key, chosen by server name. Feature level 2.
    Certificate,
    /// A kind of a later version, kept and passed on.
    Unknown(u16),
}

impl Kind {
    /// The kinds that this version serves.
    pub const SERVED: [Kind; 4] = [Kind::Route, Kind::Service, Kind::GrpcRoute, Kind::Certificate];

    /// The name in documents: `Route`, `Service`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Route => "Route",
            Kind::Service => "Service",
            Kind::GrpcRoute => "GRPCRoute",
            Kind::Certificate => "Certificate",
            Kind::Unknown(_) => "Unknown",
        }
    }

    /// The path segment of the admin API: `routes`, `services`.
    pub fn plural(self) -> &'static str {
        match self {
            Kind::Route => "routes",
            Kind::Service => "services",
            Kind::GrpcRoute => "grpcroutes",
            Kind::Certificate => "certificates",
            Kind::Unknown(_) => "unknown",
        }
    }

    /// The level that the cluster must have been raised to before such a resource may be written: a member that knows no such kind would
    /// keep it, and route without it.
    pub fn feature_level(self) -> u32 {
        match self {
            Kind::Route | Kind::Service | Kind::Unknown(_) => 0,
            Kind::GrpcRoute => 1,
            Kind::Certificate => 2,
        }
    }

    /// The fields of its spec that hold secrets: sealed before they are proposed, and never shown.
    pub fn secret_fields(self) -> &'static [&'static str] {
        match self {
            Kind::Certificate => &["privateKey"],
            Kind::Route | Kind::Service | Kind::GrpcRoute | Kind::Unknown(_) => &[],
        }
    }

    /// The kind with this path segment, if this version serves it.
    pub fn from_plural(plural: &str) -> Option<Kind> {
        Kind::SERVED.into_iter().find(|kind| kind.plural() == plural)
    }
}

impl From<u16> for Kind {
    fn from(code: u16) -> Kind {
        match code {
            1 => Kind::Route,
            2 => Kind::Service,
            3 => Kind::GrpcRoute,
            4 => Kind::Certificate,
            other => Kind::Unknown(other),
        }
    }
}

impl From<Kind> for u16 {
    fn from(kind: Kind) -> u16 {
        match kind {
            Kind::Route => 1,
            Kind::Service => 2,
            Kind::GrpcRoute => 3,
            Kind::Certificate => 4,
            Kind::Unknown(code) => code,
        }
    }
}

impl FromStr for Kind {
    type Err = ();

    fn from_str(name: &str) -> Result<Kind, ()> {
        Kind::SERVED.into_iter().find(|kind| kind.as_str() == name).ok_or(())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A resource's name: 1-253 characters of `a-z 0-9 - . _`, the first and the last a letter or digit.
///
/// One of up to 23 bytes stands in place: State holds a million of them in its nodes, and to compare them or to copy a node then waits for no
/// memory elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(SmolStr);

/// Why a text is not a [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing at all.
    #[error("a name must not be empty")]
    Empty,
    /// Over [`NAME_CHARS_MAX`].
    #[error("a name has at most {NAME_CHARS_MAX} characters, this one has {0}")]
    TooLong(usize),
    /// A character outside the alphabet.
    #[error("a name has only the characters a-z 0-9 - . _, not {0:?}")]
    Character(char),
    /// `-`, `.` or `_` at an end.
    #[error("a name starts and ends with a letter or digit")]
    Edge,
}

impl Name {
    /// Checks `text` and makes it a name.
    pub fn new(text: &str) -> Result<Name, NameError> {
        let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let known = |byte: u8| alphanumeric(byte) || matches!(byte, b'-' | b'.' | b'_');
        let (Some(&first), Some(&last)) = (text.as_bytes().first(), text.as_bytes().last()) else {
            return Err(NameError::Empty);
        };
        if text.len() > NAME_CHARS_MAX {
            let chars = text.chars().count();
            if chars > NAME_CHARS_MAX {
                return Err(NameError::TooLong(chars));
            }
        }
        if let Some(bad) = text.chars().find(|&c| !u8::try_from(c).is_ok_and(known)) {
            return Err(NameError::Character(bad));
        }
        if !alphanumeric(first) || !alphanumeric(last) {
            return Err(NameError::Edge);
        }
        Ok(Name(SmolStr::new(text)))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Name {
    /// From a text that is borrowed where it can be: a snapshot holds a million of them.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
        struct Reader;

        impl Visitor<'_> for Reader {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a resource's name")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Name, E> {
                Name::new(text).map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Reader)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which resource: its kind and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ResourceKey {
    /// What it is.
    pub kind: Kind,
    /// Its name, unique within the kind.
    pub name: Name,
}

impl ResourceKey {
    /// The key of the resource `kind` `name`.
    pub fn new(kind: Kind, name: Name) -> ResourceKey {
        ResourceKey { kind, name }
    }
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.kind, self.name.as_str())
    }
}

/// One resource as State holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// Kind and name.
    pub key: ResourceKey,
    /// The revision that made it (again, if it had been deleted).
    pub created_revision: Revision,
    /// The last revision that changed it; its entity tag.
    pub revision: Revision,
    /// The wall clock of the node that admitted that change. For people: nothing is decided by it.
    pub updated_at: Timestamp,
    /// The spec as canonical JSON (RFC 8785).
    pub spec: Bytes,
}
