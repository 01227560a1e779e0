//! EDN, the form in which Jepsen's tools read and write data (github.com/edn-format/edn): the part of it that a history needs.
//!
//! Left out on purpose: characters, ratios, exponents in symbols, tagged values, comments inside a line and the discard form. The reader
//! refuses what it does not know, with the place, for a history that is half understood would be judged wrongly. A crate was looked
//! for: `edn-rs` is deprecated, and `edn-format` brings fifty more crates for dates, UUIDs and big decimals.

mod read;
mod write;

pub(crate) use read::parse;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Edn {
    Nil,
    Bool(bool),
    /// Wider than Clojure's `long`, so that each `u64` fits; written with the suffix `N` where a `long` would not hold it.
    Int(i128),
    Float(f64),
    Text(String),
    /// Without its colon.
    Keyword(String),
    Vector(Vec<Edn>),
    /// In the order written, for readable files.
    Map(Vec<(Edn, Edn)>),
}

impl Edn {
    /// A map with keywords as keys.
    pub(crate) fn map<const N: usize>(entries: [(&str, Edn); N]) -> Edn {
        Edn::Map(entries.into_iter().map(|(name, value)| (Edn::keyword(name), value)).collect())
    }

    /// A keyword.
    pub(crate) fn keyword(name: &str) -> Edn {
        Edn::Keyword(name.to_owned())
    }

    /// A vector.
    pub(crate) fn vector(items: impl IntoIterator<Item = impl Into<Edn>>) -> Edn {
        Edn::Vector(items.into_iter().map(Into::into).collect())
    }

    /// What a map holds under a keyword; none for `nil`, for a map without it, and for what is no map.
    pub(crate) fn get(&self, name: &str) -> Option<&Edn> {
        let Edn::Map(entries) = self else { return None };
        entries
            .iter()
            .find(|(key, _)| matches!(key, Edn::Keyword(keyword) if keyword == name))
            .map(|(_, value)| value)
            .filter(|value| **value != Edn::Nil)
    }
}

impl From<u64> for Edn {
    fn from(number: u64) -> Edn {
        Edn::Int(number.into())
    }
}

impl From<u32> for Edn {
    fn from(number: u32) -> Edn {
        Edn::Int(number.into())
    }
}

impl From<u16> for Edn {
    fn from(number: u16) -> Edn {
        Edn::Int(number.into())
    }
}

impl From<bool> for Edn {
    fn from(truth: bool) -> Edn {
        Edn::Bool(truth)
    }
}

impl From<f64> for Edn {
    fn from(number: f64) -> Edn {
        Edn::Float(number)
    }
}

impl From<&str> for Edn {
    fn from(text: &str) -> Edn {
        Edn::Text(text.to_owned())
    }
}

impl<T: Into<Edn>> From<Option<T>> for Edn {
    fn from(value: Option<T>) -> Edn {
        value.map_or(Edn::Nil, Into::into)
    }
}
