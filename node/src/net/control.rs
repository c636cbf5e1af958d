//! Control connections: the handshake after TLS, then one reader and one writer until the end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, RecvStream, SendStream, VarInt};
use stork_wire::codec::{DecodeError, encode};
use stork_wire::frame::{Frame, Hello, HelloAck, JoinReply, JoinRequest};
use stork_wire::ids::NodeId;
use stork_wire::limits::{FRAME_LEN_MAX, UNADMITTED_FRAME_LEN_MAX};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::door::Knock;
use super::frame_io::{FrameError, FrameReader, read_raw, write_raw};
use super::frame_rate::FrameRate;
use super::outbox::Outbox;
use super::windows::{Accountant, Window};

/// Time for a peer to say who it is, and to answer (security.md §3: unadmitted 3 s).
pub(super) const HELLO_TIMEOUT: Duration = Duration::from_secs(3);

/// Names one connection within this process.
pub type ConnId = u64;

/// A connection that was admitted by both sides.
#[derive(Debug, Clone)]
pub struct Connected {
    /// Its name.
    pub id: ConnId,
    /// Who is at the other end.
    pub node: NodeId,
    /// Where that is.
    pub addr: SocketAddr,
    /// What waits to be sent.
    pub outbox: Arc<Outbox>,
    /// The connection, to close it.
    pub connection: Connection,
}

/// What the driver says to a host that asks to come in.
#[derive(Debug)]
pub enum Admission {
    /// It is admitted.
    Welcome(Box<HelloAck>),
    /// A join request is answered; the connection ends after that.
    Joined(Box<JoinReply>),
    /// It is not admitted; the text is told to it.
    Refused(String),
}

/// What the network reports to the driver.
#[derive(Debug)]
pub enum NetEvent {
    /// Somebody says who it is and waits for admission.
    Hello {
        /// The connection.
        connected: Connected,
        /// What it says.
        hello: Box<Hello>,
        /// Where the decision goes.
        answer: oneshot::Sender<Admission>,
    },
    /// A host without a certificate shows a token.
    Join {
        /// The key that it showed.
        node: NodeId,
        /// What it says.
        request: Box<JoinRequest>,
        /// Where the decision goes.
        answer: oneshot::Sender<Admission>,
    },
    /// A connection was closed before it was admitted: it did not keep to the protocol.
    TurnedAway {
        /// The key that it showed.
        node: NodeId,
        /// Where it came from.
        addr: SocketAddr,
        /// A stable word for counters.
        code: &'static str,
        /// What it was told.
        why: String,
    },
    /// A host that we dialled answered.
    Answered {
        /// The connection.
        connected: Connected,
        /// What it says.
        ack: Box<HelloAck>,
    },
    /// A host that we dialled gives us a new certificate in place of letting us in: ours has run
    /// out.
    Renewed {
        /// Who.
        node: NodeId,
        /// The certificate.
        reply: Box<JoinReply>,
    },
    /// A host could not be reached, or did not let us in.
    DialFailed {
        /// Who was dialled.
        node: NodeId,
        /// Why.
        why: String,
    },
    /// A look for hosts by name has ended.
    Bootstrapped(super::Round),
    /// A frame of an admitted connection.
    Frame {
        /// The connection.
        conn: ConnId,
        /// Who sent it.
        node: NodeId,
        /// What.
        frame: Frame,
    },
    /// A frame of a type that only a later version knows: read, and not acted on.
    UnknownFrame {
        /// Who sent it.
        node: NodeId,
    },
    /// A connection brings frames faster than it may: the next ones are read after a pause.
    Slowed {
        /// Who sent them.
        node: NodeId,
    },
    /// A connection ended.
    Closed {
        /// The connection.
        conn: ConnId,
        /// Who was at the other end.
        node: NodeId,
        /// Why.
        why: String,
        /// The peer broke the protocol.
        at_fault: bool,
    },
}

/// The code and text with which a connection is closed.
pub(super) fn close(connection: &Connection, why: &str) {
    let text = why.as_bytes();
    connection.close(VarInt::from_u32(1), text.get(..text.len().min(200)).unwrap_or(text));
}

