//! Memory and time that strangers and hostile insiders can take at the door.

use std::net::{SocketAddr, UdpSocket};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use stork_node::net::write_raw;
use stork_tests::fleet::{Fleet, Host, Namespace, VmFile};
use stork_tests::forge;
use stork_tests::hostile::{Peer, hold_all, place, runtime};
use stork_tests::wait::wait_until;
use stork_wire::frame::{ALPN_BULK, ALPN_CONTROL, ALPN_PUSH, Hello};
use stork_wire::sign::SecretKey;

use super::{first_datagram, local};

/// Kilobytes that hostile connections may make a host hold (acceptance/security.md §3).
const HELD_KIB_MAX: u64 = 32 * 1024;

fn rss_kib(host: &Host) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn net(host: &Host, name: &str) -> u64 {
    host.tell(&["status"])["net"][name].as_u64().unwrap()
}

/// A host that was admitted, as far as its certificate goes.
pub(super) fn insider(fleet: &Fleet, seed: u8) -> (SecretKey, Hello) {
    let key = || SecretKey::from_seed(&[seed; 32]);
    let hint = forge::host(&fleet.charter, &key());
    let hello = Peer::forged(key(), hint, forge::fleet_of(&fleet.charter)).hello();
    (key(), hello)
}

/// Datagrams a second of the flood: what a build without optimisation takes beside the tests of
/// others. More is lost in the kernel, where the host does not see it.
const FLOOD_PER_S: u64 = 5_000;

/// T073: the first datagram of a handshake from a thousand forged addresses, thousands a second.
/// Who has a connection keeps it, and news go on; nobody who was asked to prove its address costs
/// memory, and nobody is refused for it.
#[test]
fn t073_a_flood_of_forged_addresses() {
    let namespace = match Namespace::with_network() {
        Ok(namespace) => namespace,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    namespace.ip(&["addr", "add", "10.77.0.1/16", "dev", "lo"]).unwrap();
    let mut fleet = Fleet::inside(namespace, &["web"], 2);
    let port = fleet.hosts[0].port();
    fleet.hosts[0].configure(&format!("advertise = [\"127.0.0.1:{port}\"]\n"));
    fleet.hosts[0].listen_on("0.0.0.0").restart();
    let victim = &fleet.hosts[0];
    victim.write_vm("vm", &VmFile::usual(&["web"], &victim.target("vm")));
    let links = || victim.tell(&["status"])["links"].as_u64().unwrap();
    wait_until("the link", || links() == 1);
    let (initial, before) = (first_datagram(victim), rss_kib(victim));
    let stop = AtomicBool::new(false);
    let peak = std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            fleet.namespace().unwrap().enter_network().unwrap();
            let from = |n: u16| {
                let [high, low] = n.to_be_bytes();
                SocketAddr::from(([10, 77, high + 1, low], 0))
            };
            let sockets: Vec<_> = (0..1_000).map(|n| UdpSocket::bind(from(n)).unwrap()).collect();
            let (to, begun) = (SocketAddr::from(([10, 77, 0, 1], port)), Instant::now());
            let mut sent = 0u64;
            for socket in sockets.iter().cycle() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                sent += u64::from(socket.send_to(&initial, to).is_ok());
                let due = Duration::from_micros(1_000_000 * sent / FLOOD_PER_S);
                std::thread::sleep(due.saturating_sub(begun.elapsed()));
            }
            (sent, begun.elapsed())
        });
        let package = fleet.package("app", "1", &[("app", b"1")]);
        // To the other host, which passes it on along the link that there is.
        let command = fleet.push_command(1, &package, &["web"]);
        let mut inside = fleet.namespace().unwrap().command(command.get_program());
        let push = inside.args(command.get_args()).stdout(Stdio::null()).spawn();
        let mut peak = 0;
        wait_until("news to come through the flood", || {
            peak = peak.max(rss_kib(victim));
            victim.vm_shows("vm").len() == 1 && net(victim, "retried") > 10_000
        });
        let alive = links();
        stop.store(true, Ordering::Relaxed);
        let (sent, took) = flood.join().unwrap();
        let pushed = push.unwrap().wait().unwrap();
        assert!(pushed.success() && alive == 1, "{pushed}, {alive} links");
        println!("{sent} datagrams in {took:?}, {} answered", net(victim, "retried"));
        peak
    });
    println!("{before} KiB before, {peak} KiB at the most");
    assert!(peak < before + HELD_KIB_MAX, "{before} KiB before, {peak} KiB at the most");
    assert_eq!(net(victim, "dropped"), 0, "nobody was refused for the flood");
}

