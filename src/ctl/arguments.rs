//! What can be typed.

mod certs;
mod client;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

pub(super) use self::certs::CertsArguments;
pub use self::certs::CertsCommand;
use self::client::CONNECTION_OPTIONS;
pub(super) use self::client::{ApplyArguments, ClusterCommand, Kind, Output, RouteArguments, RouteCommand};
pub use self::client::{ClientCommand, Connection};
use crate::config::Overrides;

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "raftgate",
    version,
    about = "An HTTP gateway whose nodes agree among themselves, through Raft, on one versioned route table",
    after_help = "Exit status: 0 done, 1 refused or failed, 2 wrong usage."
)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Where to ask, for commands that ask.
    #[command(flatten)]
    pub connection: Connection,
}

impl Arguments {
    /// What the process was called with. Wrong usage, `--help` and `--version` end the process here, as clap has it.
    pub fn of_process() -> Arguments {
        Arguments::read(std::env::args_os()).unwrap_or_else(|error| error.exit())
    }

    fn read(words: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Arguments, clap::Error> {
        let mut command = Arguments::command();
        let matches = command.try_get_matches_from_mut(words)?;
        let arguments = Arguments::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
        if let Some(name) = arguments.command.name_of_one_that_asks_nobody()
            && let Some(option) = CONNECTION_OPTIONS.iter().find(|id| matches.value_source(id) == Some(ValueSource::CommandLine))
        {
            // From the environment it is meant for other calls, and harmless.
            let message = format!("--{option} says which node to ask, and `{name}` asks none");
            return Err(command.error(ErrorKind::ArgumentConflict, message));
        }
        Ok(arguments)
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node
    Serve(ServeArguments),
    /// Run three nodes and an echo backend on this machine, show that they agree, and leave them to try
    Demo(DemoArguments),
    /// Make a new cluster of one node from the data of a stopped survivor, once the majority is gone for good
    Recover(RecoverArguments),
    /// Keys that seal the secrets of resources
    #[command(subcommand)]
    Secrets(SecretsCommand),
    /// Make a CA, and certificates of nodes and of callers of their admin API
    #[command(subcommand)]
    Certs(CertsCommand),
    /// Every command that asks a running node
    #[command(flatten)]
    Client(ClientCommand),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
}

impl Command {
    /// Its name, unless it asks a node.
    fn name_of_one_that_asks_nobody(&self) -> Option<&'static str> {
        match self {
            Command::Serve(_) => Some("serve"),
            Command::Demo(_) => Some("demo"),
            Command::Recover(_) => Some("recover"),
            Command::Secrets(_) => Some("secrets"),
            Command::Certs(_) => Some("certs"),
            Command::Completions { .. } => Some("completions"),
            Command::Client(_) => None,
        }
    }
}

/// Which node a command is about that runs or works on one.
#[derive(Debug, Args)]
pub struct NodeArguments {
    /// The node's configuration (TOML)
    #[arg(long, short, value_name = "FILE", env = "RAFTGATE_CONFIG")]
    pub config: Option<PathBuf>,
    /// This node's id (key `node_id`)
    #[arg(long, value_name = "N")]
    pub node_id: Option<u64>,
    /// Where everything that must survive stands (key `data_dir`)
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

impl NodeArguments {
    /// The flags as the configuration takes them.
    pub fn overrides(&self) -> Overrides {
        Overrides { node_id: self.node_id, data_dir: self.data_dir.clone(), ..Overrides::default() }
    }
}

/// Flags of `serve`. Each overrides the file and the environment.
#[derive(Debug, Args)]
pub struct ServeArguments {
    /// Which node
    #[command(flatten)]
    pub node: NodeArguments,
    /// Join the running cluster that has a member at this peer address (key `cluster.join`)
    #[arg(long, value_name = "HOST:PORT")]
    pub join: Option<String>,
    /// Where peers connect (key `cluster.peer_address`)
    #[arg(long, value_name = "IP:PORT")]
    pub peer_address: Option<SocketAddr>,
    /// Where the admin API listens (key `admin.address`)
    #[arg(long, value_name = "IP:PORT")]
    pub admin_address: Option<SocketAddr>,
    /// Where the proxy's first listener listens (key `listener[0].address`)
    #[arg(long, value_name = "IP:PORT")]
    pub address: Option<SocketAddr>,
    /// Stop once the standard input is closed; for a program that starts nodes and may itself be killed
    #[arg(long, hide = true)]
    pub stop_with_stdin: bool,
}

impl ServeArguments {
    /// The flags as the configuration takes them.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            join: self.join.clone(),
            peer_address: self.peer_address,
            admin_address: self.admin_address,
            listener_address: self.address,
            ..self.node.overrides()
        }
    }
}

/// Flags of `recover`.
#[derive(Debug, Args)]
pub struct RecoverArguments {
    /// Which node
    #[command(flatten)]
    pub node: NodeArguments,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// Commands under `secrets`.
#[derive(Debug, Subcommand)]
pub enum SecretsCommand {
    /// Make a key in a new file, for `secrets.key_file` of every node of a cluster
    NewKey {
        /// The file; it must not exist
        file: PathBuf,
    },
}

/// Flags of `demo`.
#[derive(Debug, Args)]
pub struct DemoArguments {
    /// End after the proof, with status 0 or 1, instead of waiting for Ctrl-C
    #[arg(long)]
    pub once: bool,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    fn read(line: &str) -> Result<Arguments, String> {
        Arguments::read(std::iter::once("raftgate").chain(line.split_whitespace())).map_err(|error| error.to_string())
    }

    #[test]
    fn where_to_ask_may_stand_before_and_after_the_command() {
        let lines = [
            "--server a:1,b:2 --token t --timeout 7s get routes",
            "get routes --server a:1,b:2 --token t --timeout 7s",
            "--token t get -s a:1 -s b:2 --timeout 7s routes",
            "-s a:1,b:2 cluster --timeout 7s status --token t",
            "--timeout 7s --token t route -s a:1,b:2 set x --to y",
        ];
        for line in lines {
            let Connection { server, token, timeout, .. } =
                read(line).unwrap_or_else(|error| panic!("{line}: {error}")).connection;
            assert_eq!(server, ["a:1", "b:2"], "{line}");
            assert_eq!((token.as_deref(), timeout), (Some("t"), Duration::from_secs(7)), "{line}");
        }
        assert_eq!(read("--server a:1 get routes --server b:1").unwrap().connection.server, ["b:1"], "the nearer one counts");
    }

    #[test]
    fn commands_that_ask_nobody_refuse_to_be_told_whom() {
        for command in ["serve", "demo", "recover", "secrets new-key f", "certs ca", "completions bash"] {
            assert!(read(command).is_ok(), "{command}");
            for option in ["--server a:1", "--token t", "--timeout 1s", "--ca f", "--cert f", "--key f"] {
                for line in [format!("{option} {command}"), format!("{command} {option}")] {
                    let error = read(&line).unwrap_err();
                    let name = option.split(' ').next().unwrap();
                    assert!(error.contains(name) && error.contains("asks none"), "{line}: {error}");
                }
            }
        }
    }
}
