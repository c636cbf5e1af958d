//! `node.toml`: where the node listens and keeps its state. Every key is optional.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use stork_origin::Address;
use stork_wire::ids::PublicKey;
use stork_wire::limits::BEACON_VALID_MAX_S;

use super::{LimitsConfig, QuotaConfig, SEEDS_MAX, SandboxConfig, ScrubConfig, Seed, hint_for};
use crate::transfer::Schedule;

/// A configuration that cannot be used: which file, what is wrong, what to do.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {message}")]
pub struct ConfigError {
    /// The file.
    pub path: String,
    /// What is wrong; names line and column where the parser knows them.
    pub message: String,
    /// What to do.
    pub help: String,
}

/// The node's settings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeConfig {
    /// Where it takes QUIC connections.
    pub listen: SocketAddr,
    /// Addresses that others should dial; empty: the one it listens on.
    pub advertise: Vec<SocketAddr>,
    /// The folder for everything that must survive.
    pub state: PathBuf,
    /// The folder with one file per VM.
    pub vms: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
    /// Bytes that are always left free on the disk of the state folder.
    pub min_free_bytes: u64,
    /// Bytes of packs kept to serve others beyond what is needed.
    pub seed_bytes: u64,
    /// `text` or `json`.
    pub log: LogFormat,
    /// The beacons that this node makes, if it holds a key for them.
    pub beacon: Option<BeaconConfig>,
    /// Hosts to look for by name when none that is known answers.
    pub bootstrap: Vec<Seed>,
    /// A file with more of them, one a line, read anew each time.
    pub bootstrap_file: Option<PathBuf>,
    /// A port of the loopback with `GET /metrics` and nothing else; none without it.
    pub metrics: Option<SocketAddr>,
    /// Where content is looked for when no host has it: a folder, a bucket or a web server.
    pub origin: Option<Address>,
    /// A file with credentials for it, which its owner alone may read.
    pub origin_credentials: Option<PathBuf>,
    /// Bytes a second that this node takes from it at the most.
    pub origin_bytes_per_s: u64,
    /// Public keys, as files, of operators whose permits to go back this host takes.
    pub operators: Vec<PathBuf>,
    /// What these files hold; read by whoever starts the node.
    #[serde(skip)]
    pub operator_keys: Vec<PublicKey>,
    /// How fast publishers and groups may announce.
    pub limits: LimitsConfig,
    /// How much content publishers and groups may bring here.
    pub quota: QuotaConfig,
    /// How slowly everything in the store is read again.
    pub scrub: ScrubConfig,
    /// What the daemon takes away from itself.
    pub sandbox: SandboxConfig,
    /// How much content may come and go, and when.
    #[serde(deserialize_with = "super::bandwidth::schedule")]
    pub bandwidth: Schedule,
}

/// `[beacon]`: this node says what it knows of the heads of feeds whose publishers name its key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BeaconConfig {
    /// The beacon key: an OpenSSH Ed25519 file without a passphrase, open to its owner alone.
    pub key: PathBuf,
    /// Seconds from one beacon to the next.
    #[serde(default = "hour")]
    pub interval_s: u64,
    /// Seconds that each of them speaks.
    #[serde(default = "day")]
    pub valid_s: u64,
}

/// The shortest interval, in seconds: nodes pass on one beacon of a publisher in half of it.
const INTERVAL_MIN_S: u64 = 60;

const fn hour() -> u64 {
    3_600
}

const fn day() -> u64 {
    86_400
}

impl BeaconConfig {
    /// Is it possible? Feeds that turn stale between two beacons would help nobody.
    fn check(&self) -> Result<(), &'static str> {
        if self.interval_s < INTERVAL_MIN_S {
            Err("[beacon] interval_s must be 60 at least")
        } else if self.valid_s <= self.interval_s || self.valid_s > BEACON_VALID_MAX_S {
            Err("[beacon] valid_s must be more than interval_s, and 604800 (a week) at the most")
        } else {
            Ok(())
        }
    }
}

