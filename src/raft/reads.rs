//! Linearizable reads (ReadIndex, Raft 6.4), many to a round.
//!
//! A round asks a quorum once whether the leader still leads. A reader joins only a round that has not begun, so what the round finds
//! committed holds everything that was acknowledged before the reader asked. Readers that arrive while a round is under way wait for
//! the next; 64 of them share one. A follower's round is one call to the leader, whose own rounds serve it.

use std::future::Future;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::store::LogId;

/// Readers that may wait for the next round.
const WAITING_MAX: usize = 8192;

/// What a round found: everything up to this log id was committed when it began, or why it found nothing.
pub(super) type RoundAnswer = Result<LogId, String>;

/// Joins rounds.
#[derive(Debug)]
pub(super) struct Rounds {
    readers: mpsc::Sender<oneshot::Sender<RoundAnswer>>,
}

/// What [`run`] takes the readers from.
pub(super) type Waiting = mpsc::Receiver<oneshot::Sender<RoundAnswer>>;

impl Rounds {
    pub(super) fn new() -> (Rounds, Waiting) {
        let (readers, waiting) = mpsc::channel(WAITING_MAX);
        (Rounds { readers }, waiting)
    }

    /// Takes part in the next round.
    pub(super) async fn join(&self) -> RoundAnswer {
        let (sender, receiver) = oneshot::channel();
        self.readers.try_send(sender).map_err(|_| "too many reads wait, or this node is stopping".to_owned())?;
        receiver.await.unwrap_or_else(|_| Err("this node is stopping".to_owned()))
    }
}

/// Runs `round` again and again while readers wait, until `stopping`.
pub(super) async fn run<F>(mut waiting: Waiting, stopping: CancellationToken, round: impl Fn() -> F)
where
    F: Future<Output = RoundAnswer>,
{
    let rounds = async {
        let mut readers = Vec::new();
        while waiting.recv_many(&mut readers, WAITING_MAX).await > 0 {
            let answer = round().await;
            for reader in readers.drain(..) {
                // A reader whose deadline passed is gone.
                let _ = reader.send(answer.clone());
            }
        }
    };
    stopping.run_until_cancelled(rounds).await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::sync::Semaphore;

    use super::*;
    use crate::store::LeaderId;

    #[tokio::test]
    async fn readers_share_rounds_and_never_one_that_has_begun() {
        let (rounds, waiting) = Rounds::new();
        let rounds = Arc::new(rounds);
        let begun = Arc::new(AtomicU64::new(0));
        let gate = Arc::new(Semaphore::new(0));
        let stopping = CancellationToken::new();
        let round = {
            let (begun, gate) = (Arc::clone(&begun), Arc::clone(&gate));
            move || {
                let index = begun.fetch_add(1, Ordering::SeqCst) + 1;
                let gate = Arc::clone(&gate);
                async move {
                    gate.acquire().await.unwrap().forget();
                    Ok(LogId { leader_id: LeaderId { term: 1, node_id: 1 }, index })
                }
            }
        };
        let runner = tokio::spawn(run(waiting, stopping.clone(), round));
        let first = tokio::spawn({
            let rounds = Arc::clone(&rounds);
            async move { rounds.join().await }
        });
        while begun.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let late: Vec<_> = (0..64)
            .map(|_| {
                let rounds = Arc::clone(&rounds);
                tokio::spawn(async move { rounds.join().await })
            })
            .collect();
        while rounds.readers.capacity() > WAITING_MAX - 64 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(2);
        assert_eq!(first.await.unwrap().unwrap().index, 1);
        for reader in late {
            assert_eq!(reader.await.unwrap().unwrap().index, 2, "shares the round after the one under way");
        }
        stopping.cancel();
        runner.await.unwrap();
        assert!(rounds.join().await.is_err());
    }
}
