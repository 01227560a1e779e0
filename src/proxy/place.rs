//! An address where one worker accepts: the listener that stands there now, and the wish to close it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::sync::{Notify, oneshot};

use super::listener::{Listener, ListenerOptions};
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

    /// Returns once another connection may be accepted. Where that is not at once, it is counted by `held_back`.
    pub(super) async fn has_room(&self, held_back: &Counter) {
        let mut listener = self.listener();
        if listener.has_room() {
            return;
        }
        held_back.inc();
        while !listener.has_room() {
            listener.room_made().await;
            listener = self.listener();
        }
    }
}
