//! What can be typed after `raftgate certs`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

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
