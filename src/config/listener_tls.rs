//! `tls` of a listener: its shape in TOML, and what is checked of it. Names of suites and files are left to who uses them.

use std::fmt;
use std::path::PathBuf;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{ClientAuth, ConfigError, ListenerTlsConfig, TlsVersion};

/// `tls` of a listener: `true`, `false`, or a section that says more.
#[derive(Debug)]
pub(super) enum ListenerTlsFile {
    Switch(bool),
    Section(ListenerTlsSection),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListenerTlsSection {
    min_version: Option<TlsVersionChoice>,
    cipher_suites: Option<Vec<String>>,
    client_ca: Option<PathBuf>,
    client_auth: Option<ClientAuthChoice>,
    session_tickets: Option<bool>,
}

/// By a visitor of its own: an untagged enum would forget which key is wrong.
impl<'de> Deserialize<'de> for ListenerTlsFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ListenerTlsFile, D::Error> {
        struct SwitchOrSection;

        impl<'de> Visitor<'de> for SwitchOrSection {
            type Value = ListenerTlsFile;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or a table")
            }

            fn visit_bool<E>(self, is_on: bool) -> Result<ListenerTlsFile, E> {
                Ok(ListenerTlsFile::Switch(is_on))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ListenerTlsFile, A::Error> {
                ListenerTlsSection::deserialize(MapAccessDeserializer::new(map)).map(ListenerTlsFile::Section)
            }
        }

        deserializer.deserialize_any(SwitchOrSection)
    }
}

/// A version of TLS, as text; a variable's `1.3` reads as a number.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum TlsVersionChoice {
    Text(String),
    Number(f64),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ClientAuthChoice {
    Require,
    Request,
}

/// Checks the `tls` of a listener, which stands at `key`.
pub(super) fn resolve(key: &str, file: Option<ListenerTlsFile>) -> Result<Option<ListenerTlsConfig>, ConfigError> {
    let section = match file {
        None | Some(ListenerTlsFile::Switch(false)) => return Ok(None),
        Some(ListenerTlsFile::Switch(true)) => return Ok(Some(ListenerTlsConfig::default())),
        Some(ListenerTlsFile::Section(section)) => section,
    };
    let min_version = section.min_version.map(|choice| match choice {
        TlsVersionChoice::Text(text) => text,
        TlsVersionChoice::Number(number) => number.to_string(),
    });
    let min_version = match min_version.as_deref() {
        None | Some("1.2") => TlsVersion::Tls12,
        Some("1.3") => TlsVersion::Tls13,
        Some(other) => {
            let message = format!("`{other}` is not a version that is spoken: \"1.2\" or \"1.3\"");
            return Err(ConfigError::key(format!("{key}.min_version"), message));
        }
    };
    if section.cipher_suites.as_ref().is_some_and(Vec::is_empty) {
        return Err(ConfigError::key(format!("{key}.cipher_suites"), "is empty; without the key all suites are spoken"));
    }
    if section.client_auth.is_some() && section.client_ca.is_none() {
        return Err(ConfigError::key(
            format!("{key}.client_auth"),
            format!("needs `{key}.client_ca`, who signs certificates of clients"),
        ));
    }
    Ok(Some(ListenerTlsConfig {
        min_version,
        cipher_suites: section.cipher_suites.unwrap_or_default(),
        client_ca: section.client_ca,
        client_auth: match section.client_auth {
            Some(ClientAuthChoice::Request) => ClientAuth::Request,
            Some(ClientAuthChoice::Require) | None => ClientAuth::Require,
        },
        session_tickets: section.session_tickets.unwrap_or(true),
    }))
}
