//! What can be typed.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

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

/// Commands under `certs`.
#[derive(Debug, Subcommand)]
pub enum CertsCommand {
    /// Make the CA of a cluster: ca.pem and ca-key.pem
    Ca {
        /// Where and how
        #[command(flatten)]
        common: CertsArguments,
        /// How long it holds
        #[arg(long, value_name = "DAYS", default_value_t = 3650, value_parser = days())]
        days: u32,
    },
    /// Make a node's certificate, for its peers and its admin API: nodeN.pem and nodeN-key.pem
    Node {
        /// The node's id (key `node_id`)
        #[arg(value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        id: u64,
        /// A name or an IP address by which peers and callers reach the node, without a port; may be repeated
        #[arg(long = "host", value_name = "NAME|IP", required = true)]
        hosts: Vec<String>,
        /// The cluster's name (key `cluster.name`)
        #[arg(long, value_name = "NAME", default_value = "raftgate")]
        cluster: String,
        /// Where and how
        #[command(flatten)]
        common: CertsArguments,
        /// How long it holds
        #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = days())]
        days: u32,
    },
    /// Make the certificate of somebody who calls the admin API: client-NAME.pem and client-NAME-key.pem
    Client {
        /// The name by which history knows the caller
        name: String,
        /// Where and how
        #[command(flatten)]
        common: CertsArguments,
        /// How long it holds
        #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = days())]
        days: u32,
    },
}

/// Flags of all commands under `certs`.
#[derive(Debug, Args)]
pub struct CertsArguments {
    /// The directory of the CA and of what it signs
    #[arg(long, value_name = "DIR", default_value = "certs")]
    pub dir: PathBuf,
    /// Replace files that are there
    #[arg(long)]
    pub force: bool,
}

fn days() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=36_500)
}

/// Commands that ask a running node through its admin API.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Make the resources of files so, all in one revision
    Apply {
        /// The files
        #[command(flatten)]
        apply: ApplyArguments,
    },
    /// Show resources
    Get {
        /// Route, GRPCRoute, Service or Certificate
        #[arg(value_parser = kind)]
        kind: Kind,
        /// One resource; all without it
        name: Option<String>,
        /// Ask the node for what it has itself, which may be behind; it also answers without a quorum
        #[arg(long)]
        local: bool,
        /// How to print
        #[arg(long, short, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Remove a resource
    Delete {
        /// Route, GRPCRoute, Service or Certificate
        #[arg(value_parser = kind)]
        kind: Kind,
        /// Which one
        name: String,
    },
    /// Make or replace a route without a file
    #[command(subcommand)]
    Route(RouteCommand),
    /// Say which rule answers a request, and why the others do not
    Explain {
        /// The request's URL
        url: String,
        /// The request's method
        #[arg(long, short = 'X', default_value = "GET")]
        method: String,
        /// A header of the request, as `Name: value`; may be repeated
        #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = header)]
        headers: Vec<(String, String)>,
        /// The listener that the request comes in at; the first one without it
        #[arg(long)]
        listener: Option<String>,
        /// By the routes of this revision, as long as history holds what came after; the live ones without it
        #[arg(long)]
        revision: Option<u64>,
        /// How to print
        #[arg(long, short, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Look at the cluster, and change its members
    #[command(subcommand)]
    Cluster(ClusterCommand),
}

/// Commands under `route`.
#[derive(Debug, Subcommand)]
pub enum RouteCommand {
    /// Make or replace a route with one rule
    Set {
        /// The route
        #[command(flatten)]
        route: RouteArguments,
    },
}

/// Commands under `cluster`.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Show the members, who leads, and what each serves
    Status {
        /// How to print
        #[arg(long, short, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Let a node in as a learner; it runs, belongs to no cluster, and waits (a node started with --join needs no such call)
    Add {
        /// Where its peers reach it
        #[arg(value_name = "HOST:PORT")]
        peer_address: String,
        /// The id that it gets; without it the next that was never used
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        id: Option<u64>,
    },
    /// Make a learner a voter, once it is caught up
    Promote {
        /// Its id
        id: u64,
    },
    /// Make a voter a learner
    Demote {
        /// Its id
        id: u64,
    },
    /// Remove a member for ever: its id is never used again
    Remove {
        /// Its id
        id: u64,
    },
    /// Let commands use the features of a level that every member's version knows; it cannot be taken back
    RaiseFeatureLevel {
        /// The level
        level: u32,
    },
    /// Hand leadership to a voter
    Transfer {
        /// Its id
        id: u64,
    },
}

/// The ids of the options of [`Connection`].
const CONNECTION_OPTIONS: [&str; 6] = ["server", "token", "timeout", "ca", "cert", "key"];

/// Where to ask. Its options may stand before or after the command's name.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of commands that ask a running node")]
pub struct Connection {
    /// Admin addresses of nodes, comma-separated; the first that answers is used. `https://HOST:PORT` where they speak TLS, which goes
    /// without saying beside --ca and --cert
    #[arg(
        long,
        short,
        global = true,
        env = "RAFTGATE_SERVER",
        value_name = "HOST:PORT,...",
        value_delimiter = ',',
        default_value = "127.0.0.1:9081"
    )]
    pub server: Vec<String>,
    /// The caller's token
    #[arg(long, global = true, env = "RAFTGATE_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// The CAs of the nodes' certificates (PEM); the system's without it
    #[arg(long, global = true, env = "RAFTGATE_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The caller's certificate (PEM)
    #[arg(long, global = true, env = "RAFTGATE_CERT", value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// The certificate's key (PEM)
    #[arg(long, global = true, env = "RAFTGATE_KEY", value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// How long the node may take, at most 30s
    #[arg(long, global = true, value_name = "DURATION", value_parser = timeout, default_value = "5s")]
    pub timeout: Duration,
}

