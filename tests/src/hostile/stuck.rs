//! A peer that speaks, but does not read: after its first answer nothing is taken from its stream,
//! whose window is small, so that what a host has to say to it piles up at the host.

use std::sync::Arc;
use std::sync::mpsc::channel;

use quinn::{TransportConfig, VarInt};
use stork_node::net::{read_raw, write_raw};
use stork_wire::codec::encode;
use stork_wire::frame::{ALPN_CONTROL, Frame};
use stork_wire::limits::FRAME_LEN_MAX;
use stork_wire::tls;
use tokio::sync::mpsc;

use super::talk::act;
use super::{Dialler, Peer, Talk, place, quic};
use crate::fleet::Host;

/// Bytes that the host may send beyond what was read: its answer to the hello fits.
const WINDOW: u32 = 32 * 1024;

impl Peer {
    /// Is admitted by a host, and reads nothing after that.
    #[must_use]
    pub fn dial_stuck(&self, host: &Host) -> Talk {
        let (node, addr) = place(host);
        let mut transport = TransportConfig::default();
        transport.stream_receive_window(VarInt::from_u32(WINDOW));
        let mut config = quic(tls::client_config(&self.key, node, ALPN_CONTROL).unwrap());
        config.transport_config(Arc::new(transport));
        let hello = encode(&Frame::Hello(Box::new(self.hello())));
        let (connection, send, recv, ack) = self.runtime.block_on(async {
            let connecting = self.endpoint.connect_with(config, addr, "stork").unwrap();
            let connection = connecting.await.unwrap();
            let (mut send, mut recv) = connection.open_bi().await.unwrap();
            write_raw(&mut send, &hello).await.unwrap();
            let ack = read_raw(&mut recv, FRAME_LEN_MAX).await.unwrap();
            (connection, send, recv, Frame::from_bytes(&ack, FRAME_LEN_MAX).unwrap())
        });
        let Frame::HelloAck(ack) = ack else { panic!("no ack: {ack:?}") };
        let (deeds, todo) = mpsc::unbounded_channel();
        let bulk = Dialler { key: Arc::clone(&self.key), endpoint: self.endpoint.clone(), addr };
        self.runtime.spawn(act(send, todo, bulk, node));
        let open = connection.clone();
        self.runtime.spawn(async move {
            open.closed().await;
            // Held until here: a stream that is dropped tells the host to stop.
            drop(recv);
        });
        let handle = self.runtime.handle().clone();
        let (_, inbox) = channel();
        Talk { class: ack.class, connection, deeds, inbox, handle }
    }
}
