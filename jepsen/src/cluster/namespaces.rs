//! Nodes in network namespaces of their own, on one bridge, and packets that nftables drops between them.
//!
//! The suite itself runs in a namespace that it made for itself (see [`super::isolation`]), so that addresses and names need not be
//! unique on the machine, and everything is gone with the suite's last process, however it ends.

use std::fmt::Write as _;

use super::network::{Direction, Link, Met, Rules};
use super::node::PEER_PORT;
use super::shell::{run, run_with};

const BRIDGE: &str = "nodes";
/// The suite's own place on the bridge.
pub(crate) const SUITE_HOST: &str = "10.77.0.254";

/// One namespace a node.
#[derive(Debug)]
pub(crate) struct Namespaces {
    nodes: Vec<u32>,
}

/// A node's address.
pub(crate) fn host(node: u32) -> String {
    format!("10.77.0.{node}")
}

fn name(node: u32) -> String {
    format!("node{node}")
}

/// What a program runs behind to be in the node's namespace. Not `ip netns exec`: that makes a mount namespace too, whose copies of the
/// images' mounts would keep them busy.
pub(crate) fn wrapper(node: u32) -> Vec<String> {
    vec!["nsenter".to_owned(), format!("--net=/run/netns/{}", name(node)), "--".to_owned()]
}

impl Namespaces {
    /// Makes bridge and namespaces; those of the test before, if any, are gone after it.
    pub(crate) async fn create(nodes: &[u32]) -> anyhow::Result<Namespaces> {
        let links = run("ip", &["-br", "link"]).await?;
        // `port1@if2 UP ...`; with a port goes its other end.
        let names = links.lines().filter_map(|line| line.split([' ', '@']).next());
        for name in names.filter(|name| name.starts_with("port") || *name == BRIDGE) {
            run("ip", &["link", "delete", name]).await?;
        }
        let left = run("ip", &["netns", "list"]).await?;
        for name in left.lines().filter_map(|line| line.split_whitespace().next()) {
            run("ip", &["netns", "delete", name]).await?;
        }
        let mut script = format!(
            "link set lo up\nlink add {BRIDGE} type bridge\naddr add {SUITE_HOST}/24 dev {BRIDGE}\nlink set {BRIDGE} up\n"
        );
        for &node in nodes {
            let name = name(node);
            run("ip", &["netns", "add", &name]).await?;
            writeln!(script, "link add port{node} type veth peer name eth0 netns {name}")?;
            writeln!(script, "link set port{node} master {BRIDGE} up")?;
        }
        run_with("ip", &["-batch", "-"], &script).await?;
        for &node in nodes {
            let script = format!("addr add {}/24 dev eth0\nlink set eth0 up\nlink set lo up\n", host(node));
            run_with("ip", &["-n", &name(node), "-batch", "-"], &script).await?;
        }
        let namespaces = Namespaces { nodes: nodes.to_vec() };
        namespaces.apply(&Rules::new()).await?;
        Ok(namespaces)
    }

    /// Makes these the rules of all links.
    pub(crate) async fn apply(&self, rules: &Rules) -> anyhow::Result<()> {
        for &node in &self.nodes {
            self.nft(node, &script(node, rules)).await?;
        }
        Ok(())
    }

    /// Packets that the rule of a link dropped.
    pub(crate) async fn met(&self, (from, to): Link) -> anyhow::Result<Met> {
        let listing = self.nft(to, "list table inet faults\n").await?;
        Ok(met(&listing, &host(from)))
    }

    /// Directs what a node sends to the peer addresses of two others.
    pub(crate) async fn direct(&self, sender: u32, pair: (u32, u32), direction: Direction) -> anyhow::Result<()> {
        self.nft(sender, &directions(pair, direction)).await.map(drop)
    }

    async fn nft(&self, node: u32, script: &str) -> anyhow::Result<String> {
        let net = format!("--net=/run/netns/{}", name(node));
        run_with("nsenter", &[&net, "--", "nft", "-f", "-"], script).await
    }
}

