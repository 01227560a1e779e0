//! An address where one worker accepts: the listener that stands there now, and the wish to close it.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;

use tokio::sync::{Notify, oneshot};

use super::listener::{Listener, ListenerOptions};
use super::load::Load;
use crate::observe::Counter;

/// One address as one worker has it.
#[derive(Debug)]
pub(super) struct Place {
    listener: RefCell<Rc<Listener>>,
    close: Notify,
    /// Dropped once the socket is closed.
    closing: RefCell<Option<oneshot::Sender<()>>>,
    is_closed: Cell<bool>,
}

impl Place {
    pub(super) fn new(listener: Listener) -> Rc<Place> {
        let listener = RefCell::new(Rc::new(listener));
        Rc::new(Place { listener, close: Notify::new(), closing: RefCell::new(None), is_closed: Cell::new(false) })
    }

    /// What new connections are served by.
    pub(super) fn listener(&self) -> Rc<Listener> {
        Rc::clone(&self.listener.borrow())
    }

    /// Serves new connections by other options from now on.
    pub(super) fn set(&self, options: ListenerOptions, sharing: Vec<ListenerOptions>) {
        let replaced = self.listener().replaced_by(options, sharing);
        self.listener.replace(Rc::new(replaced));
        // Whoever waits for room: there may be more now.
        self.listener().loads.tell_changed();
    }

    /// Accepts no more. `closed` is dropped once the socket is closed.
    pub(super) fn close(&self, closed: oneshot::Sender<()>) {
        self.closing.replace(Some(closed));
        self.close.notify_one();
    }

    /// Done once it is to accept no more.
    pub(super) async fn is_to_close(&self) {
        self.close.notified().await;
    }

    pub(super) fn note_closed(&self) {
        self.is_closed.set(true);
        drop(self.closing.take());
    }

    /// Whether nothing is accepted here any more, and nothing is open.
    pub(super) fn is_over(&self, worker: usize) -> bool {
        self.is_closed.get() && self.listener().loads.of(worker) == 0
    }

    /// Counts another connection, once there is room for it. Where that is not at once, it is told by `held_back`.
    pub(super) async fn room(&self, held_back: &Counter) -> Load {
        if let Some(load) = self.listener().add() {
            return load;
        }
        held_back.inc();
        let loads = self.listener().loads.clone();
        loop {
            let mut changed = pin!(loads.changed());
            // Before it is asked: what changes after that is told.
            changed.as_mut().enable();
            if let Some(load) = self.listener().add() {
                return load;
            }
            changed.await;
        }
    }
}
