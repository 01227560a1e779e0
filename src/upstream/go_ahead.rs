//! A request's body that waits until the backend asks for it (RFC 9110 10.1.1).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::time::{Sleep, sleep};

/// How long a body waits. A backend that does not know the expectation says nothing until it has all of the request.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Tells a body that it is asked for. It may be told from another thread, for hyper demands so of what it calls.
#[derive(Clone)]
pub struct GoAhead(Arc<Shared>);

#[derive(Default)]
struct Shared {
    is_given: AtomicBool,
    waker: AtomicWaker,
}

impl GoAhead {
    /// The body goes out from now on.
    pub fn give(&self) {
        self.0.is_given.store(true, Ordering::Release);
        self.0.waker.wake();
    }
}

impl fmt::Debug for GoAhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GoAhead").field("is_given", &self.0.is_given).finish_non_exhaustive()
    }
}

/// The body's side of it.
#[derive(Debug)]
pub(super) struct Hold {
    go_ahead: GoAhead,
    /// Begins with the first question, which is when the head is out.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Hold {
    pub(super) fn new() -> (Hold, GoAhead) {
        let go_ahead = GoAhead(Arc::default());
        (Hold { go_ahead: go_ahead.clone(), timer: None }, go_ahead)
    }

    /// Ready once the body may go out.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.go_ahead.0.waker.register(cx.waker());
        if self.go_ahead.0.is_given.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        self.timer.get_or_insert_with(|| Box::pin(sleep(WAIT_MAX))).as_mut().poll(cx)
    }
}
