//! A round of bootstrap: the names of the settings are resolved anew and their addresses are
//! dialled, in a task of its own. Whoever answers is admitted by the same rules as every host.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use stork_wire::frame::{ALPN_CONTROL, Hello};
use stork_wire::ids::NodeId;
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::control::{self, HELLO_TIMEOUT, NetEvent};
use super::endpoint::{Net, any_client_config, client_config, shown_key};
use crate::config::{SEEDS_MAX, Seed, read_seeds};

/// Addresses of one name that are tried.
const ADDRS_MAX: usize = 8;
/// Hosts that are enough: they know the others.
const ENOUGH: usize = 3;
/// How long one name may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a round begins: the entries of the settings, and a file with more.
#[derive(Debug, Clone, Default)]
pub struct Seeds {
    /// Of the settings.
    pub named: Vec<Seed>,
    /// Read anew for each round.
    pub file: Option<PathBuf>,
}

/// What came of a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// Hosts that answered.
    pub reached: usize,
    /// What went wrong, by the words of the entry.
    pub errors: Vec<String>,
}

impl Net {
    /// Begins a round; the outcome comes as [`NetEvent::Bootstrapped`], and each host that lets us
    /// in as [`NetEvent::Answered`].
    pub fn bootstrap(self: &Arc<Self>, seeds: Seeds, hello: Box<Hello>) {
        let net = Arc::clone(self);
        tokio::spawn(async move {
            let read = tokio::task::spawn_blocking(move || all_of(seeds)).await;
            let (seeds, errors) = read.unwrap_or_default();
            let greet = |seed: Seed, addr| Arc::clone(&net).greet(seed.node, addr, hello.clone());
            let mut round = round(seeds, resolve, greet).await;
            round.errors.extend(errors);
            drop(net.events.send(NetEvent::Bootstrapped(round)).await);
        });
    }

    /// Dials an address; the connection goes on in a task of its own.
    async fn greet(
        self: Arc<Self>,
        node: Option<NodeId>,
        addr: SocketAddr,
        hello: Box<Hello>,
    ) -> Result<(), String> {
        let config = match node {
            Some(node) => client_config(&self.key, node, ALPN_CONTROL),
            None => any_client_config(&self.key, ALPN_CONTROL),
        };
        let config = config.map_err(|e| e.to_string())?;
        let connecting = self.endpoint.connect_with(config, addr, "stork");
        let connecting = connecting.map_err(|e| e.to_string())?;
        let connection = timeout(HELLO_TIMEOUT, connecting).await;
        let connection = connection.map_err(|_late| "no answer within 3 s".to_owned())?;
        let connection = connection.map_err(|e| e.to_string())?;
        let key = shown_key(&connection).ok_or_else(|| "it shows no key".to_owned())?;
        if key == self.key.public() {
            control::close(&connection, "this is the same host");
            return Err("that is this host itself".to_owned());
        }
        let id = self.next_conn.fetch_add(1, Ordering::Relaxed);
        let shared = (Arc::clone(&self.accountant), self.events.clone());
        tokio::spawn(control::introduce(id, NodeId(key.0), connection, hello, shared));
        Ok(())
    }
}

fn all_of(seeds: Seeds) -> (Vec<Seed>, Vec<String>) {
    let (more, errors) = seeds.file.map(|f| read_seeds(&f)).unwrap_or_default();
    let all = seeds.named.into_iter().chain(more).take(SEEDS_MAX).collect();
    (all, errors)
}

async fn resolve(seed: Seed) -> Result<Vec<SocketAddr>, String> {
    match timeout(RESOLVE_TIMEOUT, lookup_host((seed.host.as_str(), seed.port))).await {
        Ok(Ok(addrs)) => Ok(addrs.collect()),
        Ok(Err(e)) => Err(format!("the name is not resolved: {e}")),
        Err(_late) => Err("the name is not resolved within 5 s".to_owned()),
    }
}

/// Tries the entries in their order until enough hosts have answered, of each one address after
/// the other until one does.
async fn round<R, C>(
    seeds: Vec<Seed>,
    resolve: impl Fn(Seed) -> R,
    greet: impl Fn(Seed, SocketAddr) -> C,
) -> Round
where
    R: Future<Output = Result<Vec<SocketAddr>, String>>,
    C: Future<Output = Result<(), String>>,
{
    let mut out = Round { reached: 0, errors: Vec::new() };
    for seed in seeds {
        if out.reached >= ENOUGH {
            break;
        }
        let mut addrs = match resolve(seed.clone()).await {
            Ok(addrs) => addrs,
            Err(why) => {
                out.errors.push(format!("{}: {why}", seed.text));
                continue;
            }
        };
        addrs.truncate(ADDRS_MAX);
        let mut why = vec!["it has no address".to_owned()];
        for addr in addrs {
            match greet(seed.clone(), addr).await {
                Ok(()) => {
                    out.reached += 1;
                    why.clear();
                    break;
                }
                Err(e) => why.push(format!("{addr}: {e}")),
            }
        }
        if let Some(last) = why.pop() {
            out.errors.push(format!("{}: {last}", seed.text));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn seeds(all: &[&str]) -> Vec<Seed> {
        all.iter().map(|s| s.parse().unwrap()).collect()
    }

    fn addr(n: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, n], 7749))
    }

    /// All addresses of a name are tried, but no more than eight; a name that is not resolved and
    /// one without an answer are named; enough is enough.
    #[tokio::test]
    async fn every_address_is_tried() {
        let tried = Mutex::new(Vec::new());
        let resolver = |seed: Seed| async move {
            match seed.host.as_str() {
                "gone" => Err("no such name".to_owned()),
                "empty" => Ok(Vec::new()),
                "many" => Ok((0..200).map(addr).collect()),
                _ => Ok(vec![addr(200), addr(201)]),
            }
        };
        let greet = |_, to| {
            tried.lock().unwrap().push(to);
            async move { if to == addr(201) { Ok(()) } else { Err("refused".to_owned()) } }
        };
        let all = ["gone:1", "empty:1", "many:1", "a:1", "b:1", "c:1", "d:1"];
        let out = round(seeds(&all), resolver, greet).await;
        assert_eq!(out.reached, ENOUGH);
        let errors = ["gone:1: no such name", "empty:1: it has no address"];
        assert_eq!(out.errors[..2], errors);
        assert_eq!(out.errors[2], "many:1: 192.0.2.7:7749: refused");
        assert_eq!(tried.lock().unwrap().len(), ADDRS_MAX + 2 * ENOUGH);
    }

    /// A name is resolved for each round: where its addresses change, the next round finds them.
    #[tokio::test]
    async fn answers_change() {
        let asked = Mutex::new(0);
        let resolver = |_| {
            *asked.lock().unwrap() += 1;
            let n = *asked.lock().unwrap();
            async move { if n == 1 { Err("not yet".to_owned()) } else { Ok(vec![addr(n)]) } }
        };
        let greet = |_, to| async move {
            if to == addr(3) { Ok(()) } else { Err("no answer within 3 s".to_owned()) }
        };
        let mut reached = Vec::new();
        for _ in 0..3 {
            let out = round(seeds(&["seed.example:7749"]), resolver, greet).await;
            assert_eq!(out.errors.len() + out.reached, 1);
            assert!(out.errors.iter().all(|e| e.starts_with("seed.example:7749: ")));
            reached.push(out.reached);
        }
        assert_eq!(reached, [0, 0, 1]);
    }
}