/// How the daemon writes its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One readable line an event.
    #[default]
    Text,
    /// One JSON object an event.
    Json,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 0], 7749)),
            advertise: Vec::new(),
            state: "/var/lib/stork".into(),
            vms: "/etc/stork/vms.d".into(),
            socket: "/run/stork/api.sock".into(),
            min_free_bytes: 256 * 1024 * 1024,
            seed_bytes: 16 * 1024 * 1024 * 1024,
            log: LogFormat::Text,
            beacon: None,
            bootstrap: Vec::new(),
            bootstrap_file: None,
            metrics: None,
            origin: None,
            origin_credentials: None,
            origin_bytes_per_s: 16 * 1024 * 1024,
            operators: Vec::new(),
            operator_keys: Vec::new(),
            limits: LimitsConfig::default(),
            quota: QuotaConfig::default(),
            scrub: ScrubConfig::default(),
            sandbox: SandboxConfig::default(),
            bandwidth: Schedule::default(),
        }
    }
}

impl NodeConfig {
    /// Reads a file. A file that was not asked for by name may be missing.
    pub fn read(path: &Path, must_exist: bool) -> Result<Self, ConfigError> {
        let shown = path.display().to_string();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !must_exist => {
                return Ok(Self::default());
            }
            Err(e) => {
                return Err(ConfigError {
                    path: shown,
                    message: format!("cannot be read: {e}"),
                    help: "check the path and its permissions".into(),
                });
            }
        };
        let config: Self = toml::from_str(&text).map_err(|e| {
            let message = e.to_string().trim_end().to_owned();
            let help = hint_for(&message);
            ConfigError { path: shown.clone(), message, help }
        })?;
        if config.bootstrap.len() > SEEDS_MAX {
            let message = format!("bootstrap has more than {SEEDS_MAX} entries");
            let help = "one name may have many addresses".to_owned();
            return Err(ConfigError { path: shown, message, help });
        }
        if config.metrics.is_some_and(|addr| !addr.ip().is_loopback()) {
            return Err(ConfigError {
                path: shown,
                message: "metrics must be an address of the loopback: nobody is asked who scrapes"
                    .to_owned(),
                help: "use 127.0.0.1 or ::1, and a proxy for others".to_owned(),
            });
        }
        if let Err((message, help)) = config.check_origin() {
            let (message, help) = (message.to_owned(), help.to_owned());
            return Err(ConfigError { path: shown, message, help });
        }
        let checks = [config.beacon.as_ref().map(BeaconConfig::check), Some(config.scrub.check())];
        if let Some(Err(why)) = checks.into_iter().flatten().find(Result::is_err) {
            let help = "leave the key out for its default, or correct it".to_owned();
            return Err(ConfigError { path: shown, message: why.to_owned(), help });
        }
        Ok(config)
    }

    /// Do the keys about the origin belong together? The first is what is wrong, the second what
    /// to do.
    fn check_origin(&self) -> Result<(), (&'static str, &'static str)> {
        if self.origin.is_none() && self.origin_credentials.is_some() {
            return Err((
                "origin_credentials stands without an origin",
                "add `origin = \"s3://BUCKET/PREFIX\"`, or take the credentials out",
            ));
        }
        if self.origin_bytes_per_s == 0 {
            return Err((
                "origin_bytes_per_s is 0: nothing would ever come from the origin",
                "leave the key out for its default, or leave `origin` out",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<NodeConfig, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        NodeConfig::read(file.path(), true)
    }

    /// An origin is taken as it is written; what cannot be one is refused with what to write.
    #[test]
    fn origins() {
        let good = read("origin = \"s3://fleet/stork\"\norigin_credentials = \"/x\"\n").unwrap();
        assert_eq!(good.origin.unwrap().to_string(), "s3://fleet/stork");
        assert_eq!(read("").unwrap().origin, None);
        for (text, message, help) in [
            ("origin = \"ftp://x/y\"", "`ftp://x/y` is no origin", "s3://BUCKET/PREFIX"),
            ("origin = \"/srv/x\"", "the scheme is missing", "file:/DIR"),
            ("origin_credentials = \"/x\"", "without an origin", "add `origin"),
            ("origin = \"file:/x\"\norigin_bytes_per_s = 0", "is 0", "default"),
        ] {
            let e = read(text).unwrap_err();
            assert!(e.message.contains(message), "{}", e.message);
            assert!(e.help.contains(help), "{}", e.help);
        }
    }
}
