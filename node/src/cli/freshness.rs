//! What `stork-node` does for freshness before the daemon runs: its beacon key, and `reset-clock`.

use std::process::ExitCode;

use stork_publisher::keys::{KeyError, Passphrase, read_secret};
use stork_wire::sign::SecretKey;

use super::out::{causes, failure, result};
use crate::config::NodeConfig;
use crate::driver::FLOOR_ROW;
use crate::run;

/// The beacon key of the settings. Nobody is there to be asked for a passphrase.
fn read(config: &NodeConfig) -> Result<Option<SecretKey>, KeyError> {
    let key = config.beacon.as_ref().map(|b| read_secret(&b.key, &Passphrase::None));
    key.transpose()
}

/// The same, with its failure told.
pub(super) fn beacon_key(config: &NodeConfig) -> Result<Option<SecretKey>, ExitCode> {
    read(config).map_err(|e| match e {
        KeyError::NoPassphrase(_) => {
            let help = "the daemon needs one without: `stork-publish key generate --no-passphrase`";
            failure(&e.to_string(), &[], help, e.exit())
        }
        KeyError::Read { .. } => {
            let help = "correct `key` in [beacon] of the settings";
            failure(&e.to_string(), &causes(&e), help, e.exit())
        }
        e => failure(&e.to_string(), &causes(&e), &e.help(), e.exit()),
    })
}

/// Forgets the time floor. Needs the daemon stopped, as the store has one user at a time.
pub(super) fn reset_clock(config: &NodeConfig) -> ExitCode {
    let forgotten = run::open_store(config).and_then(|store| store.remove_state(FLOOR_ROW));
    match forgotten {
        Ok(()) => {
            result("the time floor is forgotten: the system's clock counts at the next start");
            ExitCode::SUCCESS
        }
        Err(e) => failure(&e.to_string(), &causes(&e), e.help(), e.exit_code()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use stork_publisher::keys::{generate, write_key};

    /// The key is loaded like every other: 0600, or the daemon does not start (77).
    #[test]
    fn t111_an_open_beacon_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (file, settings) = (dir.path().join("beacon"), dir.path().join("node.toml"));
        let key = generate().unwrap();
        write_key(&file, &key, "test", None).unwrap();
        let text = format!("[beacon]\nkey = {file:?}\n");
        fs::write(&settings, &text).unwrap();
        let config = NodeConfig::read(&settings, true).unwrap();
        let beacon = config.beacon.as_ref().unwrap();
        assert_eq!((beacon.interval_s, beacon.valid_s), (3_600, 86_400));
        assert_eq!(read(&config).unwrap().unwrap().public(), key.public());
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(read(&config).unwrap_err().exit(), 77);
        fs::remove_file(&file).unwrap();
        assert_eq!(read(&config).unwrap_err().exit(), 5);
        for bad in ["interval_s = 59", "valid_s = 3600", "valid_s = 604801", "intervall = 1"] {
            fs::write(&settings, format!("{text}{bad}\n")).unwrap();
            assert!(NodeConfig::read(&settings, true).is_err(), "{bad}");
        }
    }

    /// The floor goes, and only that; without one it is already so.
    #[test]
    fn the_floor_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let config = NodeConfig { state: dir.path().join("state"), ..NodeConfig::default() };
        let config = NodeConfig { min_free_bytes: 1 << 20, ..config };
        run::open_store(&config).unwrap().put_state(FLOOR_ROW, &[9; 8]).unwrap();
        for _ in 0..2 {
            reset_clock(&config);
            assert_eq!(run::open_store(&config).unwrap().get_state(FLOOR_ROW).unwrap(), None);
        }
    }
}
