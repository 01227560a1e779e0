//! A request's body that waits until the backend asks for it (RFC 9110 10.1.1).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

/// How long a body waits. A backend that does not know the expectation says nothing until it has all of the request.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// What a body waits for, if nobody lets it go before.
#[derive(Debug, Default)]
pub(super) struct Hold {
    /// Begins with the first question, which is when the head goes out.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Hold {
    /// Ready once the body may go out all the same.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.get_or_insert_with(|| Box::pin(sleep(WAIT_MAX))).as_mut().poll(cx)
    }
}
