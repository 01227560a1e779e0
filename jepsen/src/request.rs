//! What was asked for: one test, as it stands on the command line and in `test.json`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::cluster::isolation::Isolation;
use crate::nemesis::{Fault, MIX, NONE};
use crate::test::Workload;

/// The file from which a test is run again.
pub(crate) const FILE: &str = "test.json";

/// Seconds of one test at most: its plan and its history are held in memory.
pub(crate) const TIME_MAX: u64 = 24 * 3600;

/// One test.
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
pub(crate) struct Request {
    /// What the clients do: register, txn, set, watch, traffic, membership.
    #[arg(long, default_value = "register", value_parser = |text: &str| workload(text).map(|_| text.to_owned()))]
    pub(crate) workload: String,
    /// What breaks, by name, with commas between; `none` breaks nothing, `mix` has two to four lanes of faults.
    #[arg(long, value_delimiter = ',', default_value = "none", value_parser = nemeses())]
    pub(crate) nemesis: Vec<String>,
    /// Members of the cluster.
    #[arg(long, default_value = "3", value_parser = nodes, value_name = "3|5")]
    pub(crate) nodes: u32,
    /// Seconds of operations and faults, before everything is healed.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=TIME_MAX))]
    pub(crate) time: u64,
    /// What all choices are made of. The same seed makes the same schedule of faults and the same choices of the clients.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// What else made a run what it was; `replay` does it again in the same way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Circumstances {
    pub(crate) binary: Option<PathBuf>,
    pub(crate) other_binary: Option<PathBuf>,
    pub(crate) isolation: Option<Kept>,
    /// Variables of the nodes: a known bug that is switched on.
    pub(crate) environment: Vec<(String, String)>,
}

/// `test.json`
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    #[serde(flatten)]
    request: Request,
    #[serde(default)]
    circumstances: Circumstances,
}

/// Where things are, and how nodes are kept apart.
#[derive(Debug, Clone, Args)]
pub(crate) struct Places {
    /// The raftgate to test. Default: the one beside this program, built if it is missing.
    #[arg(long, global = true, overrides_with = "binary")]
    pub(crate) binary: Option<PathBuf>,
    /// Another build of raftgate, to which a rolling upgrade goes and from which it comes back.
    #[arg(long, global = true)]
    pub(crate) other_binary: Option<PathBuf>,
    /// Where results go.
    #[arg(long, global = true, default_value = "store")]
    pub(crate) store: PathBuf,
    /// How nodes are kept apart. Default: as well as the machine allows.
    #[arg(long, global = true, value_enum)]
    pub(crate) isolation: Option<Kept>,
    /// Further variables of the nodes, of a run that is done again.
    #[arg(skip)]
    pub(crate) environment: Vec<(String, String)>,
}

impl Places {
    /// Those of an earlier run, where the command line says nothing else.
    pub(crate) fn take_over(&mut self, earlier: Circumstances) {
        let Circumstances { binary, other_binary, isolation, environment } = earlier;
        self.binary = self.binary.take().or(binary);
        self.other_binary = self.other_binary.take().or(other_binary);
        self.isolation = self.isolation.or(isolation);
        self.environment = environment;
    }
}

/// How nodes are kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kept {
    /// Network namespaces and disk images; needs root.
    Namespaces,
    /// Loopback addresses and proxies.
    Loopback,
}

impl From<Isolation> for Kept {
    fn from(isolation: Isolation) -> Kept {
        match isolation {
            Isolation::Namespaces => Kept::Namespaces,
            Isolation::Loopback => Kept::Loopback,
        }
    }
}

impl From<Kept> for Isolation {
    fn from(kept: Kept) -> Isolation {
        match kept {
            Kept::Namespaces => Isolation::Namespaces,
            Kept::Loopback => Isolation::Loopback,
        }
    }
}

/// Every name of a nemesis, for the command line and its help.
fn nemeses() -> PossibleValuesParser {
    PossibleValuesParser::new([NONE, MIX].into_iter().chain(Fault::ALL.iter().map(|fault| fault.name())))
}

/// How many members a cluster may have: an even number survives no more than the odd one below it, and no fault here asks for others.
pub(crate) fn nodes(text: &str) -> Result<u32, String> {
    match text {
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err("a cluster has 3 or 5 nodes".to_owned()),
    }
}

