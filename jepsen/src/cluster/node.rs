//! One node: its addresses, its files, and its process while it runs.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::disk::Disk;

/// A process that was killed is gone in less.
const DEATH_TIMEOUT: Duration = Duration::from_secs(20);

/// How much of a log is told of a node that has ended.
const LAST_WORDS: usize = 2;
const LAST_WORDS_BYTES: u64 = 4096;

/// A node of the cluster under test.
#[derive(Debug)]
pub(crate) struct Node {
    /// From 1.
    pub(crate) id: u32,
    pub(crate) admin: SocketAddr,
    pub(crate) proxy: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) disk: Disk,
    /// Configuration and the clock's file stand here.
    pub(crate) directory: PathBuf,
    pub(crate) log: PathBuf,
    /// What runs before the program: `nsenter` and its arguments, or nothing.
    pub(crate) wrapper: Vec<String>,
    /// Variables of its environment: the library that lies about the time.
    pub(crate) environment: Vec<(String, String)>,
    life: AtomicU32,
    /// Whether the suite has sent SIGKILL to the present process.
    killed: AtomicBool,
    process: Mutex<Option<Child>>,
    /// Ends of processes that nothing of the suite ended, and after which somebody started the node again.
    passed_over: std::sync::Mutex<Vec<String>>,
}

/// Where a node is and how it is run.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) id: u32,
    pub(crate) host: String,
    pub(crate) disk: Disk,
    pub(crate) directory: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) wrapper: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
}

/// Ports are the same on all nodes, for each has an address of its own.
pub(crate) const PEER_PORT: u16 = 7081;
pub(crate) const ADMIN_PORT: u16 = 9081;
pub(crate) const PROXY_PORT: u16 = 8081;

impl Node {
    /// A node that does not run yet.
    pub(crate) fn new(place: Place) -> anyhow::Result<Node> {
        let address = |port: u16| -> anyhow::Result<SocketAddr> { Ok(format!("{}:{port}", place.host).parse()?) };
        Ok(Node {
            id: place.id,
            admin: address(ADMIN_PORT)?,
            proxy: address(PROXY_PORT)?,
            peer: address(PEER_PORT)?,
            disk: place.disk,
            directory: place.directory,
            log: place.log,
            wrapper: place.wrapper,
            environment: place.environment,
            life: AtomicU32::new(0),
            killed: AtomicBool::new(false),
            process: Mutex::new(None),
            passed_over: std::sync::Mutex::default(),
        })
    }

    /// Which life of the node this is, or the last one was: counted up at each start.
    pub(crate) fn life(&self) -> u32 {
        self.life.load(Ordering::SeqCst)
    }

    /// Everything that the node must not lose.
    pub(crate) fn data(&self) -> PathBuf {
        self.disk.directory().join("data")
    }

    /// The configuration's file.
    pub(crate) fn config(&self) -> PathBuf {
        self.directory.join("node.toml")
    }

