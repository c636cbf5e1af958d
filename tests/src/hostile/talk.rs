//! An admitted connection: what is sent along it, what comes, and how it ends.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use quinn::{Connection, RecvStream, SendStream};
use stork_node::net::{read_raw, write_raw};
use stork_wire::frame::{Frame, LinkClass, OverlayFrame};
use stork_wire::ids::NodeId;
use stork_wire::item::Item;
use stork_wire::limits::FRAME_LEN_MAX;
use tokio::sync::mpsc;

use super::{Deed, Dialler, Manners, bulk};
use crate::wait::PATIENCE_S;

/// The writing half: does what it is told, one after the other.
pub(super) async fn act(
    mut send: SendStream,
    mut todo: mpsc::UnboundedReceiver<Deed>,
    dialler: Dialler,
    to: NodeId,
) {
    let mut bulk: Option<Connection> = None;
    while let Some(deed) = todo.recv().await {
        match deed {
            Deed::Send(frame) => drop(write_raw(&mut send, &frame.to_bytes()).await),
            Deed::Raw(bytes) => drop(send.write_all(&bytes).await),
            Deed::Bulk(bytes) => {
                let Some(mut stream) = bulk::stream(&mut bulk, &dialler, to).await else {
                    continue;
                };
                // The host may stop reading at any time; that is what the test is about.
                drop(stream.write_all(&bytes).await);
                drop(stream.finish());
            }
            Deed::Badly(bytes, pace) => {
                let Some(stream) = bulk::stream(&mut bulk, &dialler, to).await else { continue };
                tokio::spawn(bulk::send(stream, bytes, pace));
            }
        }
    }
}

/// The reading half: keeps the link alive, and hands on everything.
pub(super) async fn listen(
    mut recv: RecvStream,
    deeds: mpsc::UnboundedSender<Deed>,
    frames: std::sync::mpsc::Sender<Frame>,
    mut manners: Manners,
) {
    while let Ok(bytes) = read_raw(&mut recv, FRAME_LEN_MAX).await {
        let Ok(frame) = Frame::from_bytes(&bytes, FRAME_LEN_MAX) else { return };
        if let Frame::Overlay(OverlayFrame::Ping { nonce, fingerprint, class, .. }) = frame {
            // The same fingerprint: so nothing differs, and nobody begins to compare heads.
            let pong = OverlayFrame::Pong { nonce, fingerprint, class };
            drop(deeds.send(Deed::Send(Frame::Overlay(pong))));
        }
        for deed in manners(&frame) {
            drop(deeds.send(deed));
        }
        drop(frames.send(frame));
    }
}

/// An admitted connection; ended when it is dropped.
#[derive(Debug)]
pub struct Talk {
    /// The link that was granted.
    pub class: LinkClass,
    pub(super) connection: Connection,
    pub(super) deeds: mpsc::UnboundedSender<Deed>,
    pub(super) inbox: Receiver<Frame>,
    pub(super) handle: tokio::runtime::Handle,
}

impl Talk {
    /// Does something.
    pub fn act(&self, deed: Deed) {
        self.deeds.send(deed).unwrap();
    }

    /// Sends a frame.
    pub fn send(&self, frame: Frame) {
        self.act(Deed::Send(frame));
    }

    /// Sends an item along the tree.
    pub fn push(&self, item: &Item) {
        let item = Box::new(item.clone());
        self.send(Frame::Overlay(OverlayFrame::Push { hop: 0, age_ms: 0, entry: 0, item }));
    }

    /// Waits for a frame.
    pub fn wait<T>(&self, what: &str, mut look: impl FnMut(&Frame) -> Option<T>) -> T {
        let until = Instant::now() + Duration::from_secs(PATIENCE_S);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.inbox.recv_timeout(left) {
                Ok(frame) => {
                    if let Some(found) = look(&frame) {
                        return found;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("waited in vain for: {what}"),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("the connection ended before: {what}: {:?}", self.end())
                }
            }
        }
    }

    /// How the connection ended, if it did.
    #[must_use]
    pub fn end(&self) -> Option<String> {
        self.connection.close_reason().map(|r| r.to_string())
    }

    /// Waits for the end of the connection, and how it was said.
    #[must_use]
    pub fn await_end(&self) -> String {
        self.handle.block_on(async {
            let limit = Duration::from_secs(PATIENCE_S);
            tokio::time::timeout(limit, self.connection.closed()).await.unwrap().to_string()
        })
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.connection.close(0u32.into(), b"good bye");
    }
}
