//! What the author of a certificate is told beside the outcome: that it is not valid now, and that others have its hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::render::system_time;
use super::sealing::Admitted;
use crate::model::{Kind, Name, ResourceKey};
use crate::table::{Chain, Snapshot};

/// Certificates of one write that are looked at together, at most. Where there are more, nothing is told of their hosts: part of it would
/// tell what is not so.
const OUTLINES_MAX: usize = 1_000;

/// Other certificates that a warning names at most.
const NAMED_MAX: usize = 3;

/// A certificate as far as it can be in the way of others.
#[derive(Debug, Clone)]
pub(super) struct Outline {
    hosts: Vec<String>,
    is_default: bool,
}

impl Outline {
    pub(super) fn of(admitted: &Admitted) -> Outline {
        Outline { hosts: admitted.chain.hosts.clone(), is_default: admitted.is_default }
    }
}

/// The certificates of one write.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// None, once there were more than [`OUTLINES_MAX`].
    outlines: BTreeMap<Name, Outline>,
    count: usize,
}

impl Written {
    pub(super) fn add(&mut self, name: &Name, outline: Outline) {
        self.count += 1;
        if self.count <= OUTLINES_MAX {
            self.outlines.insert(name.clone(), outline);
        } else {
            self.outlines.clear();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.outlines.is_empty()
    }

    /// Hosts, and being the default, that certificates share with each other or with those of `table`. Of these, `removed` go; `None`: all.
    pub(super) fn warnings(&self, table: &Snapshot, removed: Option<&[ResourceKey]>) -> Vec<String> {
        let gone = removed.map(|removed| removed.iter().filter(|key| key.kind == Kind::Certificate).map(|key| &key.name));
        let gone: Option<BTreeSet<&Name>> = gone.map(Iterator::collect);
        let stays = |name: &Name| !self.outlines.contains_key(name) && gone.as_ref().is_some_and(|gone| !gone.contains(name));
        let mut of_host: BTreeMap<&str, Vec<&Name>> = BTreeMap::new();
        for (name, outline) in &self.outlines {
            outline.hosts.iter().for_each(|host| of_host.entry(host).or_default().push(name));
        }
        let mut warnings = Vec::new();
        for (name, outline) in &self.outlines {
            let key = ResourceKey::new(Kind::Certificate, name.clone());
            let mut shared: BTreeMap<&Name, &str> = BTreeMap::new();
            for host in &outline.hosts {
                let present = table.certificates_of(host).map(|certificate| &certificate.name).filter(|name| stays(name));
                let written = of_host.get(host.as_str()).into_iter().flatten().copied().filter(|other| *other != name);
                present.chain(written).for_each(|other| _ = shared.entry(other).or_insert(host));
            }
            warnings.extend(shared.iter().take(NAMED_MAX).map(|(other, host)| {
                format!("{key}: certificate {:?} has the host {host:?} too: the oldest serves it", other.as_str())
            }));
            if outline.is_default {
                let present = table.default_certificates().map(|certificate| &certificate.name).filter(|name| stays(name));
                let written = self.outlines.iter().filter(|(other, outline)| outline.is_default && *other != name);
                let mut others = present.chain(written.map(|(name, _)| name));
                warnings.extend(others.next().map(|other| {
                    format!("{key}: certificate {:?} is marked as default too: the oldest of them is it", other.as_str())
                }));
            }
        }
        warnings
    }
}

/// Says so where a chain's leaf is not valid at `now`.
pub(super) fn validity(chain: &Chain, now: SystemTime) -> Option<String> {
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    if now > chain.not_after {
        return Some(format!("/certificate: it expired at {}: clients refuse it", date(chain.not_after)));
    }
    let early = now < chain.not_before;
    early.then(|| format!("/certificate: it is not valid before {}: clients refuse it until then", date(chain.not_before)))
}

/// Seconds of the epoch for people; X.509 ends with the year 9999.
fn date(seconds: i64) -> String {
    let last = 253_402_300_799;
    system_time(UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0).min(last)))
}
