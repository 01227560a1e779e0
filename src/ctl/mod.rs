//! The command line: what is typed, and commands that ask a running node.
//!
//! Everything here speaks the admin API and nothing else, so that it can do no more than any other client. `serve` is only described
//! here; `main` hands it to [`crate::server`]. [`run`] returns what the process should exit with: 0 done, 1 refused or failed (the
//! problem's text stands on the standard error); clap itself exits with 2 on wrong usage.
//!
//! A command's life: [`arguments`] (what was typed), [`documents`] (files, also of [`kubernetes`], which [`reading`] takes in while the call
//! goes on), [`client`] (the call), [`mod@print`] (the answer). [`demo`] runs three nodes as processes of the same program and drives them
//! through the same client. [`certs`] asks nobody: it makes files.

mod apply;
mod arguments;
mod certs;
mod client;
mod cluster;
mod demo;
mod documents;
mod kubernetes;
mod pages;
mod print;
mod reading;
mod recover;
mod route;
mod secrets;
mod show;

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use arguments::RouteCommand;
pub use arguments::{
    Arguments, CertsCommand, ClientCommand, Command, Connection, DemoArguments, RecoverArguments, SecretsCommand, ServeArguments,
};
use client::Client;
pub use recover::{confirm, say};
pub use secrets::run_secrets;

/// Runs a command that asks the nodes of `connection`.
pub async fn run(connection: Connection, command: ClientCommand) -> ExitCode {
    match answer(&connection, command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Makes certificates.
///
/// # Errors
///
/// A file that is there already or cannot be written, or a name that cannot stand in a certificate.
pub fn make_certificates(command: &CertsCommand) -> anyhow::Result<()> {
    certs::run(command)
}

/// Runs three nodes and a backend.
pub async fn run_demo(arguments: DemoArguments) -> ExitCode {
    match demo::run(&arguments).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(&error),
    }
}

/// Prints the completion script for `shell`.
pub fn print_completions(shell: Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "raftgate", &mut script);
    print::out(String::from_utf8_lossy(&script).trim_end());
}

/// Says on the standard error why nothing came of it.
pub fn fail(error: &anyhow::Error) -> ExitCode {
    print::error(&chain(error));
    ExitCode::FAILURE
}

/// The message and its causes; a cause that the message before it tells already is left out.
fn chain(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match text.as_str() {
        "" => cause,
        told if told.contains(&cause) => text,
        told => format!("{told}: {cause}"),
    })
}

async fn answer(connection: &Connection, command: ClientCommand) -> anyhow::Result<()> {
    let client = Client::new(connection)?;
    match command {
        ClientCommand::Apply { apply } => apply::run(&client, &apply).await,
        ClientCommand::Get { kind, name, local, output } => show::get(&client, kind, name.as_deref(), local, output).await,
        ClientCommand::Delete { kind, name } => show::delete(&client, kind, &name).await,
        ClientCommand::Route(RouteCommand::Set { route }) => route::set(&client, &route).await,
        ClientCommand::Explain { url, method, headers, listener, source_address, revision, output } => {
            if let Some(fault) = show::without_host(&url, &headers) {
                anyhow::bail!(fault);
            }
            let mut question = show::question(&url, &method, &headers, listener.as_deref());
            if let Some(address) = source_address {
                question["sourceAddress"] = serde_json::json!(address);
            }
            if let Some(revision) = revision {
                question["revision"] = serde_json::json!(revision);
            }
            show::explain(&client, &question, output).await
        }
        ClientCommand::Cluster(command) => cluster::run(&client, &command).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once() {
        let inner = std::io::Error::other("no such file");
        assert_eq!(chain(&anyhow::Error::new(inner).context("file a: no such file")), "file a: no such file");
        let inner = std::io::Error::other("refused");
        assert_eq!(chain(&anyhow::Error::new(inner).context("GET /x")), "GET /x: refused");
    }
}