/// The rules for what arrives at a node, in one transaction: there is no moment without them.
fn script(node: u32, rules: &Rules) -> String {
    let mut text = String::from("table inet faults\ndelete table inet faults\ntable inet faults {\nchain input {\n");
    text.push_str("type filter hook input priority 0; policy accept;\n");
    for (&(from, _), rule) in rules.iter().filter(|((_, to), _)| *to == node) {
        let what = match rule {
            rule if rule.cut => "counter drop".to_owned(),
            rule if rule.loss_percent > 0 => format!("numgen random mod 100 < {} counter drop", rule.loss_percent),
            _ => continue,
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "ip saddr {} {what}", host(from));
    }
    text.push_str("}\n}\n");
    text
}

/// The rules for what a node sends to the peers of a pair, in one transaction.
fn directions((one, other): (u32, u32), direction: Direction) -> String {
    let (one, other) = (host(one), host(other));
    let chain = match direction {
        Direction::Right => String::new(),
        Direction::Reset => format!(
            "chain output {{ type filter hook output priority 0; ip daddr {{ {one}, {other} }} tcp dport {PEER_PORT} reject with tcp reset; }}\n"
        ),
        Direction::Swapped => format!(
            "chain output {{ type nat hook output priority -100; ip daddr {one} tcp dport {PEER_PORT} dnat to {other}; \
             ip daddr {other} tcp dport {PEER_PORT} dnat to {one}; }}\n"
        ),
    };
    format!("table ip directions\ndelete table ip directions\ntable ip directions {{\n{chain}}}\n")
}

/// What the listed rule for a source has counted.
fn met(listing: &str, source: &str) -> Met {
    let rules = listing.lines().filter(|line| line.split_whitespace().any(|word| word == source));
    let after = |line: &str, word: &str| line.split_once(word)?.1.split_whitespace().next()?.parse::<u64>().ok();
    let mut met = Met::default();
    for (pieces, bytes) in rules.filter_map(|line| after(line, "packets ").zip(after(line, "bytes "))) {
        met += Met { pieces, bytes };
    }
    met
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::network::Rule;
    use super::*;

    #[test]
    fn what_is_for_the_one_goes_to_the_other() {
        let swapped = directions((2, 3), Direction::Swapped);
        assert!(swapped.contains("ip daddr 10.77.0.2 tcp dport 7081 dnat to 10.77.0.3;"), "{swapped}");
        assert!(swapped.contains("ip daddr 10.77.0.3 tcp dport 7081 dnat to 10.77.0.2;"), "{swapped}");
        assert!(directions((2, 3), Direction::Reset).contains("{ 10.77.0.2, 10.77.0.3 }"));
        assert!(!directions((2, 3), Direction::Right).contains("chain"));
    }

    #[test]
    fn a_node_drops_what_comes_to_it_and_its_counters_are_read() {
        let loss = Rule { loss_percent: 30, ..Rule::SOUND };
        let rules = Rules::from([((1, 2), Rule::CUT), ((3, 2), loss), ((2, 1), Rule::CUT)]);
        let script = script(2, &rules);
        assert!(script.contains("ip saddr 10.77.0.1 counter drop\n"), "{script}");
        assert!(script.contains("ip saddr 10.77.0.3 numgen random mod 100 < 30 counter drop\n"), "{script}");
        assert!(!script.contains("10.77.0.2 "), "{script}");
        let delayed = Rules::from([((1, 2), Rule { delay: Duration::from_secs(1), ..Rule::SOUND })]);
        assert!(!self::script(2, &delayed).contains("saddr"));
        let listing = "ip saddr 10.77.0.1 counter packets 7 bytes 420 drop\nip saddr 10.77.0.10 counter packets 9 bytes 1 drop\n";
        assert_eq!(met(listing, "10.77.0.1"), Met { pieces: 7, bytes: 420 });
        assert_eq!(met(listing, "10.77.0.3"), Met::default());
    }
}