/// T079: a hundred connections, most of them of admitted hosts and the others of strangers, send
/// pieces with gaps between them, as much as they may: what a host holds for them is bounded.
#[test]
fn t079_gaps_take_no_more_than_the_windows() {
    let fleet = Fleet::new(&["web"], 1);
    let host = &fleet.hosts[0];
    let at = place(host);
    let before = rss_kib(host);
    let runtime = runtime();
    let _entered = runtime.enter();
    let endpoint = quinn::Endpoint::client(local()).unwrap();
    let all = hold_all(&endpoint, at, &fleet.charter, 100);
    let (insiders, strangers) = runtime.block_on(all);
    assert_eq!((insiders.len(), strangers.len()), (64, 36));
    let (mut peak, begun) = (0, Instant::now());
    wait_until("the gaps to be sent", || {
        peak = peak.max(rss_kib(host));
        begun.elapsed() > Duration::from_secs(4)
    });
    let promised = net(host, "promised_bytes");
    let here = insiders.iter().filter(|c| c.close_reason().is_none()).count();
    println!("{before} KiB before, {peak} KiB at the most, {promised} promised, {here} here");
    assert!(peak < before + HELD_KIB_MAX, "{before} KiB before, {peak} KiB at the most");
    assert!(promised < 32 << 20, "{promised}");
    for end in insiders.iter().filter_map(quinn::Connection::close_reason) {
        println!("{end}");
    }
    for stranger in strangers {
        let why = stranger.close_reason().expect("strangers are shut out after 3 s").to_string();
        // Reset: the host has forgotten it already.
        let known = ["hello", "reset by peer"].iter().any(|w| why.contains(w));
        assert!(known, "{why}");
    }
    endpoint.close(0u32.into(), b"");
    wait_until("what was promised to be free", || net(host, "promised_bytes") < 1 << 20);
}

/// T080: a stream with one byte, and nothing after it. Strangers are shut out after three seconds,
/// those who say to be publishers after ten; streams of an admitted host that brought no header are
/// given up after five, and a fifth connection of one key is one too many.
#[test]
fn t080_streams_that_never_end() {
    let fleet = Fleet::new(&["web"], 1);
    let host = &fleet.hosts[0];
    let (node, addr) = place(host);
    let runtime = runtime();
    let (key, hello) = insider(&fleet, 71);
    runtime.block_on(async {
        let endpoint = quinn::Endpoint::client(local()).unwrap();
        let dial = async |key: &SecretKey, alpn: &[u8]| {
            let tls = stork_wire::tls::client_config(key, node, alpn).unwrap();
            let config = super::quic(tls, quinn::TransportConfig::default());
            endpoint.connect_with(config, addr, "stork").unwrap().await.unwrap()
        };
        for (seed, alpn, limit) in [(72, ALPN_CONTROL, 6), (73, ALPN_PUSH, 15)] {
            let connection = dial(&SecretKey::from_seed(&[seed; 32]), alpn).await;
            let (mut send, _recv) = connection.open_bi().await.unwrap();
            send.write_all(&[1]).await.unwrap();
            let second = tokio::time::timeout(Duration::from_millis(200), connection.open_bi());
            assert!(second.await.is_err(), "one stream before the hello");
            let end = tokio::time::timeout(Duration::from_secs(limit), connection.closed()).await;
            println!("{}", end.expect("it is shut out"));
        }
        let control = dial(&key, ALPN_CONTROL).await;
        let (mut send, mut recv) = control.open_bi().await.unwrap();
        let frame = stork_wire::frame::Frame::Hello(Box::new(hello));
        write_raw(&mut send, &stork_wire::codec::encode(&frame)).await.unwrap();
        stork_node::net::read_raw(&mut recv, 1 << 20).await.unwrap();
        let mut all = Vec::new();
        for _ in 0..3 {
            let bulk = dial(&key, ALPN_BULK).await;
            for _ in 0..2 {
                let mut stream = bulk.open_uni().await.unwrap();
                stream.write_all(&[1]).await.unwrap();
                all.push(stream);
            }
        }
        let fifth = dial(&key, ALPN_BULK).await.closed().await.to_string();
        assert!(fifth.contains("too many connections"), "{fifth}");
        let status = || host.tell(&["status"])["bytes"]["unexpected_streams"].as_u64().unwrap();
        wait_until("the streams to be given up", || status() >= 6);
        drop(all);
        assert!(control.close_reason().is_none(), "the host itself stays");
    });
}