/// Closes a connection that is not admitted, and reports it. A flood of such connections may fill
/// the channel: then the report is lost, and not the driver's time.
pub(super) fn turn_away(
    node: NodeId,
    connection: &Connection,
    events: &mpsc::Sender<NetEvent>,
    (code, why): (&'static str, String),
) {
    close(connection, &why);
    let addr = connection.remote_address();
    events.try_send(NetEvent::TurnedAway { node, addr, code, why }).unwrap_or_default();
}

const fn code_of(e: &FrameError) -> &'static str {
    match e {
        FrameError::Ended => "left",
        FrameError::TooLong { .. } => "frame_too_long",
        FrameError::Decode(_) => "malformed",
    }
}

/// What a connection has that has not said who it is, and who counts what it gets after that.
pub(super) type Unadmitted = (Knock, Arc<Accountant>);

/// An inbound connection from its first stream on.
pub(super) async fn serve(
    id: ConnId,
    node: NodeId,
    connection: Connection,
    unadmitted: Unadmitted,
    events: mpsc::Sender<NetEvent>,
) {
    let first = timeout(HELLO_TIMEOUT, async {
        let (send, mut recv) = connection.accept_bi().await.map_err(|_e| FrameError::Ended)?;
        let bytes = read_raw(&mut recv, UNADMITTED_FRAME_LEN_MAX).await?;
        Ok::<_, FrameError>((send, recv, Frame::from_bytes(&bytes, UNADMITTED_FRAME_LEN_MAX)?))
    });
    let (send, recv, frame) = match first.await {
        Ok(Ok(all)) => all,
        Ok(Err(e)) => {
            return turn_away(node, &connection, &events, (code_of(&e), e.to_string()));
        }
        Err(_late) => {
            let why = ("silent", "no hello within 3 s".to_owned());
            return turn_away(node, &connection, &events, why);
        }
    };
    match frame {
        Frame::Hello(hello) => {
            let stream = (send, recv, hello);
            welcome((id, node), connection, unadmitted, stream, events).await;
        }
        Frame::Join(request) => join(node, &connection, send, request, &events).await,
        _ => {
            let why = ("not_hello", "the first frame must be hello or join".to_owned());
            turn_away(node, &connection, &events, why);
        }
    }
}

async fn welcome(
    (id, node): (ConnId, NodeId),
    connection: Connection,
    (knock, accountant): Unadmitted,
    (mut send, recv, hello): (SendStream, RecvStream, Box<Hello>),
    events: mpsc::Sender<NetEvent>,
) {
    let addr = connection.remote_address();
    let outbox = Arc::new(Outbox::default());
    let connected = Connected { id, node, addr, outbox, connection: connection.clone() };
    let (answer, decision) = oneshot::channel();
    let hello = NetEvent::Hello { connected: connected.clone(), hello, answer };
    if events.send(hello).await.is_err() {
        return close(&connection, "shutting down");
    }
    match decision.await {
        Ok(Admission::Welcome(ack)) => {
            let _window = Window::of_control(&accountant, &connection);
            drop(knock);
            if write_raw(&mut send, &encode(&Frame::HelloAck(ack))).await.is_ok() {
                run(connected, send, recv, events).await;
            } else {
                let why = "it left before it was admitted".to_owned();
                report_closed(&events, id, node, why, false).await;
            }
        }
        Ok(Admission::Refused(why)) => close(&connection, &why),
        // A certificate that has run out: it gets a new one, and nothing else.
        Ok(Admission::Joined(reply)) => say_last(&connection, send, reply).await,
        Err(_) => close(&connection, "shutting down"),
    }
}

/// One answer, after which the other side closes.
async fn say_last(connection: &Connection, mut send: SendStream, reply: Box<JoinReply>) {
    let sent = write_raw(&mut send, &encode(&Frame::Joined(reply))).await;
    if sent.is_ok() && send.finish().is_ok() {
        // The other side closes once it has read the answer; give it time to.
        drop(timeout(HELLO_TIMEOUT, connection.closed()).await);
    }
    close(connection, "that was all");
}

