//! One websocket: frames in to the session, the queue out in as few writes as possible.
//!
//! Owns: the socket's life, keepalive, the order of reading and writing. Must not: interpret frames; the session does.
//! Next: `outbox.rs`, syncline-core's `session.rs`; docs/architecture.md "A connection".
//!
//! Reading and writing happen in one task, without a lock between them: two tasks would cost memory per idle
//! connection, and a write must never wait for a read.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use futures_util::Sink;
use syncline_core::access::Access;
use syncline_core::blob::exchange;
use syncline_core::clock::Stamp;
use syncline_core::hub::{Input, Outgoing, PeerInfo, PeerMessage};
use syncline_core::id::SessionId;
use syncline_core::limits::Limits;
use syncline_core::native::NativeMessage;
use syncline_core::session::{Offence, Pause, Session, Step, is_heavy};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use crate::dial::{Credentials, ServerUrl};
use crate::insight::PeerClock;
use crate::mesh::{self, Gate};
use crate::outbox::{Outbox, Queued, Waiting};
use crate::replica::{Inner, News};
use crate::shard::Allowance;
use crate::stream::Counted;
use crate::subjects::Place;
use crate::tenure::Tenure;
use crate::way::{self, FanOut};

/// Bytes read from a socket at once. Allocated per connection, so it is what an idle connection costs.
const READ_BUFFER_BYTES: usize = 2 * 1024;

/// Between two looks at a connection's health.
const TICK: Duration = Duration::from_secs(10);

/// The same while a write is under way: who does not read is to go soon after its time is up.
const WRITING_TICK: Duration = Duration::from_secs(2);

/// How long, and how much, is read of a peer that has been told good-bye. A socket that is closed while something is unread is
/// reset, and a reset takes the last words with it.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// How websockets are set up, here and in the server that accepts them.
#[must_use]
pub fn websocket_config(limits: &Limits) -> WebSocketConfig {
    // The write buffer needs no bound of its own: the queue before it is bounded, and is taken up only when the last
    // write is through.
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(Some(limits.message_bytes_max))
        .max_frame_size(Some(limits.message_bytes_max))
}

/// Serves a peer that dialled, over a stream on which the websocket upgrade is done.
pub(crate) async fn accept<S>(replica: Arc<Inner>, stream: S, entrant: Option<Access>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let session = Session::accept(replica.local.clone(), replica.limits().as_ref().clone()).for_entrant(entrant);
    let session = session.with_loader(replica.store.loader());
    // What arrives in one read with the join belongs to the time after it.
    let read_max = (replica.limits().join_frame_bytes_max + READ_BUFFER_BYTES) as u64;
    let config = websocket_config(&replica.limits());
    let socket = WebSocketStream::from_raw_socket(Counted::new(stream, read_max), Role::Server, Some(config)).await;
    Connection::open(replica, socket, session).run().await;
}

/// Speaks with a server that was dialled. Returns how long the peer was joined, if it was.
pub(crate) async fn dialled<S>(
    replica: Arc<Inner>,
    socket: WebSocketStream<Counted<S>>,
    (server, credentials): (ServerUrl, Option<Credentials>),
) -> Option<Duration>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (session, join) = Session::dial(replica.local.clone(), replica.limits().as_ref().clone());
    let session = session.with_loader(replica.store.loader());
    let mut connection = Connection::open(replica, socket, session);
    connection.server = Some(server);
    connection.tenure = Tenure::new(credentials);
    connection.outbox.push(Queued::Frame(join));
    connection.run().await
}

/// Serves somebody who has dialled to be a member of the mesh, over a websocket.
pub(crate) async fn accept_member<S>(replica: Arc<Inner>, socket: WebSocketStream<Counted<S>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Who is let in is the gate's to say, by the mesh's key.
    let session =
        Session::accept(replica.local.clone(), replica.limits().as_ref().clone()).for_entrant(Some(Access::full()));
    let session = session.with_loader(replica.store.loader());
    let mut connection = Connection::open(replica, socket, session);
    connection.gate = Gate::members(None);
    connection.run().await;
}

