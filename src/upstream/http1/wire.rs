//! The socket of a connection, in clear text or over TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A socket. Not generic: a request polls it without a call through a table, and a pool holds both kinds.
#[derive(Debug)]
pub(in crate::upstream) enum Wire {
    /// In clear text.
    Clear(TcpStream),
    /// Over TLS.
    Secured(Box<TlsStream<TcpStream>>),
}

impl Wire {
    /// Whether bytes that were not written may have gone out all the same: TLS takes them before it knows.
    pub(super) fn takes_early(&self) -> bool {
        matches!(self, Wire::Secured(_))
    }

    /// Ready once a read is worth a try.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Wire::Clear(socket) => socket.poll_read_ready(cx),
            // What it has decrypted already is not the socket's.
            Wire::Secured(_) => Poll::Ready(Ok(())),
        }
    }

    /// Whether nothing came, neither a byte nor the end. What TLS itself has to say (tickets) is taken in. No call of the system's where
    /// it has reported nothing.
    pub(super) fn is_silent(&mut self) -> bool {
        let mut byte = [0];
        match self {
            Wire::Clear(socket) => matches!(socket.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock),
            Wire::Secured(stream) => {
                let mut buffer = ReadBuf::new(&mut byte);
                Pin::new(stream).poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer).is_pending()
            }
        }
    }

    /// Says that nothing more comes, where TLS demands a word (RFC 8446 6.1). It goes out if the socket takes it now: nobody waits for that.
    pub(super) fn say_goodbye(&mut self) {
        if let Wire::Secured(stream) = self {
            let _ = Pin::new(stream).poll_shutdown(&mut Context::from_waker(Waker::noop()));
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Clear(socket) => Pin::new(socket).poll_read(cx, buffer),
            Wire::Secured(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Wire::Clear(socket) => Pin::new(socket).poll_write(cx, bytes),
            Wire::Secured(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Wire::Clear(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Wire::Secured(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Clear(socket) => Pin::new(socket).poll_flush(cx),
            Wire::Secured(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Clear(socket) => Pin::new(socket).poll_shutdown(cx),
            Wire::Secured(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
