//! The network between the nodes, and what is wrong with it.
//!
//! A fault asks for [`Rules`] and gets a [`Token`]; several may hold at once, and a link suffers the worst of all. How a rule comes to
//! be is the affair of [`Namespaces`] (packets, by nftables) or [`Links`] (TCP connections, by proxies).

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;
use std::time::Duration;

use tokio::sync::Mutex;

use super::links::Links;
use super::namespaces::Namespaces;

/// What goes from one node to another; the way back is another link.
pub(crate) type Link = (u32, u32);

/// What happens to that which goes over a link. Packets can be cut off and lost; all else is for connections through a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Nothing arrives.
    pub(crate) cut: bool,
    /// How much is lost.
    pub(crate) loss_percent: u32,
    /// How much later it arrives.
    pub(crate) delay: Duration,
    /// How many bytes of all connections together arrive in a second; no bound where none.
    pub(crate) bytes_per_second: Option<u32>,
    /// Of a hundred pieces, how many arrive in part only, and end their connection.
    pub(crate) torn_percent: u32,
    /// On the connections of before nothing arrives any more, not even their end; they are reset when this is over. New ones are sound.
    pub(crate) half_open: bool,
}

impl Rule {
    /// Nothing arrives.
    pub(crate) const CUT: Rule = Rule { cut: true, ..Rule::SOUND };

    /// Everything arrives.
    pub(crate) const SOUND: Rule =
        Rule { cut: false, loss_percent: 0, delay: Duration::ZERO, bytes_per_second: None, torn_percent: 0, half_open: false };

    fn worst(self, other: Rule) -> Rule {
        Rule {
            cut: self.cut || other.cut,
            loss_percent: self.loss_percent.max(other.loss_percent),
            delay: self.delay.max(other.delay),
            bytes_per_second: [self.bytes_per_second, other.bytes_per_second].into_iter().flatten().min(),
            torn_percent: self.torn_percent.max(other.torn_percent),
            half_open: self.half_open || other.half_open,
        }
    }
}

/// What a rule did something to: packets, or pieces of what goes over connections. Those that a rule let pass are not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Met {
    pub(crate) pieces: u64,
    pub(crate) bytes: u64,
}

impl AddAssign for Met {
    fn add_assign(&mut self, other: Met) {
        self.pieces += other.pieces;
        self.bytes += other.bytes;
    }
}

impl fmt::Display for Met {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} packets or pieces of {} bytes", self.pieces, self.bytes)
    }
}

/// Rules by link; other links are sound.
pub(crate) type Rules = BTreeMap<Link, Rule>;

/// Rules that hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Token(u64);

/// How the nodes reach each other.
#[derive(Debug)]
pub(crate) struct Network {
    means: Means,
    held: Mutex<Held>,
}

/// Where what a node sends to two others goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// To each what is for it.
    Right,
    /// Every packet is answered with a reset: no connection lives on.
    Reset,
    /// New connections to the one come to the other.
    Swapped,
}

/// By what links are disturbed.
#[derive(Debug)]
pub(crate) enum Means {
    Namespaces(Namespaces),
    Links(Links),
}

#[derive(Debug, Default)]
struct Held {
    next: u64,
    rules: BTreeMap<Token, Rules>,
}

impl Held {
    fn effective(&self) -> Rules {
        let mut effective = Rules::new();
        for (link, rule) in self.rules.values().flatten() {
            let known = effective.entry(*link).or_insert(Rule::SOUND);
            *known = known.worst(*rule);
        }
        effective
    }
}

impl Network {
    /// A sound network.
    pub(crate) fn new(means: Means) -> Network {
        Network { means, held: Mutex::default() }
    }

    /// Directs what a node sends to the peer addresses of two others.
    pub(crate) async fn direct(&self, sender: u32, pair: (u32, u32), direction: Direction) -> anyhow::Result<()> {
        match &self.means {
            Means::Namespaces(namespaces) => namespaces.direct(sender, pair, direction).await,
            Means::Links(_) => anyhow::bail!("proxies of connections cannot swap addresses"),
        }
    }

