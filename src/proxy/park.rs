//! Parking: a request that names a least revision waits until the live table is there.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::sync::watch;

use super::fault::Fault;
use crate::model::{Published, Revision};
use crate::table::Live;

const MIN_REVISION: &str = "raftgate-min-revision";
const TIMEOUT: &str = "raftgate-timeout";
/// Requests that wait in one worker at most.
pub(super) const PARKED_MAX: usize = 1024;
/// How long one waits where it does not say.
const WAIT_DEFAULT: Duration = Duration::from_secs(5);
/// How long one waits at most.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// The parked requests of one worker.
#[derive(Debug)]
pub(super) struct Parking {
    published: watch::Receiver<Published>,
    parked: Cell<usize>,
}

impl Parking {
    pub(super) fn new(live: &Arc<Live>) -> Parking {
        Parking { published: live.published(), parked: Cell::new(0) }
    }

    /// Returns at once for most requests; else when the revision that `headers` name is live.
    pub(super) async fn wait(&self, headers: &HeaderMap) -> Result<(), Fault> {
        let Some(value) = headers.get(MIN_REVISION) else { return Ok(()) };
        let least = value.to_str().ok().and_then(|text| text.parse().ok()).map(Revision);
        let least = least.ok_or(Fault::bad_request("Raftgate-Min-Revision is not a number"))?;
        let wait = match headers.get(TIMEOUT) {
            None => WAIT_DEFAULT,
            Some(value) => value
                .to_str()
                .ok()
                .and_then(|text| crate::model::spec::parse_duration(text).ok())
                .ok_or(Fault::bad_request("Raftgate-Timeout is not a duration (\"5s\", \"250ms\")"))?,
        };
        if self.published.borrow().revision >= least {
            return Ok(());
        }
        if self.parked.get() >= PARKED_MAX {
            return Err(Fault::revision_not_live(least));
        }
        let _place = Place::take(&self.parked);
        let mut published = self.published.clone();
        let reached = published.wait_for(|published| published.revision >= least);
        match tokio::time::timeout(wait.min(WAIT_MAX), reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Fault::revision_not_live(least)),
        }
    }
}

/// One parked request, also when its client goes away.
struct Place<'a>(&'a Cell<usize>);

impl Place<'_> {
    fn take(parked: &Cell<usize>) -> Place<'_> {
        parked.set(parked.get() + 1);
        Place(parked)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