/// Speaks with another member of the mesh that was dialled.
pub(crate) async fn dialled_member<S>(replica: Arc<Inner>, socket: WebSocketStream<Counted<S>>, gate: Gate)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (session, join) = Session::dial(replica.local.clone(), replica.limits().as_ref().clone());
    let session = session.with_loader(replica.store.loader());
    let mut connection = Connection::open(replica, socket, session);
    connection.gate = gate;
    connection.outbox.push(Queued::Frame(join));
    connection.run().await;
}

struct Connection<S> {
    replica: Arc<Inner>,
    /// The bounds as they were when last looked at.
    limits: Arc<Limits>,
    socket: WebSocketStream<Counted<S>>,
    /// Away only while a heavy frame is decoded.
    session: Option<Session>,
    id: SessionId,
    /// The address, if it was dialled.
    server: Option<ServerUrl>,
    /// Who is let in.
    gate: Gate,
    outbox: Arc<Outbox>,
    allowance: Arc<Allowance>,
    tenure: Tenure,
    /// Not to be read from before this.
    paused_until: Option<Instant>,
    /// Counts among its subject's connections.
    place: Option<Place>,
    tick: Interval,
    peer: Option<PeerInfo>,
    opened: Instant,
    joined: Option<Instant>,
    /// Something was written to the websocket and not yet flushed to the socket.
    unflushed: bool,
    /// The commits that the write under way tells of.
    told: Vec<FanOut>,
    /// What the counters of the stream were when last looked at, and when they last moved.
    seen: Seen,
    progress: Progress,
    closing: bool,
    /// The peer's clock, once it has told a stamp.
    clock: Option<Arc<PeerClock>>,
    /// That the peer's clock is too far ahead was logged.
    told_of_drift: bool,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    read: u64,
    read_at: Instant,
    written: u64,
    pinged_at: Instant,
}

/// How far the write under way has come.
#[derive(Debug, Clone, Copy)]
struct Progress {
    written: u64,
    /// When it began, or last moved.
    at: Instant,
}

/// What wakes a connection.
enum Turn {
    Frame(Option<Result<Message, WsError>>),
    Written(Result<(), WsError>),
    Tick,
    Close(String),
}

/// However the connection ends: its task is dropped in the middle when its dialling is given up.
impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        let joined = self.peer.as_ref().filter(|_| matches!(self.gate, Gate::Open));
        if let Some(mesh) = self.replica.mesh() {
            mesh.disconnected(&self.replica, self.id, &self.gate);
        }
        self.replica.close_session(self.id, joined);
    }
}

