//! A group's security team: its veto keys, and the end of what they have denied.
//!
//! Only the group's threshold ends a denial, by the group's next document: so every host that walks
//! the chain agrees, and no key of the team can undo another's word.

use std::path::PathBuf;

use stork_wire::charter::{Lift, UnixSeconds, VetoKey};
use stork_wire::codec::List;
use stork_wire::ids::{LogId, PublicKey};

use super::edit::group_id;
use super::roles::Called;
use super::{Change, Changed, CharterError, read_file};
use crate::keys::read_public;

/// What is changed about a group's veto keys.
#[derive(Debug, Clone)]
pub struct VetoChange {
    /// Public keys to add; one that is there gets the new end.
    pub add: Vec<PathBuf>,
    /// Keys to take away: a file, a fingerprint, a key id, or a public key.
    pub remove: Vec<String>,
    /// From then on keys that are added deny nothing.
    pub not_after: UnixSeconds,
}

/// What is lifted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LiftWhat {
    /// One denial by its log, as `stork-publish deny` and `stork status --json` show it.
    Denial(LogId),
    /// All by one key, also those to come: a file, a fingerprint, a key id, or a public key.
    AllBy(String),
}

/// Changes who may deny content to a group's VMs.
pub fn veto(change: &Change, group: &str, what: &VetoChange) -> Result<Changed, CharterError> {
    let charter = read_file(&change.dir)?;
    let mut doc = change.next_group(&charter, group_id(&charter, group)?)?;
    let before = doc.veto.clone();
    let mut keys = doc.veto.to_vec();
    for name in &what.remove {
        let called = Called::read(name)?;
        if !before.iter().any(|v| called.is(&v.key)) {
            return Err(CharterError::NoSuch(format!("veto key `{name}` in group `{group}`")));
        }
        keys.retain(|v| !called.is(&v.key));
    }
    for file in &what.add {
        let key = read_public(file)?.0;
        keys.retain(|v| v.key != key);
        keys.push(VetoKey { key, not_after: what.not_after });
    }
    keys.sort();
    doc.veto = List::new(keys)?;
    if doc.veto == before { Ok(Changed::nothing()) } else { change.make_group(&charter, doc) }
}

/// Ends denials by the group's next document.
pub fn lift(
    change: &Change,
    group: &str,
    what: &[LiftWhat],
    through: UnixSeconds,
) -> Result<Changed, CharterError> {
    let charter = read_file(&change.dir)?;
    let mut doc = change.next_group(&charter, group_id(&charter, group)?)?;
    let known = super::veto_keys(&charter, group_id(&charter, group)?);
    let one = |what: &LiftWhat| match what {
        LiftWhat::Denial(log) if !log.is_first() => {
            Err(CharterError::NoSuch(format!("denial with the log {}", log.short())))
        }
        LiftWhat::Denial(log) => Ok(Lift::Denial { log: *log, through }),
        LiftWhat::AllBy(name) => {
            let called = Called::read(name)?;
            let key: Option<PublicKey> = known.iter().copied().find(|k| called.is(k));
            let missing = || CharterError::NoSuch(format!("veto key `{name}` in group `{group}`"));
            Ok(Lift::AllBy(key.ok_or_else(missing)?))
        }
    };
    doc.lifts = List::new(what.iter().map(one).collect::<Result<_, _>>()?)?;
    if doc.lifts.is_empty() { Ok(Changed::nothing()) } else { change.make_group(&charter, doc) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::charter::{InitOptions, Life, Outcome, init};
    use crate::keys::{Passphrase, generate, write_key};
    use tempfile::TempDir;

    const NOW: u64 = 1_800_000_000;

    fn founded() -> (TempDir, Change) {
        let dir = TempDir::new().unwrap();
        let options = InitOptions {
            groups: vec!["web".parse().unwrap()],
            ..crate::charter::tests::options(&dir)
        };
        init(&options, NOW).unwrap();
        let change = Change {
            dir: dir.path().join("c"),
            keys: Vec::new(),
            passphrase: Passphrase::None,
            out: None,
            dry_run: false,
            life: Life::days(NOW, 10),
        };
        (dir, change)
    }

    /// A team's key is added, its denial lifted, the key taken away; each by the group's document,
    /// and what is lifted is not said again by the next one.
    #[test]
    fn a_team_and_its_denials() {
        let (dir, change) = founded();
        let file = dir.path().join("veto");
        write_key(&file, &generate().unwrap(), "veto", None).unwrap();
        let public = dir.path().join("veto.pub");
        let add = VetoChange { add: vec![public.clone()], remove: Vec::new(), not_after: NOW + 9 };
        assert_eq!(veto(&change, "web", &add).unwrap().outcome, Outcome::Made);
        assert_eq!(veto(&change, "web", &add).unwrap().outcome, Outcome::AlreadySo);
        let doc = |change: &Change| {
            let charter = read_file(&change.dir).unwrap();
            charter.groups.values().next().unwrap().clone()
        };
        assert_eq!((doc(&change).veto.len(), doc(&change).veto[0].not_after), (1, NOW + 9));
        let soon = crate::charter::expiry(&read_file(&change.dir).unwrap(), NOW).warnings;
        assert!(soon.iter().any(|w| w.starts_with("veto key SHA256:")), "{soon:?}");
        let name = public.to_string_lossy().into_owned();
        let all = [LiftWhat::AllBy(name.clone())];
        assert_eq!(lift(&change, "web", &all, NOW).unwrap().outcome, Outcome::Made);
        assert_eq!(doc(&change).lifts.len(), 1);
        let feed = LiftWhat::Denial(LogId([7; 32]));
        assert!(lift(&change, "web", &[feed], NOW).is_err(), "no denial has such a log");
        let remove = VetoChange { add: Vec::new(), remove: vec![name], not_after: 0 };
        let gone = veto(&change, "web", &remove).unwrap();
        assert_eq!((doc(&change).veto.len(), doc(&change).lifts.len()), (0, 0));
        let words = gone.steps.iter().flat_map(crate::charter::describe).collect::<Vec<_>>();
        assert!(words.iter().any(|w| w.contains("veto key")), "{words:?}");
        // It is gone from the newest document, and what it denied can still be lifted.
        assert_eq!(lift(&change, "web", &all, NOW).unwrap().outcome, Outcome::Made);
        assert!(veto(&change, "web", &remove).is_err());
        assert!(veto(&change, "db", &add).is_err());
    }
}
