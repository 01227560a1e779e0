//! Links between nodes on loopback addresses: a proxy before each node's peer address.
//!
//! All members of a cluster share one list of addresses, so there is one proxy a target. Which node a connection comes from is read from
//! the kernel's tables: the socket that is connected to the proxy belongs to one of the processes that the suite started.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::network::{Link, Met, Rule, Rules};
use super::pump::{self, State};

/// Which process is which node.
pub(crate) type Owners = Arc<Mutex<BTreeMap<u32, u32>>>;

/// How often the kernel's table is read for one connection.
const LOOKS_MAX: usize = 5;

/// All links.
#[derive(Debug)]
pub(crate) struct Links {
    states: Arc<BTreeMap<Link, State>>,
    /// Dropped with it, and with them all connections.
    _proxies: JoinSet<()>,
}

impl Links {
    /// Listens at each node's `outside` address and passes on to its `inside` address.
    pub(crate) async fn create(addresses: &[(u32, SocketAddr, SocketAddr)], owners: Owners) -> anyhow::Result<Links> {
        let ids: Vec<u32> = addresses.iter().map(|(id, ..)| *id).collect();
        let pairs = ids.iter().flat_map(|&a| ids.iter().map(move |&b| (a, b))).filter(|(a, b)| a != b);
        let states: Arc<BTreeMap<Link, State>> = Arc::new(pairs.map(|link| (link, State::new())).collect());
        let mut proxies = JoinSet::new();
        for &(id, outside, inside) in addresses {
            let listener =
                TcpListener::bind(outside).await.with_context(|| format!("bind the link to node {id} at {outside}"))?;
            proxies.spawn(accept(listener, id, inside, Arc::clone(&states), Arc::clone(&owners)));
        }
        Ok(Links { states, _proxies: proxies })
    }

    /// Makes these the rules of all links.
    pub(crate) fn apply(&self, rules: &Rules) {
        for (link, state) in self.states.iter() {
            state.apply(rules.get(link).copied().unwrap_or(Rule::SOUND));
        }
    }

    /// What the rule of a link did something to.
    pub(crate) fn met(&self, link: Link) -> Met {
        self.states.get(&link).map_or_else(Met::default, State::met)
    }
}

async fn accept(listener: TcpListener, target: u32, inside: SocketAddr, states: Arc<BTreeMap<Link, State>>, owners: Owners) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, source)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        let Ok(here) = stream.local_addr() else { continue };
        let processes = owners.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let states = Arc::clone(&states);
        connections.spawn(async move {
            let owner = tokio::task::spawn_blocking(move || owner((source, here), &processes)).await;
            // A process that is gone already needs no connection.
            if let Ok(Some(node)) = owner {
                connect(stream, inside, (node, target), &states).await;
            }
        });
    }
}

async fn connect(outer: TcpStream, inside: SocketAddr, (source, target): Link, states: &BTreeMap<Link, State>) {
    let (Some(there), Some(back)) = (states.get(&(source, target)), states.get(&(target, source))) else { return };
    let Ok(inner) = TcpStream::connect(inside).await else { return };
    pump::join(outer, inner, there, back).await;
}

/// Which of the processes has the socket with these addresses, its own and the other side's.
fn owner(addresses: (SocketAddr, SocketAddr), processes: &BTreeMap<u32, u32>) -> Option<u32> {
    // Where sockets come and go meanwhile, the kernel may leave a row out.
    let look = || inode(&std::fs::read_to_string("/proc/net/tcp").ok()?, addresses);
    let socket = format!("socket:[{}]", (0..LOOKS_MAX).find_map(|_| look())?);
    let has = |pid: u32| {
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
        let mut names = descriptors.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
        names.any(|name| name.to_str() == Some(&socket)).then_some(())
    };
    processes.iter().find_map(|(&node, &pid)| has(pid).map(|()| node))
}

/// The inode of the socket with these addresses, from the text of `/proc/net/tcp`. Both count: to another side the kernel gives one local port
/// out once more, and one that was closed stays in the table.
fn inode(table: &str, (local, remote): (SocketAddr, SocketAddr)) -> Option<u64> {
    let (local, remote) = (written(local)?, written(remote)?);
    let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|row| row.get(1..3) == Some(&[local.as_str(), remote.as_str()]))?;
    row.get(9)?.parse().ok()
}