/// Flags of `apply`.
#[derive(Debug, Args)]
pub struct ApplyArguments {
    /// YAML or JSON documents of {kind, name, spec}, or HTTPRoutes and GRPCRoutes of Kubernetes as they are; `-` is the standard input; may be repeated
    #[arg(long = "file", short, value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Only check, and say what would change
    #[arg(long)]
    pub dry_run: bool,
    /// Remove every resource that the files do not name
    #[arg(long)]
    pub prune: bool,
    /// Wait until every member serves it
    #[arg(long, conflicts_with = "dry_run")]
    pub wait: bool,
    /// Print a line for every resource, however many there are
    #[arg(long, short)]
    pub verbose: bool,
}

/// What `route set` makes.
#[derive(Debug, Args)]
pub struct RouteArguments {
    /// The route's name
    pub name: String,
    /// A host name; may be repeated; every host without it
    #[arg(long = "host", value_name = "HOST")]
    pub hosts: Vec<String>,
    /// The path's prefix, or a template where it has `{...}`
    #[arg(long, default_value = "/")]
    pub path: String,
    /// A service's name, or an address: that makes or replaces a service with the route's name
    #[arg(long, value_name = "SERVICE|HOST:PORT")]
    pub to: String,
    /// Wait until every member serves it
    #[arg(long)]
    pub wait: bool,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// As the node answered
    Json,
    /// The same as YAML
    Yaml,
}

/// A kind that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// As documents name it.
    pub name: &'static str,
    /// As the admin API's paths name it.
    pub plural: &'static str,
}

/// Takes a kind as people write it: `Route`, `route`, `routes`.
fn kind(text: &str) -> Result<Kind, String> {
    const KINDS: [Kind; 4] = [
        Kind { name: "Route", plural: "routes" },
        Kind { name: "GRPCRoute", plural: "grpcroutes" },
        Kind { name: "Service", plural: "services" },
        Kind { name: "Certificate", plural: "certificates" },
    ];
    let lower = text.to_ascii_lowercase();
    KINDS
        .into_iter()
        .find(|kind| lower == kind.plural || lower == kind.name.to_ascii_lowercase())
        .ok_or_else(|| "expected Route, GRPCRoute, Service or Certificate".to_owned())
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected `Name: value`")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn timeout(text: &str) -> Result<Duration, String> {
    let timeout = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let allowed = Duration::from_millis(1)..=Duration::from_secs(30);
    if allowed.contains(&timeout) { Ok(timeout) } else { Err("expected 1ms to 30s".to_owned()) }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn kinds_and_headers_as_people_write_them() {
        for text in ["Route", "route", "routes", "ROUTES"] {
            assert_eq!(kind(text).unwrap().plural, "routes", "{text}");
        }
        assert_eq!(kind("GRPCRoute").unwrap().plural, "grpcroutes");
        assert_eq!(kind("certificate").unwrap().plural, "certificates");
        assert!(kind("pod").is_err());
        assert_eq!(header("X-Env: a:b").unwrap(), ("X-Env".to_owned(), "a:b".to_owned()));
        assert!(header("X-Env").is_err());
        assert!(timeout("31s").is_err() && timeout("250ms").is_ok());
    }
}
