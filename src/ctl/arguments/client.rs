//! Commands that ask a running node, and where they ask.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

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
        /// The address of who asks; 127.0.0.1 without it
        #[arg(long, value_name = "IP")]
        source_address: Option<IpAddr>,
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
pub(super) const CONNECTION_OPTIONS: [&str; 6] = ["server", "token", "timeout", "ca", "cert", "key"];

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