impl<S> Connection<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    fn open(replica: Arc<Inner>, socket: WebSocketStream<Counted<S>>, session: Session) -> Self {
        let (id, outbox) = replica.open_session();
        let now = Instant::now();
        let first = (replica.limits().join_timeout).min(TICK);
        let mut tick = tokio::time::interval_at(now + first, TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            limits: replica.limits(),
            replica,
            socket,
            session: Some(session),
            id,
            server: None,
            gate: Gate::Open,
            outbox,
            allowance: Arc::default(),
            tenure: Tenure::new(None),
            paused_until: None,
            place: None,
            tick,
            peer: None,
            opened: now,
            joined: None,
            unflushed: false,
            told: Vec::new(),
            seen: Seen { read: 0, read_at: now, written: 0, pinged_at: now },
            progress: Progress { written: 0, at: now },
            closing: false,
            clock: None,
            told_of_drift: false,
        }
    }

    async fn run(mut self) -> Option<Duration> {
        let reason = self.turns().await;
        if self.closing {
            self.say_goodbye(&reason).await;
        }
        tracing::debug!(session = self.id.0, peer = self.peer.as_ref().map(|p| p.peer.as_str()), "closed: {reason}");
        self.count_bytes();
        self.joined.map(|at| at.elapsed())
    }

    /// Takes turns until the connection ends, and says why.
    async fn turns(&mut self) -> String {
        loop {
            let turn = poll_fn(|cx| self.poll_turn(cx)).await;
            let go_on = match turn {
                Turn::Frame(None) => Err("the peer closed the connection".to_owned()),
                Turn::Frame(Some(Ok(message))) => self.message(message).await,
                Turn::Frame(Some(Err(error))) => self.read_failed(&error),
                Turn::Written(Err(error)) => Err(error.to_string()),
                Turn::Written(Ok(())) => Ok(()),
                Turn::Tick => self.check_health(),
                Turn::Close(reason) => {
                    self.closing = true;
                    Err(reason)
                }
            };
            if let Err(reason) = go_on {
                return reason;
            }
        }
    }

    /// Writes what is queued, reads what has come: whichever is ready.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        if let Poll::Ready(result) = self.poll_write(cx)
            && (result.is_err() || self.outbox_closing())
        {
            return Poll::Ready(match result {
                Err(error) => Turn::Written(Err(error)),
                Ok(()) => Turn::Close(self.outbox.closing().unwrap_or_default()),
            });
        }
        if self.outbox.take_reconsider() {
            return Poll::Ready(Turn::Tick);
        }
        if self.may_read(cx)
            && let Poll::Ready(frame) = Pin::new(&mut self.socket).poll_next(cx)
        {
            return Poll::Ready(Turn::Frame(frame));
        }
        self.tick.poll_tick(cx).map(|_| Turn::Tick)
    }

    /// Puts the whole queue into one write; takes no more from it until that is through. Ready when nothing is left.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        loop {
            if self.unflushed {
                match Pin::new(&mut self.socket).poll_flush(cx) {
                    Poll::Pending => {
                        self.note_progress();
                        return Poll::Pending;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Ready(Ok(())) => self.end_write(),
                }
            }
            let queue = self.outbox.take(cx.waker());
            if queue.is_empty() {
                self.report_drained();
                return Poll::Ready(Ok(()));
            }
            self.replica.metrics.frames_out.inc_by(queue.len() as u64);
            self.replica.metrics.writes.inc();
            for queued in queue {
                let frame = self.frame(queued);
                if let Err(error) = Pin::new(&mut self.socket).start_send(Message::Binary(frame)) {
                    return Poll::Ready(Err(error));
                }
            }
            self.begin_write();
        }
    }

    fn begin_write(&mut self) {
        self.unflushed = true;
        self.progress.at = Instant::now();
    }

    fn end_write(&mut self) {
        self.unflushed = false;
        for FanOut { committed, span } in std::mem::take(&mut self.told) {
            self.replica.metrics.fan_out_seconds.observe(committed.elapsed().as_secs_f64());
            drop(span);
        }
    }

    fn note_progress(&mut self) {
        let written = self.socket.get_ref().written;
        if written > self.progress.written {
            self.progress = Progress { written, at: Instant::now() };
        }
    }

    fn frame(&mut self, queued: Queued) -> Bytes {
        match (queued, &self.session) {
            (Queued::Frame(frame), _) => Bytes::from(frame),
            (Queued::Message(message, fan_out), Some(session)) => {
                self.told.extend(fan_out);
                let mut frame = Vec::with_capacity(message.weight() + 128);
                let native = matches!(message, Outgoing::Native(_));
                let stamp = if native { self.replica.store.tick() } else { Stamp::ZERO };
                session.encode(stamp, &message, &mut frame);
                Bytes::from(frame)
            }
            // Unreachable while `turns` awaits a heavy frame: nothing is polled then.
            (Queued::Message(..), None) => Bytes::new(),
        }
    }

    fn report_drained(&self) {
        let session = self.id;
        for waiting in self.outbox.take_drained() {
            match waiting {
                Waiting::Shard(shard) => self.replica.shards()[shard].send(Input::Drained { session }),
                Waiting::Blobs => self.replica.blobs.send(exchange::Input::Room { session }),
            }
        }
    }

    fn outbox_closing(&self) -> bool {
        self.outbox.closing().is_some()
    }

    /// A peer that does not read, or whose messages wait to be handled, is not read from.
    fn may_read(&self, cx: &Context<'_>) -> bool {
        !*self.replica.quiet.borrow()
            && self.paused_until.is_none_or(|until| until <= Instant::now())
            && !self.outbox.is_full()
            && self.allowance.has_room(self.limits.receive_bytes_max, cx.waker())
    }

    async fn message(&mut self, message: Message) -> Result<(), String> {
        match message {
            // No answer would go out any more. It is read all the same: what is left unread takes the goodbye with it.
            Message::Binary(_) | Message::Text(_) if self.outbox.is_closing() => Ok(()),
            Message::Binary(frame) => {
                self.replica.metrics.frames_in.inc();
                let span = way::receive(&self.replica.store, self.id, frame.len());
                let steps = self.receive(&frame).await?;
                self.pace(frame.len(), &steps);
                let steps = self.authenticate(steps).await;
                span.in_scope(|| self.carry_out(steps, frame.len()))
            }
            Message::Text(_) => {
                let steps = self.session.as_mut().map(Session::receive_text).unwrap_or_default();
                self.carry_out(steps, 0)
            }
            Message::Close(_) => Err("the peer closed the connection".to_owned()),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(()),
        }
    }

    /// Decodes a frame, off this thread if it is heavy.
    async fn receive(&mut self, frame: &Bytes) -> Result<Vec<Step>, String> {
        let Some(mut session) = self.session.take() else { return Ok(Vec::new()) };
        let now = self.replica.now();
        if !is_heavy(frame) {
            let steps = session.receive(now, frame);
            self.session = Some(session);
            return Ok(steps);
        }
        let _permit = self.replica.heavy.acquire().await.map_err(|error| error.to_string())?;
        let frame = frame.clone();
        let decode = move || {
            let steps = session.receive(now, &frame);
            (session, steps)
        };
        let (session, steps) = tokio::task::spawn_blocking(decode).await.map_err(|error| error.to_string())?;
        self.session = Some(session);
        Ok(steps)
    }

    /// A peer that sends faster than it may is read from later.
    fn pace(&mut self, bytes: usize, steps: &[Step]) {
        let now = self.replica.now();
        let Some(session) = &mut self.session else { return };
        let Some(Pause { wait, tell }) = session.pace(now, bytes, steps) else { return };
        self.paused_until = Some(Instant::now() + wait);
        self.tick.reset_after(wait.min(TICK));
        self.replica.metrics.paused_seconds.inc_by(wait.as_secs_f64());
        if let Some(offence) = tell {
            let steps = session.refuse(offence);
            // Neither step ends a connection.
            let _ = self.carry_out(steps, 0);
        }
    }

    /// Has a token looked at that came with a frame. Its connection waits for that, others do not.
    async fn authenticate(&mut self, mut steps: Vec<Step>) -> Vec<Step> {
        let Some(at) = steps.iter().position(|step| matches!(step, Step::Authenticate(_))) else { return steps };
        let Step::Authenticate(token) = steps.remove(at) else { return steps };
        let decision = self.replica.authority.authenticate(token.as_ref()).await;
        let now = self.replica.now();
        let admitted = self.session.as_mut().map(|session| session.admit(now, decision)).unwrap_or_default();
        steps.splice(at..at, admitted);
        steps
    }

    fn carry_out(&mut self, steps: Vec<Step>, bytes: usize) -> Result<(), String> {
        for step in steps {
            match step {
                Step::Send(frame) => self.outbox.push(Queued::Frame(frame)),
                Step::Tell(message) => self.outbox.push(Queued::Message(message, None)),
                Step::Joined(peer) => {
                    self.socket.get_mut().read_max = u64::MAX;
                    self.joined = Some(Instant::now());
                    match self.replica.subjects.enter(&peer, self.replica.limits().subject_connections_max) {
                        Ok(place) => self.place = Some(place),
                        Err(denial) => {
                            let now = self.replica.now();
                            let steps = self.session.as_mut().map(|session| session.end_access(now, denial, None));
                            return self.carry_out(steps.unwrap_or_default(), 0);
                        }
                    }
                    self.join(&peer)?;
                    self.peer = Some(peer);
                    self.tick.reset_after(self.until_due());
                }
                Step::Forward(message) => self.forward(message, bytes),
                Step::AccessChanged(access) => {
                    self.replica.change_access(self.id, &access);
                }
                Step::AccessLeft(left) => {
                    self.tenure.lasts(left);
                    self.tick.reset_after(self.until_due());
                }
                // Answered before this.
                Step::Authenticate(_) => {}
                Step::Observe(stamp) => self.observe(stamp),
                Step::Refused(offence) => self.count(&offence),
                Step::Close(offence) => {
                    self.count(&offence);
                    self.outbox.close(&offence.to_string());
                }
            }
        }
        Ok(())
    }

    /// Everybody is let in at an open gate; at another, members, once they have proved it.
    fn join(&self, peer: &PeerInfo) -> Result<(), String> {
        let mesh = self.replica.mesh();
        if matches!(self.gate, Gate::Open) {
            self.replica.join(self.id, peer, self.server.as_ref());
        } else if mesh.is_none() || !mesh::is_known_to(peer) {
            self.outbox.close("only members of a mesh are served here");
            return Ok(());
        }
        if let Some(mesh) = mesh {
            mesh.joined(&self.replica, self.id, peer, &self.gate);
        }
        Ok(())
    }

    fn forward(&self, message: PeerMessage, bytes: usize) {
        let mesh = self.replica.mesh();
        if let PeerMessage::Native(NativeMessage::Mesh(bytes)) = message {
            // Without a mesh, nobody here understands it.
            return mesh.into_iter().for_each(|mesh| mesh.received(&self.replica, self.id, bytes.clone()));
        }
        if let Gate::Members { admitted, .. } = &self.gate {
            let Some(mesh) = mesh.filter(|_| admitted.load(Ordering::Acquire)) else { return };
            if let Err(document) = mesh.takes_part_in(&message) {
                return self.outbox.push(Queued::Message(Outgoing::DocUnavailable { document }, None));
            }
        }
        let allowance = self.allowance.occupy(bytes);
        self.replica.forward(self.id, message, allowance);
    }

    /// The clock follows the peer's, as far as it may.
    fn observe(&mut self, stamp: Stamp) {
        if self.clock.is_none() {
            self.clock = self.replica.directory.clock_of(self.id);
        }
        self.clock.iter().for_each(|clock| clock.note(self.replica.now(), stamp));
        if let Err(ahead) = self.replica.store.observe(stamp) {
            self.replica.metrics.refuse(ahead.kind());
            if !std::mem::replace(&mut self.told_of_drift, true) {
                tracing::warn!(session = self.id.0, kind = ahead.kind(), "{ahead}");
            }
        }
    }

    fn count(&self, offence: &Offence) {
        if self.replica.metrics.refuse_aloud(offence.kind()) {
            let peer = self.peer.as_ref().map(|peer| peer.peer.as_str());
            tracing::warn!(session = self.id.0, peer, kind = offence.kind(), "refused: {offence}");
        }
        self.replica.tell(News::Refused { session: self.id, offence: offence.clone() });
    }

    /// A frame over the limit, or bytes that are no websocket: said to the peer before the end.
    fn read_failed(&mut self, error: &WsError) -> Result<(), String> {
        let over_quota = |error: &std::io::Error| error.kind() == std::io::ErrorKind::QuotaExceeded;
        let too_large =
            matches!(error, WsError::Capacity(_)) || matches!(error, WsError::Io(error) if over_quota(error));
        if too_large {
            let bytes_max = self.session.as_ref().map_or(0, Session::frame_bytes_max);
            let offence = Offence::FrameTooLarge { bytes: bytes_max + 1, bytes_max };
            self.count(&offence);
            let message = Outgoing::Error { message: offence.to_string() };
            self.outbox.push(Queued::Message(message, None));
            self.outbox.close(&offence.to_string());
            self.closing = true;
        }
        Err(error.to_string())
    }

    /// Takes up the bounds in force, if they are others than before.
    fn follow_limits(&mut self) {
        let limits = self.replica.limits();
        if !Arc::ptr_eq(&limits, &self.limits) {
            self.session.iter_mut().for_each(|session| session.set_limits(limits.as_ref().clone()));
            self.limits = limits;
        }
    }

    fn check_health(&mut self) -> Result<(), String> {
        let now = Instant::now();
        self.count_bytes();
        self.follow_limits();
        let limits = Arc::clone(&self.limits);
        if self.peer.is_none() && now.duration_since(self.opened) >= limits.join_timeout {
            let steps = self.session.as_mut().map(Session::join_timed_out).unwrap_or_default();
            return self.carry_out(steps, 0);
        }
        self.check_access()?;
        let stalled = self.unflushed && now.duration_since(self.progress.at) >= limits.stall_timeout;
        if stalled {
            self.replica.metrics.refuse("slow_reader");
            return Err(format!("the peer has not read for {:?}", limits.stall_timeout));
        }
        let silence = now.duration_since(self.seen.read_at);
        if silence >= limits.ping_interval * 2 {
            return Err(format!("the peer has been silent for {silence:?}"));
        }
        if silence >= limits.ping_interval && now.duration_since(self.seen.pinged_at) >= limits.ping_interval {
            self.seen.pinged_at = now;
            let ping = Message::Ping(Bytes::new());
            if !self.unflushed {
                Pin::new(&mut self.socket).start_send(ping).map_err(|error| error.to_string())?;
                self.begin_write();
            }
        }
        self.tick.reset_after(if self.unflushed { WRITING_TICK } else { self.until_due() });
        Ok(())
    }

    /// Whether the peer still may do what it may; the other way around, renews what lets this replica in elsewhere.
    fn check_access(&mut self) -> Result<(), String> {
        let now = self.replica.now();
        let Some(access) = self.session.as_ref().and_then(Session::peer).map(|peer| peer.access.clone()) else {
            return Ok(());
        };
        if access.asks() {
            self.tenure.reconsider(&self.replica, self.id);
        }
        self.tenure.renew(&self.outbox);
        let Err(denial) = self.replica.authority.still_holds(&access, now) else { return Ok(()) };
        let strangers = self.replica.authority.strangers();
        let steps = self.session.as_mut().map(|session| session.end_access(now, denial, strangers));
        self.carry_out(steps.unwrap_or_default(), 0)
    }

    /// Until the next look at the connection: a permission that ends ends on time.
    fn until_due(&self) -> Duration {
        let now = self.replica.now();
        let peer = self.session.as_ref().and_then(Session::peer);
        let left = peer.and_then(|peer| peer.access.left(now.wall_ms)).unwrap_or(TICK);
        let renewal = self.tenure.due().map_or(TICK, |at| at.saturating_duration_since(Instant::now()));
        let pause = self.paused_until.map_or(TICK, |at| at.saturating_duration_since(Instant::now()));
        let pause = if pause.is_zero() { TICK } else { pause };
        left.min(renewal).min(pause).clamp(Duration::from_millis(10), TICK)
    }

    /// Moves the stream's counters to the metrics, and notes when they last changed.
    fn count_bytes(&mut self) {
        let now = Instant::now();
        let (read, written) = (self.socket.get_ref().read, self.socket.get_ref().written);
        self.replica.metrics.bytes_in.inc_by(read - self.seen.read);
        self.replica.metrics.bytes_out.inc_by(written - self.seen.written);
        if read > self.seen.read {
            self.seen.read_at = now;
        }
        self.seen.read = read;
        self.seen.written = written;
    }

    /// Writes what is queued and a close frame, within a bound, and leaves the peer a moment to read it.
    async fn say_goodbye(&mut self, reason: &str) {
        let bound = self.limits.stall_timeout.min(Duration::from_secs(2));
        let mut cut = reason.len().min(120);
        while !reason.is_char_boundary(cut) {
            cut -= 1;
        }
        let frame = CloseFrame { code: CloseCode::Normal, reason: reason[..cut].to_owned().into() };
        let goodbye = async {
            poll_fn(|cx| self.poll_write(cx)).await?;
            self.socket.close(Some(frame)).await?;
            Ok::<_, WsError>(self.socket.get_mut().shutdown().await?)
        };
        // The peer may be gone already.
        if let Ok(Ok(())) = tokio::time::timeout(bound, goodbye).await {
            let _ = tokio::time::timeout(LINGER, self.linger()).await;
        }
    }

    /// Reads what nobody looks at any more until the peer closes its end.
    async fn linger(&mut self) {
        let (mut scrap, mut left) = (vec![0; 16 * 1024], LINGER_BYTES_MAX);
        while let Ok(read) = self.socket.get_mut().read(&mut scrap).await
            && (1..left).contains(&read)
        {
            left -= read;
        }
    }
}