    /// Starts it, with these arguments of `serve` beside the configuration, and these variables. An error where it runs already.
    pub(crate) async fn start(&self, binary: &Path, arguments: &[String], variables: &[(&str, &str)]) -> anyhow::Result<()> {
        let mut process = self.process.lock().await;
        if let Some(before) = process.as_mut() {
            let Some(status) = before.try_wait()? else { bail!("node {} runs already", self.id) };
            // The new process takes its place: nobody could see any more how it ended.
            if !self.is_ours(status) {
                self.passed_over.lock().unwrap_or_else(PoisonError::into_inner).push(self.tell_end(status));
            }
        }
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut words = self.wrapper.iter().map(String::as_str).chain([binary.to_str().context("a path in UTF-8")?]);
        let mut command = Command::new(words.next().context("a program")?);
        command.args(words).args(["serve", "--config"]).arg(self.config()).args(arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value))).envs(variables.iter().copied());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        // A group of its own: ctrl-c at the terminal is for the suite, which ends its nodes itself.
        command.process_group(0);
        self.life.fetch_add(1, Ordering::SeqCst);
        self.killed.store(false, Ordering::SeqCst);
        *process = Some(command.spawn().with_context(|| format!("start node {}", self.id))?);
        Ok(())
    }

    /// Sends a signal to its process.
    pub(crate) async fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let process = self.process.lock().await;
        let pid = pid_of(process.as_ref()).with_context(|| format!("node {} does not run", self.id))?;
        self.killed.fetch_or(signal == Signal::KILL, Ordering::SeqCst);
        kill_process(pid, signal).with_context(|| format!("{signal:?} to node {}", self.id))
    }

    /// Waits for its process to end; gives the exit code, none after a signal.
    pub(crate) async fn wait(&self, patience: Duration) -> anyhow::Result<Option<i32>> {
        let mut process = self.process.lock().await;
        let Some(running) = process.as_mut() else { bail!("node {} does not run", self.id) };
        let ended = timeout(patience, running.wait()).await;
        let status = ended.with_context(|| format!("node {} did not end within {patience:?}", self.id))??;
        *process = None;
        Ok(status.code())
    }

    /// kill -9, and waits until it is gone.
    pub(crate) async fn kill(&self) -> anyhow::Result<()> {
        self.signal(Signal::KILL).await?;
        self.wait(DEATH_TIMEOUT).await.map(drop)
    }

    /// Whether its process is there.
    pub(crate) async fn runs(&self) -> bool {
        let mut process = self.process.lock().await;
        match process.as_mut() {
            Some(running) => running.try_wait().is_ok_and(|status| status.is_none()),
            None => false,
        }
    }

    /// Its process's number, while it runs.
    pub(crate) async fn pid(&self) -> Option<u32> {
        self.process.lock().await.as_ref().and_then(Child::id)
    }

    /// How its process ended, where nothing of the suite ended it.
    pub(crate) async fn ended_by_itself(&self) -> Option<ExitStatus> {
        let mut process = self.process.lock().await;
        let status = process.as_mut()?.try_wait().ok().flatten()?;
        (!self.is_ours(status)).then_some(status)
    }

    /// A kill of the suite's may have been given up before it saw the process gone; anybody else's is none of its faults.
    fn is_ours(&self, status: ExitStatus) -> bool {
        self.killed.load(Ordering::SeqCst) && status.signal() == Some(Signal::KILL.as_raw())
    }

    /// Every process of the node so far that ended although nothing of the suite ended it, with its last words.
    pub(crate) async fn ends_by_itself(&self) -> Vec<String> {
        let now = self.ended_by_itself().await.map(|status| self.tell_end(status));
        let passed_over = self.passed_over.lock().unwrap_or_else(PoisonError::into_inner);
        passed_over.iter().cloned().chain(now).collect()
    }

    /// How its process ended, in words, before another one runs.
    pub(crate) fn tell_end(&self, status: ExitStatus) -> String {
        format!("node {} has ended by itself ({status}): {}", self.id, self.last_words())
    }

    /// How long its log is.
    pub(crate) fn log_bytes(&self) -> u64 {
        std::fs::metadata(&self.log).map_or(0, |metadata| metadata.len())
    }

    /// What its log says from there on.
    pub(crate) fn log_after(&self, bytes: u64) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let from = usize::try_from(bytes).unwrap_or(usize::MAX).min(log.len());
        String::from_utf8_lossy(&log[from..]).into_owned()
    }

    /// The last lines of its log that are not empty.
    pub(crate) fn last_words(&self) -> String {
        let log = self.log_after(self.log_bytes().saturating_sub(LAST_WORDS_BYTES));
        let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(LAST_WORDS)..].join(" | ")
    }

    /// The program that its process runs.
    pub(crate) async fn program(&self) -> Option<PathBuf> {
        std::fs::read_link(format!("/proc/{}/exe", self.pid().await?)).ok()
    }

    /// Whether the kernel holds its process stopped.
    pub(crate) async fn is_stopped(&self) -> bool {
        let Some(pid) = self.pid().await else { return false };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The state follows the name in brackets, which may hold anything.
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['T', 't']))
    }
}

