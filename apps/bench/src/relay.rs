//! A bare websocket relay: the most that any server in the middle could do on this machine.
//!
//! Owns: the relay, and the load that saturates it. Must not: read a frame; every binary frame goes to everybody else.
//! Next: `scenario/fanout.rs`, which sets a server beside it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio_tungstenite::tungstenite::Message;

use crate::stats::Stats;
use crate::wire::Endpoint;

type Everybody = Arc<Mutex<HashMap<u64, mpsc::UnboundedSender<Bytes>>>>;

/// Serves until the process is killed.
///
/// # Errors
/// When the address cannot be listened on.
pub(crate) async fn serve(listen: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    let everybody = Everybody::default();
    for id in 0.. {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(relay(stream, id, Arc::clone(&everybody)));
    }
    Ok(())
}

async fn relay(stream: TcpStream, id: u64, everybody: Everybody) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let (mut sink, mut source) = tokio_tungstenite::accept_async(stream).await?.split();
    let (sender, mut queue) = mpsc::unbounded_channel::<Bytes>();
    everybody.lock().unwrap_or_else(PoisonError::into_inner).insert(id, sender);
    let writing = async {
        while let Some(first) = queue.recv().await {
            sink.feed(Message::Binary(first)).await?;
            while let Ok(next) = queue.try_recv() {
                sink.feed(Message::Binary(next)).await?;
            }
            sink.flush().await?;
        }
        anyhow::Ok(())
    };
    let reading = async {
        while let Some(Ok(message)) = source.next().await {
            if let Message::Binary(frame) = message {
                let others = everybody.lock().unwrap_or_else(PoisonError::into_inner);
                for (_, sender) in others.iter().filter(|(other, _)| **other != id) {
                    let _ = sender.send(frame.clone());
                }
            }
        }
    };
    tokio::select! {
        written = writing => written?,
        () = reading => {}
    }
    everybody.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    Ok(())
}

/// What came through a saturated relay.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Throughput {
    /// Frames that subscribers received, per second.
    pub(crate) frames_per_s: f64,
}

/// Saturates a relay: one writer of frames of this size, at most `window` ahead of the subscribers' average.
///
/// # Errors
/// When the relay does not accept.
pub(crate) async fn saturate(
    endpoint: &Endpoint,
    subscribers: usize,
    frame_bytes: usize,
    window: u64,
    seconds: f64,
) -> anyhow::Result<Throughput> {
    let received = Arc::new(AtomicU64::new(0));
    let progress = Arc::new(Notify::new());
    let mut readers = Vec::new();
    for _ in 0..subscribers {
        let mut socket = endpoint.dial(None, Stats::new()).await?;
        let (received, progress) = (Arc::clone(&received), Arc::clone(&progress));
        readers.push(tokio::spawn(async move {
            while let Some(Ok(message)) = socket.next().await {
                if message.is_binary() {
                    received.fetch_add(1, Relaxed);
                    progress.notify_one();
                }
            }
        }));
    }
    let mut writer = endpoint.dial(None, Stats::new()).await?;
    let frame = Bytes::from(vec![0x5a; frame_bytes]);
    let (mut sent, began) = (0_u64, Instant::now());
    let length = Duration::from_secs_f64(seconds);
    while began.elapsed() < length {
        if sent.saturating_sub(received.load(Relaxed) / subscribers.max(1) as u64) < window {
            writer.feed(Message::Binary(frame.clone())).await?;
            sent += 1;
            continue;
        }
        writer.flush().await?;
        let _ = tokio::time::timeout(Duration::from_millis(100), progress.notified()).await;
    }
    let frames_per_s = received.load(Relaxed) as f64 / began.elapsed().as_secs_f64();
    writer.close(None).await.context("closing")?;
    for reader in readers {
        reader.abort();
    }
    Ok(Throughput { frames_per_s })
}