/// A workload by its name.
pub(crate) fn workload(name: &str) -> Result<Workload, String> {
    let known = [
        ("register", Workload::Register),
        ("txn", Workload::Txn),
        ("set", Workload::Set),
        ("watch", Workload::Watch),
        ("traffic", Workload::Traffic),
        ("membership", Workload::Membership),
    ];
    let found = known.iter().find(|(known, _)| *known == name).map(|(_, workload)| *workload);
    found.ok_or_else(|| format!("there is no workload {name:?}, only {}", known.map(|(name, _)| name).join(", ")))
}

impl Request {
    /// The test's name, and that of its directory in the store.
    pub(crate) fn name(&self) -> String {
        format!("{}-{}-{}", self.workload, self.nemesis.join("+"), self.nodes)
    }

    /// Whether every fault asked for is done to connections, so that nodes need loopback addresses and proxies.
    pub(crate) fn is_of_connections(&self) -> bool {
        let of_connections = |name: &String| Fault::by_name(name).is_some_and(Fault::is_of_connections);
        !self.nemesis.is_empty() && self.nemesis.iter().all(of_connections)
    }

    /// The arguments that ask for it.
    pub(crate) fn arguments(&self) -> String {
        let Request { workload, nemesis, nodes, time, seed } = self;
        let nemesis = nemesis.join(",");
        format!("test --workload {workload} --nemesis {nemesis} --nodes {nodes} --time {time} --seed {seed}")
    }

    /// Writes it down for `replay`.
    pub(crate) fn save(&self, directory: &Path, circumstances: Circumstances) -> anyhow::Result<()> {
        let saved = Saved { request: self.clone(), circumstances };
        std::fs::write(directory.join(FILE), serde_json::to_string_pretty(&saved)? + "\n").context("write test.json")
    }

    /// Reads it back.
    pub(crate) fn load(directory: &Path) -> anyhow::Result<(Request, Circumstances)> {
        let path = directory.join(FILE);
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let saved: Saved = serde_json::from_str(&text).with_context(|| format!("{} is not a test", path.display()))?;
        // Anybody may have edited it.
        let checked = nodes(&saved.request.nodes.to_string()).and_then(|_| workload(&saved.request.workload));
        checked.map_err(|wrong| anyhow::anyhow!("{}: {wrong}", path.display()))?;
        Ok((saved.request, saved.circumstances))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let nemesis = vec!["kill-leader".to_owned(), "mix".to_owned()];
        let request = Request { workload: "txn".to_owned(), nemesis, nodes: 5, time: 30, seed: u64::MAX };
        let circumstances = Circumstances {
            binary: Some("/b".into()),
            other_binary: None,
            isolation: Some(Kept::Loopback),
            environment: vec![("BUG".to_owned(), "stale-read".to_owned())],
        };
        request.save(directory.path(), circumstances.clone()).unwrap();
        assert_eq!(Request::load(directory.path()).unwrap(), (request.clone(), circumstances.clone()));
        // What the command line says comes first.
        let mut places = Places {
            binary: None,
            other_binary: None,
            store: "store".into(),
            isolation: Some(Kept::Namespaces),
            environment: Vec::new(),
        };
        places.take_over(circumstances);
        assert_eq!((places.binary, places.isolation, places.environment.len()), (Some("/b".into()), Some(Kept::Namespaces), 1));
        // Tests of before say less.
        std::fs::write(directory.path().join(FILE), serde_json::to_string(&request).unwrap()).unwrap();
        assert_eq!(Request::load(directory.path()).unwrap(), (request.clone(), Circumstances::default()));
        assert_eq!(request.name(), "txn-kill-leader+mix-5");
        for (nemesis, is) in [("half-open,delay", true), ("slow-link", true), ("cut-mid-frame,loss", false), ("none", false)] {
            let nemesis = nemesis.split(',').map(str::to_owned).collect();
            assert_eq!(Request { nemesis, ..request.clone() }.is_of_connections(), is);
        }
        for refused in [0, 4, 7] {
            let even = Request { nodes: refused, ..request.clone() };
            std::fs::write(directory.path().join(FILE), serde_json::to_string(&even).unwrap()).unwrap();
            let error = format!("{:#}", Request::load(directory.path()).unwrap_err());
            assert!(error.contains("a cluster has 3 or 5 nodes"), "{error}");
            assert!(nodes(&refused.to_string()).is_err());
        }
        assert_eq!((nodes("3"), nodes("5")), (Ok(3), Ok(5)));
        assert!(workload("regster").unwrap_err().contains("register, txn"));
    }
}