fn pid_of(process: Option<&Child>) -> Option<Pid> {
    process.and_then(Child::id).and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node_in(directory: &Path, wrapper: &[&str]) -> Node {
        let node = Node::new(Place {
            id: 1,
            host: "127.0.0.1".to_owned(),
            disk: Disk::plain(directory.join("disk")).unwrap(),
            directory: directory.to_path_buf(),
            log: directory.join("log"),
            wrapper: wrapper.iter().map(|word| (*word).to_owned()).collect(),
            environment: Vec::new(),
        });
        node.unwrap()
    }

    #[tokio::test]
    async fn only_a_process_that_nothing_ended_has_ended_by_itself() {
        let directory = tempfile::tempdir().unwrap();
        let node = node_in(directory.path(), &[]);
        assert!(node.ended_by_itself().await.is_none());
        // It fails at arguments that it does not know, as a node that refuses its data does.
        node.start(Path::new("/bin/ls"), &[], &[]).await.unwrap();
        let ended = crate::cluster::wait_for(DEATH_TIMEOUT, || node.ended_by_itself()).await;
        assert_eq!(ended.and_then(|status| status.code()), Some(2));
        assert!(node.last_words().contains("--config"), "{}", node.last_words());
        node.wait(DEATH_TIMEOUT).await.unwrap();
        assert!(node.ended_by_itself().await.is_none());
        // What the kernel or somebody else kills counts, what the suite kills does not.
        let node = node_in(directory.path(), &["sh", "-c", "exec sleep 100"]);
        for by_suite in [false, true] {
            node.start(Path::new("/bin/ls"), &[], &[]).await.unwrap();
            let pid = node.pid().await.unwrap();
            match by_suite {
                true => drop(node.signal(Signal::KILL).await),
                false => drop(Command::new("kill").args(["-9", &pid.to_string()]).status().await),
            }
            let ended = wait_ended(&node).await;
            assert_eq!(ended.is_some(), !by_suite, "{ended:?}");
            node.wait(DEATH_TIMEOUT).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_start_does_not_hide_how_the_process_before_it_ended() {
        let directory = tempfile::tempdir().unwrap();
        // Whatever it is told to do, it says so and fails.
        let node = node_in(directory.path(), &["sh", "-c", "echo its disk is dead; exit 7"]);
        node.start(Path::new("/bin/ls"), &[], &[]).await.unwrap();
        assert_eq!(wait_ended(&node).await.and_then(|status| status.code()), Some(7));
        let told = node.ends_by_itself().await;
        assert_eq!(told, ["node 1 has ended by itself (exit status: 7): its disk is dead"]);
        node.start(Path::new("/bin/ls"), &[], &[]).await.unwrap();
        assert_eq!(node.ends_by_itself().await[..1], told);
        wait_ended(&node).await;
        assert_eq!(node.ends_by_itself().await.len(), 2);
        // An end that was waited for was expected, and a kill of the suite's too.
        let node = node_in(directory.path(), &["sh", "-c", "exec sleep 100"]);
        for waited_for in [true, false] {
            node.start(Path::new("/bin/ls"), &[], &[]).await.unwrap();
            node.signal(Signal::KILL).await.unwrap();
            match waited_for {
                true => drop(node.wait(DEATH_TIMEOUT).await.unwrap()),
                false => drop(wait_ended(&node).await),
            }
        }
        node.start(Path::new("/bin/ls"), &[], &[]).await.unwrap();
        assert_eq!(node.ends_by_itself().await, Vec::<String>::new());
        node.kill().await.unwrap();
    }

    async fn wait_ended(node: &Node) -> Option<ExitStatus> {
        let gone = || async { (!node.runs().await).then_some(()) };
        crate::cluster::wait_for(DEATH_TIMEOUT, gone).await;
        node.ended_by_itself().await
    }
}
