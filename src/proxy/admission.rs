//! How many connections one address may have: counted over all workers of a listener, for the kernel spreads them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Bits of an IPv6 address that name one site; the rest is for its owner to choose.
const IPV6_SITE_BITS: u32 = 64;

/// The connections of one listener by address.
#[derive(Debug, Clone, Default)]
pub(super) struct Addresses(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection that counts, until it is dropped.
#[derive(Debug)]
pub(super) struct Admission {
    addresses: Addresses,
    site: IpAddr,
}

impl Addresses {
    /// Counts a connection from `address`; `None` where it has `connections_max` already.
    pub(super) fn admit(&self, address: IpAddr, connections_max: usize) -> Option<Admission> {
        let site = site_of(address);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get(&site).copied().unwrap_or(0);
        if count >= connections_max {
            return None;
        }
        counts.insert(site, count + 1);
        Some(Admission { addresses: self.clone(), site })
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut counts = self.addresses.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = counts.entry(self.site) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

fn site_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> IPV6_SITE_BITS << IPV6_SITE_BITS).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_site_has_its_own_count_and_nothing_is_left() {
        let addresses = Addresses::default();
        let mut held = Vec::new();
        for (address, expected) in [
            ("192.0.2.1", true),
            ("192.0.2.1", true),
            ("192.0.2.1", false),
            ("192.0.2.2", true),
            ("2001:db8::1", true),
            ("2001:db8::2", true),
            ("2001:db8::3", false),
            ("2001:db8:0:1::3", true),
        ] {
            let admission = addresses.admit(address.parse().unwrap(), 2);
            assert_eq!(admission.is_some(), expected, "{address}");
            held.extend(admission);
        }
        held.remove(0);
        held.extend(addresses.admit("192.0.2.1".parse().unwrap(), 2));
        assert!(addresses.admit("192.0.2.1".parse().unwrap(), 2).is_none());
        held.clear();
        assert!(addresses.0.lock().unwrap().is_empty());
    }
}