async fn join(
    node: NodeId,
    connection: &Connection,
    send: SendStream,
    request: Box<JoinRequest>,
    events: &mpsc::Sender<NetEvent>,
) {
    let (answer, decision) = oneshot::channel();
    if events.send(NetEvent::Join { node, request, answer }).await.is_err() {
        return close(connection, "shutting down");
    }
    let why = match decision.await {
        Ok(Admission::Joined(reply)) => {
            return say_last(connection, send, reply).await;
        }
        Ok(Admission::Refused(why)) => why,
        Ok(Admission::Welcome(_)) | Err(_) => "shutting down".to_owned(),
    };
    close(connection, &why);
}

/// Our own dial after TLS: says who we are and waits for the answer.
pub(super) async fn introduce(
    id: ConnId,
    node: NodeId,
    connection: Connection,
    hello: Box<Hello>,
    (accountant, events): (Arc<Accountant>, mpsc::Sender<NetEvent>),
) {
    let answered = timeout(HELLO_TIMEOUT, async {
        let (mut send, mut recv) = connection.open_bi().await.map_err(|_e| FrameError::Ended)?;
        write_raw(&mut send, &encode(&Frame::Hello(hello))).await?;
        let bytes = read_raw(&mut recv, FRAME_LEN_MAX).await?;
        Ok::<_, FrameError>((send, recv, Frame::from_bytes(&bytes, FRAME_LEN_MAX)?))
    });
    let why = match answered.await {
        Ok(Ok((send, recv, Frame::HelloAck(ack)))) => {
            let addr = connection.remote_address();
            let outbox = Arc::new(Outbox::default());
            let connected = Connected { id, node, addr, outbox, connection };
            let event = NetEvent::Answered { connected: connected.clone(), ack };
            let _window = Window::of_control(&accountant, &connected.connection);
            if events.send(event).await.is_ok() {
                run(connected, send, recv, events).await;
            }
            return;
        }
        Ok(Ok((_, _, Frame::Joined(reply)))) => {
            drop(events.send(NetEvent::Renewed { node, reply }).await);
            return close(&connection, "thank you");
        }
        Ok(Ok(_)) => "it answered with something else".to_owned(),
        Ok(Err(e)) => connection.close_reason().map_or_else(|| e.to_string(), |r| r.to_string()),
        Err(_late) => "no answer within 3 s".to_owned(),
    };
    close(&connection, &why);
    drop(events.send(NetEvent::DialFailed { node, why }).await);
}

async fn report_closed(
    events: &mpsc::Sender<NetEvent>,
    conn: ConnId,
    node: NodeId,
    why: String,
    at_fault: bool,
) {
    drop(events.send(NetEvent::Closed { conn, node, why, at_fault }).await);
}

/// Reader and writer of an admitted connection, until either ends.
async fn run(
    connected: Connected,
    send: SendStream,
    recv: RecvStream,
    events: mpsc::Sender<NetEvent>,
) {
    let Connected { id, node, outbox, connection, .. } = connected;
    let mut frames = FrameReader::new(recv, FRAME_LEN_MAX);
    let reader = async {
        let mut rate = FrameRate::default();
        loop {
            let frame = match frames.next().await {
                Ok(bytes) => Frame::from_bytes(bytes, FRAME_LEN_MAX).map_err(FrameError::from),
                Err(e) => Err(e),
            };
            let event = match frame {
                Ok(frame) => NetEvent::Frame { conn: id, node, frame },
                Err(FrameError::Decode(DecodeError::UnknownType)) => {
                    NetEvent::UnknownFrame { node }
                }
                Err(e) => return e,
            };
            if events.send(event).await.is_err() {
                return FrameError::Ended;
            }
            if let Some(until) = rate.take(Instant::now()) {
                // The driver may be gone; then the next frame ends this task.
                drop(events.send(NetEvent::Slowed { node }).await);
                sleep_until(until).await;
            }
        }
    };
    let ended = tokio::select! {
        e = reader => e,
        _failed = outbox.drain(send) => FrameError::Ended,
    };
    let at_fault = !matches!(ended, FrameError::Ended);
    let why = match connection.close_reason() {
        Some(reason) if !at_fault => reason.to_string(),
        _ => ended.to_string(),
    };
    close(&connection, &why);
    report_closed(&events, id, node, why, at_fault).await;
}
