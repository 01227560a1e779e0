//! Where settings come from: file, environment, flags; the later overrides the earlier.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::file::NodeFile;
use super::{ConfigError, NodeConfig, validate};

/// What every variable's name begins with.
const PREFIX: &str = "RAFTGATE_";

/// Variables that are read elsewhere: by the command line, and by programs that are built with known bugs.
const NOT_KEYS: &[&str] = &[
    "RAFTGATE_SERVER",
    "RAFTGATE_TOKEN",
    "RAFTGATE_CA",
    "RAFTGATE_CERT",
    "RAFTGATE_KEY",
    "RAFTGATE_CONFIG",
    #[cfg(feature = "known-bugs")]
    "RAFTGATE_KNOWN_BUG",
    #[cfg(feature = "known-bugs")]
    "RAFTGATE_SYNC_DELAY_MS",
];

/// How a message about a missing key begins: of what cannot be parsed without it, and of what cannot be run without it.
const MISSING: [&str; 2] = ["missing field", "is missing"];

/// What is told beside it where there is no file that could have the key.
const NO_FILE: &str = "no configuration file was given, --config FILE (or RAFTGATE_CONFIG) names one";

/// What flags of `serve` say.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--node-id`.
    pub node_id: Option<u64>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--join`.
    pub join: Option<String>,
    /// `--peer-address`.
    pub peer_address: Option<SocketAddr>,
    /// `--admin-address`.
    pub admin_address: Option<SocketAddr>,
    /// `--address`: the first listener's.
    pub listener_address: Option<SocketAddr>,
}

/// The variables of the process that begin with `RAFTGATE_` and are not the command line's own.
pub(super) fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
        .filter(|(name, _)| name.starts_with(PREFIX) && !NOT_KEYS.contains(&name.as_str()))
        .collect()
}

/// Merges the three sources and checks the result.
pub(super) fn load(
    path: Option<&Path>,
    environment: BTreeMap<String, String>,
    overrides: Overrides,
) -> Result<NodeConfig, ConfigError> {
    let mut root = path.map_or_else(|| Ok(Table::new()), read)?;
    let mut origins = BTreeMap::new();
    for (variable, text) in environment {
        let path: Vec<String> = variable[PREFIX.len()..].split("__").map(str::to_ascii_lowercase).collect();
        let key = set(&mut root, &path, parse_variable(&text)).map_err(|message| ConfigError::key(path.join("."), message));
        origins.insert(key.map_err(|error| with_origin(error, &variable))?, variable);
    }
    for (path, value) in flags(overrides) {
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        let key = set(&mut root, &path, value).map_err(|message| ConfigError::key(path.join("."), message))?;
        origins.remove(&key);
    }
    resolve(root).map_err(|error| match error {
        ConfigError::Key { key, message, origin } if path.is_none() && MISSING.iter().any(|word| message.starts_with(word)) => {
            ConfigError::Key { key, message: format!("{message}; {NO_FILE}"), origin }
        }
        ConfigError::Key { ref key, .. } => match origins.get(key) {
            Some(variable) => with_origin(error, variable),
            None => error,
        },
        _ => error,
    })
}

fn with_origin(error: ConfigError, variable: &str) -> ConfigError {
    match error {
        ConfigError::Key { key, message, .. } => ConfigError::Key { key, message, origin: format!(" (from {variable})") },
        other => other,
    }
}

fn read(path: &Path) -> Result<Table, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    text.parse().map_err(|source| ConfigError::Syntax { path: path.to_owned(), source })
}

/// Numbers, booleans, quoted strings, arrays and inline tables are TOML; everything else is text.
fn parse_variable(text: &str) -> Value {
    let parsed = format!("value = {text}").parse::<Table>().ok().and_then(|mut table| table.remove("value"));
    match parsed {
        Some(value) if !matches!(value, Value::Datetime(_)) => value,
        _ => Value::String(text.to_owned()),
    }
}

fn flags(overrides: Overrides) -> Vec<(&'static str, Value)> {
    let text = |address: SocketAddr| Value::String(address.to_string());
    let mut flags = Vec::new();
    if let Some(id) = overrides.node_id {
        // An id beyond what TOML can hold becomes one that validation refuses.
        flags.push(("node_id", Value::Integer(i64::try_from(id).unwrap_or(-1))));
    }
    if let Some(dir) = overrides.data_dir {
        flags.push(("data_dir", Value::String(dir.to_string_lossy().into_owned())));
    }
    flags.extend(overrides.join.map(|address| ("cluster.join", Value::String(address))));
    flags.extend(overrides.peer_address.map(|address| ("cluster.peer_address", text(address))));
    flags.extend(overrides.admin_address.map(|address| ("admin.address", text(address))));
    flags.extend(overrides.listener_address.map(|address| ("listener.0.address", text(address))));
    flags
}

/// Puts `value` at `path`, making the tables and array elements on the way. Gives the key as errors write it: `listener[0].address`.
fn set(root: &mut Table, path: &[String], value: Value) -> Result<String, String> {
    let Some((first, rest)) = path.split_first() else { return Err("the key is empty".to_owned()) };
    // Nothing but `[[listener]]` is an array of tables that a path can go into.
    if first == "listener" && !rest.is_empty() {
        return set_listener(root, rest, value);
    }
    insert(root, path, value)?;
    Ok(path.join("."))
}

/// Puts `value` at `path`, which goes through sections alone.
fn insert(root: &mut Table, path: &[String], value: Value) -> Result<(), String> {
    let Some((last, sections)) = path.split_last() else { return Err("the key is empty".to_owned()) };
    let mut table = root;
    for section in sections {
        table = table
            .entry(section.as_str())
            .or_insert_with(|| Value::Table(Table::new()))
            .as_table_mut()
            .ok_or_else(|| format!("`{section}` is not a section"))?;
    }
    table.insert(last.clone(), value);
    Ok(())
}

fn set_listener(root: &mut Table, path: &[String], value: Value) -> Result<String, String> {
    let listeners = root.entry("listener").or_insert_with(|| Value::Array(Vec::new()));
    let listeners = listeners.as_array_mut().ok_or("`listener` is not an array of tables")?;
    let (Some(index), key @ [_, ..]) = (path.first(), path.get(1..).unwrap_or_default()) else {
        return Err("expected `listener`, a number from 0, and a key".to_owned());
    };
    let index: usize = index.parse().map_err(|_| format!("`{index}` is not a listener's number"))?;
    if index > listeners.len() {
        return Err(format!("there is no listener {} before it", index - 1));
    }
    if index == listeners.len() {
        listeners.push(Value::Table(Table::new()));
    }
    let table = listeners[index].as_table_mut().ok_or("a listener is not a table")?;
    insert(table, key, value)?;
    Ok(format!("listener[{index}].{}", key.join(".")))
}

fn resolve(root: Table) -> Result<NodeConfig, ConfigError> {
    let file: NodeFile = serde_path_to_error::deserialize(Value::Table(root)).map_err(|error| {
        let path = error.path().to_string();
        let message = error.inner().message().to_owned();
        // A missing key has the path of its section: name the key itself.
        let key = match (message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')), path.as_str()) {
            (Some(missing), ".") => missing.to_owned(),
            (Some(missing), section) => format!("{section}.{missing}"),
            (None, _) => path,
        };
        ConfigError::key(key, message)
    })?;
    validate::resolve(file)
}
