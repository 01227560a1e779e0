//! Which routes have counters of their own.
//!
//! A counter takes two kilobytes with its labels, and a line of what is scraped. A table may have a million routes: counters for all of them took
//! more memory than the table. So the routes that were asked for first are counted by name, and all others together.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Routes that are counted by name.
pub const COUNTED_ROUTES_MAX: usize = 10_000;

/// The label of all other routes. No resource has this name.
pub const OTHER_ROUTES: &str = "*";

/// The routes that are counted by name. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct CountedRoutes {
    names: Arc<Mutex<HashSet<Box<str>>>>,
}

impl CountedRoutes {
    /// What the route `name` is counted under: its name, unless [`COUNTED_ROUTES_MAX`] others came before it.
    pub fn label<'n>(&self, name: &'n str) -> &'n str {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.contains(name) {
            return name;
        }
        if names.len() >= COUNTED_ROUTES_MAX {
            return OTHER_ROUTES;
        }
        names.insert(Box::from(name));
        name
    }
}
