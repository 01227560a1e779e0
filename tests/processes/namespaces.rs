//! Three nodes on addresses that are not loopback, each in a network namespace of its own, and none of them `insecure`.
//!
//! It needs root and `ip`, and says so where it has neither. Everything hangs on a namespace that plays the switch, so that nothing of the
//! machine's own network is touched; where the test ends, however, the namespaces go.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::certificates::{Authority, replace, settings};
use crate::harness::{Node, bare, eventually};

/// Names of namespaces that are removed at the end.
struct Namespaces(Vec<String>);

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split(' ')).output().map_err(|error| format!("ip: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("ip {arguments}: {}", said.trim())) }
}

impl Namespaces {
    /// A switch at 10.78.0.254, and nodes 1 to `count` at 10.78.0.N.
    fn create(count: usize) -> Result<Namespaces, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("this user is not root".to_owned());
        }
        let process = std::process::id();
        let mut namespaces = Namespaces(Vec::new());
        let switch = namespaces.add(&format!("raftgate-{process}-switch"))?;
        for line in ["link add nodes type bridge", "addr add 10.78.0.254/24 dev nodes", "link set nodes up", "link set lo up"] {
            ip(&format!("-n {switch} {line}"))?;
        }
        for number in 1..=count {
            let node = namespaces.add(&format!("raftgate-{process}-{number}"))?;
            ip(&format!("-n {switch} link add port{number} type veth peer name eth0 netns {node}"))?;
            ip(&format!("-n {switch} link set port{number} master nodes up"))?;
            for line in [&*format!("addr add {}/24 dev eth0", host(number)), "link set eth0 up", "link set lo up"] {
                ip(&format!("-n {node} {line}"))?;
            }
        }
        Ok(namespaces)
    }

    fn add(&mut self, name: &str) -> Result<String, String> {
        ip(&format!("netns add {name}"))?;
        self.0.push(name.to_owned());
        Ok(name.to_owned())
    }

    /// What a program runs behind to be in a namespace; 0 is the switch.
    fn wrapper(&self, number: usize) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net=/run/netns/{}", self.0[number]), "--".to_owned()]
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.0 {
            let _ = ip(&format!("netns delete {name}"));
        }
    }
}

fn host(number: usize) -> String {
    format!("10.78.0.{number}")
}

fn prepare(directory: &Path, authority: &Authority, ca: &Authority, number: usize, place: &str, wrapper: Vec<String>) -> Node {
    let (dir, host) = (directory.join(format!("node{number}")), host(number));
    let tls = dir.join("tls");
    fs::create_dir_all(&tls).unwrap();
    replace(&tls.join("ca.pem"), &ca.ca());
    authority.certify(number, &host, &tls);
    let (peer, admin) = settings(&tls);
    let config = format!(
        "node_id = {number}\ndata_dir = {:?}\n[cluster]\nname = \"test\"\npeer_address = \"{host}:7081\"\n{place}\n{peer}[admin]\naddress = \
         \"{host}:9081\"\n{admin}[[listener]]\naddress = \"{host}:8081\"\n",
        dir.join("data"),
    );
    let mut node = Node::new(number, host, dir, "https");
    node.wrapper = wrapper;
    fs::write(node.config_file(), config).unwrap();
    node
}

/// The command line from the switch, as the caller that `authority` knows.
fn call(namespaces: &Namespaces, authority: &Authority, number: usize, arguments: &[&str]) -> (bool, String) {
    let wrapper = namespaces.wrapper(0);
    let mut command = bare(&wrapper[0]);
    command.args(&wrapper[1..]).arg(env!("CARGO_BIN_EXE_raftgate"));
    command.args(["--server", &format!("https://{}:9081", host(number))]).args(arguments).envs(authority.environment());
    let output = command.stdin(Stdio::null()).output().unwrap();
    (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_on_a_real_network_need_certificates_and_nothing_else() {
    // Before the nodes, so that it goes after them.
    let namespaces = match Namespaces::create(4) {
        Ok(namespaces) => namespaces,
        Err(reason) => {
            eprintln!("not tested: three nodes in network namespaces ({reason})");
            return;
        }
    };
    let directory = TempDir::with_prefix("raftgate-").unwrap();
    let path = |name: &str| -> PathBuf { directory.path().join(name) };
    let (authority, other) = (Authority::create(path("certs")), Authority::create(path("other")));
    let members: Vec<String> = (1..=3).map(|number| format!("{number} = \"{}:7081\"", host(number))).collect();
    let place = format!("initial_members = {{ {} }}", members.join(", "));
    let mut nodes: Vec<Node> = (1..=3)
        .map(|number| prepare(directory.path(), &authority, &authority, number, &place, namespaces.wrapper(number)))
        .collect();
    nodes.iter_mut().for_each(Node::start);
    for number in 1..=3 {
        eventually("a write at each node", || async {
            let path = format!("/from-{number}");
            let (is_done, _) =
                call(&namespaces, &authority, number, &["route", "set", "a", "--path", &path, "--to", "127.0.0.1:1"]);
            is_done.then_some(())
        })
        .await;
    }
    let (is_done, status) = call(&namespaces, &authority, 2, &["cluster", "status"]);
    assert!(is_done && (1..=3).all(|number| status.contains(&format!("https://{}:9081", host(number)))), "{status}");

    // It knows the cluster's CA, its address is right, and its certificate is of another CA.
    let place = format!("join = \"{}:7081\"", host(1));
    let mut stranger = prepare(directory.path(), &other, &authority, 4, &place, namespaces.wrapper(4));
    stranger.start();
    eventually("node 1 refuses the stranger", || async {
        let log = nodes[0].log();
        let refusal = log.lines().find(|line| line.contains("connection of a peer refused"))?;
        assert!(refusal.contains(&host(4)) && refusal.contains("is not signed by the CA"), "{refusal}");
        Some(())
    })
    .await;
    eventually("the stranger says why", || async { stranger.log().contains("peer not reached").then_some(()) }).await;
    let (_, status) = call(&namespaces, &authority, 1, &["cluster", "status"]);
    assert!(!status.contains(&host(4)), "{status}");
}
