//! `secrets`: making keys. Like `recover` it asks no node.

use std::process::ExitCode;

use super::arguments::SecretsCommand;
use super::print::out;
use crate::secrets::create_key_file;

/// Runs a command under `secrets`.
///
/// # Errors
///
/// The file exists, or cannot be written.
pub fn run_secrets(command: &SecretsCommand) -> anyhow::Result<ExitCode> {
    let SecretsCommand::NewKey { file } = command;
    let id = create_key_file(file)?;
    out(format!("{}: a new key, {id}; copy it to every node and name it there in secrets.key_file", file.display()));
    Ok(ExitCode::SUCCESS)
}