/// As the kernel writes it: the address as a number in the machine's own order.
fn written(address: SocketAddr) -> Option<String> {
    let IpAddr::V4(ip) = address.ip() else { return None };
    Some(format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), address.port()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::timeout;

    use super::*;

    /// A proxy before an echo; both ends of its links are this process.
    async fn echo_behind_a_link() -> (Links, SocketAddr) {
        let inside = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let inside_address = inside.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = inside.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        // What is free now can be somebody's a moment later.
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut tries = 0..10;
        loop {
            let (free, other) = (free(), free());
            let owners = Arc::new(Mutex::new(BTreeMap::from([(1, std::process::id())])));
            match Links::create(&[(1, other, inside_address), (2, free, inside_address)], owners).await {
                Ok(links) => return (links, free),
                Err(error) => assert!(tries.next().is_some(), "{error:#}"),
            }
        }
    }

    async fn round_trip(stream: &mut TcpStream) -> std::io::Result<[u8; 4]> {
        let mut answer = [0; 4];
        stream.write_all(b"ping").await?;
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn a_cut_link_holds_what_is_sent_until_it_is_healed() {
        let (links, address) = echo_behind_a_link().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert_eq!(&round_trip(&mut stream).await.unwrap(), b"ping");
        links.apply(&Rules::from([((1, 2), Rule::CUT)]));
        assert!(timeout(Duration::from_millis(200), round_trip(&mut stream)).await.is_err());
        assert_eq!((links.met((1, 2)), links.met((2, 1))), (Met { pieces: 1, bytes: 4 }, Met::default()));
        links.apply(&Rules::new());
        let mut answer = [0; 4];
        timeout(Duration::from_secs(5), stream.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(&answer, b"ping");
    }

    #[tokio::test]
    async fn a_way_back_can_be_slow_and_a_loss_ends_the_connection() {
        let (links, address) = echo_behind_a_link().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        links.apply(&Rules::from([((2, 1), Rule { delay: Duration::from_millis(100), ..Rule::SOUND })]));
        let began = std::time::Instant::now();
        round_trip(&mut stream).await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(100));
        links.apply(&Rules::from([((1, 2), Rule { loss_percent: 100, ..Rule::SOUND })]));
        assert!(timeout(Duration::from_secs(5), round_trip(&mut stream)).await.unwrap().is_err());
    }

    #[tokio::test]
    async fn a_delay_holds_nothing_up_but_what_it_delays() {
        let (links, address) = echo_behind_a_link().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        links.apply(&Rules::from([((1, 2), Rule { delay: Duration::from_millis(500), ..Rule::SOUND })]));
        let began = std::time::Instant::now();
        for _ in 0..10 {
            stream.write_all(b"ping").await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut answers = [0; 40];
        stream.read_exact(&mut answers).await.unwrap();
        // One after the other they would take ten delays.
        assert!((Duration::from_millis(680)..Duration::from_secs(4)).contains(&began.elapsed()), "{:?}", began.elapsed());
        assert_eq!(links.met((1, 2)).bytes, 40);
    }

    #[tokio::test]
    async fn connections_share_a_slow_link_until_it_is_healed() {
        let (links, address) = echo_behind_a_link().await;
        let mut streams = [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
        links.apply(&Rules::from([((1, 2), Rule { bytes_per_second: Some(20_000), ..Rule::SOUND })]));
        let began = std::time::Instant::now();
        let mut answer = vec![0; 5_000];
        for stream in &mut streams {
            stream.write_all(&vec![7; 5_000]).await.unwrap();
        }
        for stream in &mut streams {
            stream.read_exact(&mut answer).await.unwrap();
        }
        assert!(began.elapsed() >= Duration::from_millis(450), "{:?}", began.elapsed());
        assert_eq!(links.met((1, 2)).bytes, 10_000);
        // 500 s at this rate.
        let mut large = vec![0; 100_000];
        links.apply(&Rules::from([((1, 2), Rule { bytes_per_second: Some(200), ..Rule::SOUND })]));
        streams[0].write_all(&large).await.unwrap();
        assert!(timeout(Duration::from_millis(200), streams[0].read_exact(&mut large)).await.is_err());
        links.apply(&Rules::new());
        let mut rest = vec![0; 50_000];
        timeout(Duration::from_secs(5), streams[0].read_exact(&mut rest)).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_torn_piece_arrives_in_part_and_ends_its_connection() {
        let (links, address) = echo_behind_a_link().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        links.apply(&Rules::from([((2, 1), Rule { torn_percent: 100, ..Rule::SOUND })]));
        stream.write_all(&[7; 1_000]).await.unwrap();
        let mut arrived = Vec::new();
        let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut arrived)).await.unwrap();
        let lost = 1_000 - arrived.len();
        assert!((1..1_000).contains(&lost), "{lost}");
        assert_eq!(links.met((2, 1)), Met { pieces: 1, bytes: lost as u64 });
    }

    #[tokio::test]
    async fn a_half_open_connection_hears_nothing_until_it_is_reset() {
        let (links, address) = echo_behind_a_link().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert_eq!(&round_trip(&mut stream).await.unwrap(), b"ping");
        let half_open = Rules::from([((2, 1), Rule { half_open: true, ..Rule::SOUND })]);
        links.apply(&half_open);
        assert!(timeout(Duration::from_millis(200), round_trip(&mut stream)).await.is_err());
        assert_eq!(links.met((2, 1)), Met { pieces: 1, bytes: 4 });
        // New connections are sound, until the next wave.
        let mut new = TcpStream::connect(address).await.unwrap();
        assert_eq!(&round_trip(&mut new).await.unwrap(), b"ping");
        // The echo answers the end of what it gets with an end: that does not arrive either.
        stream.shutdown().await.unwrap();
        assert!(timeout(Duration::from_millis(200), stream.read(&mut [0; 4])).await.is_err());
        links.apply(&Rules::new());
        let ended = timeout(Duration::from_secs(5), stream.read(&mut [0; 4])).await.unwrap();
        assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        assert_eq!(&round_trip(&mut new).await.unwrap(), b"ping");
        links.apply(&half_open);
        assert!(timeout(Duration::from_millis(200), round_trip(&mut new)).await.is_err());
    }

    #[test]
    fn the_kernels_table_is_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 0100007F:1F90 0100007F:0051 06 00000000:00000000 03:00000000 00000000     0        0 0 3 0\n   \
                     1: 0100007F:1F90 0100007F:0050 01 00000000:00000000 00:00000000 00000000     0        0 4242 1 0 100 0 0 10 0\n";
        let between = |local: u16, remote: u16| inode(table, (([127, 0, 0, 1], local).into(), ([127, 0, 0, 1], remote).into()));
        if cfg!(target_endian = "little") {
            assert_eq!(between(8080, 80), Some(4242));
        }
        assert_eq!((between(8081, 80), between(8080, 82)), (None, None));
    }
}
