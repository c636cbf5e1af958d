//! What QUIC does on our connections: windows, how long they live when idle, how often it
//! acknowledges, and how it looks for larger packets.

use std::time::Duration;

use quinn::{AckFrequencyConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use stork_wire::frame::ALPN_CONTROL;

use super::windows;

/// What both sides begin with. It is raised by [`windows`] once it is known who is there; what we
/// send, we have chosen, and it is bounded for the sake of slow readers only.
pub(super) fn transport(uni: u32, bidi: u32, receive: u32, send: u64) -> TransportConfig {
    let mut t = TransportConfig::default();
    t.max_concurrent_uni_streams(VarInt::from_u32(uni))
        .max_concurrent_bidi_streams(VarInt::from_u32(bidi))
        .stream_receive_window(VarInt::from_u32(windows::STREAM))
        .receive_window(VarInt::from_u32(receive))
        .send_window(send)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(20_000))))
        .datagram_receive_buffer_size(None);
    t
}

/// Streams and windows of the dialler's side, by protocol. Along links our own pings keep the
/// control connection alive, every 8 s at the latest: QUIC's come only where those do not.
/// Bulk and push connections may end when idle.
pub(super) fn transport_for(alpn: &[u8]) -> TransportConfig {
    const MIB: u64 = 1024 * 1024;
    if alpn == ALPN_CONTROL {
        let mut t = transport(0, 0, windows::FLOOR, MIB);
        t.keep_alive_interval(Some(Duration::from_secs(9)));
        t.ack_frequency_config(Some(rare_acks()));
        t.mtu_discovery_config(Some(one_probe()));
        t
    } else {
        transport(windows::FIRST_STREAMS, 0, windows::FLOOR, 8 * MIB)
    }
}

/// News are small, and a packet with nothing but an acknowledgement costs as much as one of news.
/// The other end waits for more to acknowledge, or for something to say; what is lost is seen by
/// the gap all the same, and a lost last packet is sent again 25 ms later than otherwise.
pub(super) fn rare_acks() -> AckFrequencyConfig {
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(10))
        .max_ack_delay(Some(Duration::from_millis(50)));
    acks
}

/// One look for a larger packet than the 1 200 bytes that always pass: 1 410, for which a tunnel in
/// an Ethernet of 1 500 has room. A search in four steps ends 2 % higher, and each step costs a
/// packet of that size, on every connection.
pub(super) fn one_probe() -> MtuDiscoveryConfig {
    let mut probes = MtuDiscoveryConfig::default();
    probes.upper_bound(1_410).minimum_change(200);
    probes
}
