//! Small writes of several pieces, made with one plain call of the system's.
//!
//! hyper writes a head and a body as two pieces with `writev`. Up to a few kilobytes it costs less to copy them together and to call `send`,
//! and a single piece needs no `writev` either (measured over loopback: 0.3 and 0.15 us less of some 7 us). Where TLS is spoken, it
//! makes one record of them.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

/// Bytes that are copied together at most. A body of 1 KiB with its head has room.
const BYTES_MAX: usize = 2 * 1024;

thread_local! {
    /// Where pieces are copied together: kept, for an array would be filled with zeros each time.
    static GATHERED: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(BYTES_MAX));
}

/// Writes `slices` as `poll_write_vectored` does, at the least cost.
pub fn poll_write_gathered<I: AsyncWrite + ?Sized>(
    io: Pin<&mut I>,
    cx: &mut Context<'_>,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if let [slice] = slices {
        return io.poll_write(cx, slice);
    }
    if slices.iter().map(|slice| slice.len()).sum::<usize>() > BYTES_MAX {
        return io.poll_write_vectored(cx, slices);
    }
    GATHERED.with_borrow_mut(|gathered| {
        gathered.clear();
        slices.iter().for_each(|slice| gathered.extend_from_slice(slice));
        io.poll_write(cx, gathered)
    })
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// How each write came: its bytes, and whether in pieces. At most `room` bytes are taken at a time.
    struct Calls {
        calls: Vec<(usize, bool)>,
        bytes: Vec<u8>,
        room: usize,
    }

    impl AsyncWrite for Calls {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let count = bytes.len().min(self.room);
            self.calls.push((count, false));
            self.bytes.extend_from_slice(&bytes[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_write_vectored(mut self: Pin<&mut Self>, _: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
            let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            let count = bytes.len().min(self.room);
            self.calls.push((count, true));
            self.bytes.extend_from_slice(&bytes[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_is_small_goes_out_as_one_piece_and_nothing_is_lost() {
        let table: [(&[usize], usize, (usize, bool)); 6] = [
            (&[200], usize::MAX, (200, false)),
            (&[4096], usize::MAX, (4096, false)),
            (&[200, 1024], usize::MAX, (1224, false)),
            (&[1024, 1024], usize::MAX, (2048, false)),
            (&[1025, 1024], usize::MAX, (2049, true)),
            (&[200, 1024], 300, (300, false)),
        ];
        for (lengths, room, expected) in table {
            let pieces: Vec<Vec<u8>> = lengths.iter().zip(1..).map(|(length, byte)| vec![byte; *length]).collect();
            let slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
            let mut socket = Calls { calls: Vec::new(), bytes: Vec::new(), room };
            let written = poll_fn(|cx| poll_write_gathered(Pin::new(&mut socket), cx, &slices)).await.unwrap();
            assert_eq!((socket.calls.as_slice(), written), ([expected].as_slice(), expected.0), "{lengths:?}");
            assert_eq!(socket.bytes, pieces.concat()[..written], "{lengths:?}");
        }
    }
}
