//! A byte stream that counts, that gives a stranger only so much to send, and everybody only so much of a thread at once.
//!
//! Owns: the bytes read and written, the bound before the handshake, the turn. Must not: know frames.
//! Next: `connection.rs`.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are read before others have their turn: a peer that sends giant frames as fast as it can would keep a thread
/// for as long as there is something to read, and its neighbours on that thread wait.
const TURN_BYTES: usize = 32 * 1024;

/// A stream with counters.
#[derive(Debug)]
pub(crate) struct Counted<S> {
    inner: S,
    /// Bytes read.
    pub(crate) read: u64,
    /// Bytes written.
    pub(crate) written: u64,
    /// Most bytes that may be read; lifted once the peer has joined.
    pub(crate) read_max: u64,
    /// Bytes read in this turn.
    turn: usize,
}

impl<S> Counted<S> {
    pub(crate) fn new(inner: S, read_max: u64) -> Self {
        Self { inner, read: 0, written: 0, read_max, turn: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read >= self.read_max {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too much before the handshake")));
        }
        if self.turn >= TURN_BYTES {
            self.turn = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(cx, buffer);
        let count = buffer.filled().len() - before;
        self.read += count as u64;
        self.turn = if result.is_pending() { 0 } else { self.turn + count };
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = &result {
            self.written += *count as u64;
        }
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn whoever_always_has_more_to_say_lets_others_have_their_turn_and_loses_none() {
        let sent = vec![7; 5 * TURN_BYTES / 2];
        let (wakes, mut buffer) = (Arc::new(Wakes::default()), vec![0; TURN_BYTES / 2]);
        let waker = Arc::clone(&wakes).into();
        let mut stream = Counted::new(&sent[..], u64::MAX);
        let (mut turns, mut read) = (1, 0);
        while read < sent.len() {
            let mut piece = ReadBuf::new(&mut buffer);
            match Pin::new(&mut stream).poll_read(&mut Context::from_waker(&waker), &mut piece) {
                Poll::Ready(result) => {
                    result.expect("bytes in memory are read");
                    read += piece.filled().len();
                }
                Poll::Pending => turns += 1,
            }
        }
        assert_eq!((turns, wakes.0.load(Ordering::Relaxed)), (3, 2), "and it is woken for the next");
    }
}
