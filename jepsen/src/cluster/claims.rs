//! Who has which nodes: a fault or a change of membership that stops and starts a node must be the only one that does.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The nodes that are taken. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Claims(Arc<Mutex<BTreeSet<u32>>>);

/// Nodes that are taken until this is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    nodes: Vec<u32>,
    claims: Claims,
}

impl Claims {
    /// Takes all of these, or none; the error is one that is taken.
    pub(crate) fn take(&self, nodes: &[u32]) -> Result<Claim, u32> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = nodes.iter().find(|id| taken.contains(id)) {
            return Err(*id);
        }
        taken.extend(nodes);
        Ok(Claim { nodes: nodes.to_vec(), claims: self.clone() })
    }
}

impl Claim {
    /// These nodes stay taken.
    pub(crate) fn keep(mut self) {
        self.nodes.clear();
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut taken = self.claims.0.lock().unwrap_or_else(PoisonError::into_inner);
        for id in &self.nodes {
            taken.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_taken_together_and_given_back() {
        let claims = Claims::default();
        let first = claims.take(&[1, 2]).unwrap();
        assert_eq!(claims.take(&[3, 2]).unwrap_err(), 2);
        let third = claims.take(&[3]).unwrap();
        drop(first);
        assert_eq!(claims.take(&[3]).unwrap_err(), 3);
        drop(third);
        drop(claims.take(&[1, 2, 3]).unwrap());
        claims.take(&[2]).unwrap().keep();
        assert_eq!(claims.take(&[1, 2]).unwrap_err(), 2);
    }
}
