//! Under which addresses others reach this node: those of the settings, or the one that it listens
//! on, or, where it listens on all, those from which its routes go out.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use super::Driver;

/// What the routes are asked for: a socket of each family, and an address of the documentation
/// (RFC 5737, RFC 3849), which stands for anything that only the default route leads to.
const ASKS: [(&str, &str); 2] = [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")];

impl Driver {
    pub(super) fn own_addrs(&self) -> Vec<SocketAddr> {
        if !self.config.advertise.is_empty() {
            return self.config.advertise.clone();
        }
        let Ok(listen) = self.net.local_addr() else { return Vec::new() };
        if listen.ip().is_unspecified() {
            return addrs_of(listen, ASKS.iter().filter_map(|(from, to)| routed(from, to)));
        }
        vec![listen]
    }
}

/// The address from which this host would reach another. Nothing is sent: connecting a UDP socket
/// only asks the routing table.
fn routed(from: &str, to: &str) -> Option<IpAddr> {
    let socket = UdpSocket::bind(from).ok()?;
    socket.connect(to).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Those of a host's addresses that others can dial where it listens on all of a family: `0.0.0.0`
/// takes no IPv6, `[::]` takes both. An address of the loopback or of one link means another host
/// for whoever dials it, or none.
fn addrs_of(listen: SocketAddr, own: impl Iterator<Item = IpAddr>) -> Vec<SocketAddr> {
    let fits = |ip: &IpAddr| match ip {
        IpAddr::V4(v4) => !v4.is_link_local(),
        IpAddr::V6(v6) => listen.is_ipv6() && !v6.is_unicast_link_local(),
    };
    let fits = own.filter(fits).filter(|ip| !ip.is_unspecified() && !ip.is_loopback());
    fits.map(|ip| SocketAddr::new(ip, listen.port())).collect()
}

/// May another host's record send this one there? Not to nobody, to everybody, or to no port: a
/// record must not make a fleet shout at a network (attack G4).
pub(super) fn dialable(addr: &SocketAddr) -> bool {
    let everybody = match addr.ip() {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.octets().first() == Some(&0),
        IpAddr::V6(_) => false,
    };
    addr.port() != 0 && !addr.ip().is_unspecified() && !addr.ip().is_multicast() && !everybody
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T061: addresses in a record that name no single host are ignored.
    #[test]
    fn t061_addresses_that_name_no_host() {
        let dialable = |text: &str| dialable(&text.parse().unwrap());
        for good in ["10.0.0.1:7749", "127.0.0.1:1", "[::1]:7749", "[2001:db8::7]:7749"] {
            assert!(dialable(good), "{good}");
        }
        let bad = ["0.0.0.0:7749", "0.1.2.3:1", "255.255.255.255:9", "224.0.0.1:53", "10.0.0.1:0"];
        for bad in bad.into_iter().chain(["[::]:7749", "[ff02::1]:5353"]) {
            assert!(!dialable(bad), "{bad}");
        }
    }

    fn told(listen: &str, own: &[&str]) -> Vec<String> {
        let own = own.iter().map(|ip| ip.parse().unwrap());
        addrs_of(listen.parse().unwrap(), own).iter().map(SocketAddr::to_string).collect()
    }

    /// What others can dial is told, with the port; what means nothing elsewhere is not.
    #[test]
    fn only_what_others_can_dial_is_told() {
        let own = ["10.1.2.3", "2001:db8::7"];
        assert_eq!(told("[::]:7749", &own), ["10.1.2.3:7749", "[2001:db8::7]:7749"]);
        assert_eq!(told("0.0.0.0:7749", &own), ["10.1.2.3:7749"]);
        let useless = ["0.0.0.0", "::", "127.0.0.1", "::1", "169.254.7.7", "fe80::7"];
        assert_eq!(told("[::]:7749", &useless), [""; 0]);
    }
}
