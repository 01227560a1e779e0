//! What a connection costs that stands idle after one request.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::targets::Target;

/// Connections that are opened at the same time.
const AT_ONCE: usize = 100;

/// Opens `count` connections to each target in turn.
pub(super) async fn measure(targets: &[Arc<Target>], count: usize) {
    println!("{:<9} {:>11} {:>12} {:>12} {:>18}", "target", "connections", "MiB before", "MiB then", "KiB a connection");
    for target in targets {
        // What the first requests bring along is nobody's in particular.
        drop(open(target, AT_ONCE).await);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = target.memory();
        let held = open(target, count).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let then = target.memory();
        println!(
            "{:<9} {:>11} {:>12.1} {:>12.1} {:>18.2}",
            target.name,
            held.len(),
            before as f64 / 1024.0,
            then as f64 / 1024.0,
            then.saturating_sub(before) as f64 / held.len() as f64
        );
    }
}

/// Connections that had an answer each.
async fn open(target: &Target, count: usize) -> Vec<TcpStream> {
    let mut tasks = JoinSet::new();
    for share in 0..AT_ONCE {
        let (address, mine) = (target.address, count / AT_ONCE + usize::from(share < count % AT_ONCE));
        tasks.spawn(async move {
            let mut held = Vec::new();
            for _ in 0..mine {
                let mut stream = TcpStream::connect(address).await.expect("a connection; see ulimit -n");
                stream.write_all(b"GET / HTTP/1.1\r\nHost: bench.example.com\r\n\r\n").await.unwrap();
                let mut answer = [0; 4096];
                let mut length = 0;
                // The body is 1 KiB of the same letter.
                while length < 1024 || !answer[..length].ends_with(b"xxxx") {
                    let read = stream.read(&mut answer[length..]).await.unwrap();
                    assert!(read > 0, "the target closed");
                    length += read;
                }
                held.push(stream);
            }
            held
        });
    }
    tasks.join_all().await.into_iter().flatten().collect()
}