    /// Adds rules.
    pub(crate) async fn disturb(&self, rules: Rules) -> anyhow::Result<Token> {
        let mut held = self.held.lock().await;
        held.next += 1;
        let token = Token(held.next);
        held.rules.insert(token, rules);
        self.apply(held.effective()).await?;
        Ok(token)
    }

    /// Takes rules away.
    pub(crate) async fn restore(&self, token: Token) -> anyhow::Result<()> {
        let mut held = self.held.lock().await;
        held.rules.remove(&token);
        self.apply(held.effective()).await
    }

    /// Takes all rules away.
    pub(crate) async fn heal(&self) -> anyhow::Result<()> {
        let mut held = self.held.lock().await;
        held.rules.clear();
        self.apply(Rules::new()).await
    }

    /// What the present rules of these links did something to, since the rules were last changed.
    pub(crate) async fn met(&self, links: impl Iterator<Item = Link>) -> anyhow::Result<Met> {
        let mut sum = Met::default();
        for link in links {
            sum += match &self.means {
                Means::Namespaces(namespaces) => namespaces.met(link).await?,
                Means::Links(proxies) => proxies.met(link),
            };
        }
        Ok(sum)
    }

    async fn apply(&self, rules: Rules) -> anyhow::Result<()> {
        match &self.means {
            Means::Namespaces(namespaces) => namespaces.apply(&rules).await,
            Means::Links(links) => {
                links.apply(&rules);
                Ok(())
            }
        }
    }
}

/// Cuts every link between nodes of different groups; a node that is in no group is cut from all.
pub(crate) fn partition(nodes: &[u32], groups: &[&[u32]]) -> Rules {
    let group = |node: u32| groups.iter().position(|group| group.contains(&node));
    let apart = |a: u32, b: u32| a != b && (group(a).is_none() || group(a) != group(b));
    let pairs = nodes.iter().flat_map(|&a| nodes.iter().map(move |&b| (a, b)));
    pairs.filter(|&(a, b)| apart(a, b)).map(|link| (link, Rule::CUT)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_cuts_between_groups_and_nowhere_else() {
        let rules = partition(&[1, 2, 3, 4, 5], &[&[1, 2], &[3, 4, 5]]);
        assert_eq!(rules.len(), 12);
        assert!(rules.contains_key(&(1, 3)) && rules.contains_key(&(3, 1)));
        assert!(!rules.contains_key(&(1, 2)) && !rules.contains_key(&(4, 5)));
        let alone: Vec<Link> = partition(&[1, 2, 3], &[&[2, 3]]).into_keys().collect();
        assert_eq!(alone, [(1, 2), (1, 3), (2, 1), (3, 1)]);
    }

    #[test]
    fn a_link_suffers_the_worst_of_all_rules() {
        let mut held = Held::default();
        let slow = Rule { delay: Duration::from_millis(50), bytes_per_second: Some(9), ..Rule::SOUND };
        let slower = Rule { bytes_per_second: Some(7), torn_percent: 3, half_open: true, ..Rule::SOUND };
        held.rules.insert(Token(1), Rules::from([((1, 2), Rule::CUT)]));
        held.rules.insert(Token(2), Rules::from([((1, 2), slow), ((2, 1), slow)]));
        held.rules.insert(Token(3), Rules::from([((1, 3), slow)]));
        held.rules.insert(Token(4), Rules::from([((1, 3), slower)]));
        let effective = held.effective();
        assert_eq!(effective[&(1, 2)], Rule { cut: true, ..slow });
        assert_eq!(effective[&(2, 1)], slow);
        assert_eq!(effective[&(1, 3)], Rule { delay: slow.delay, ..slower });
        held.rules.remove(&Token(1));
        assert!(!held.effective()[&(1, 2)].cut);
    }
}
