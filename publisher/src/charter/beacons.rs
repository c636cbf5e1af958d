//! How old the newest beacon of a feed may be to a group's VMs.

use super::edit::group_id;
use super::{Change, Changed, CharterError, read_file};

/// Changes what a group asks of beacons; `None`: they speak for as long as they say.
pub fn beacons(
    change: &Change,
    group: &str,
    within_s: Option<u32>,
) -> Result<Changed, CharterError> {
    let charter = read_file(&change.dir)?;
    let mut doc = change.next_group(&charter, group_id(&charter, group)?)?;
    if doc.beacon_s == within_s {
        return Ok(Changed::nothing());
    }
    doc.beacon_s = within_s;
    change.make_group(&charter, doc)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::charter::{InitOptions, Life, Outcome, init};
    use tempfile::TempDir;

    /// A rule comes, is kept by later documents, and goes; what it is stands in the steps.
    #[test]
    fn a_rule_for_beacons() {
        let dir = TempDir::new().unwrap();
        let options = InitOptions {
            groups: vec!["web".parse().unwrap()],
            ..crate::charter::tests::options(&dir)
        };
        init(&options, 1_000).unwrap();
        let change = crate::charter::tests::change(options.dir, Life::days(2_000, 10));
        let rule = || read_file(&change.dir).unwrap().groups.into_values().next().unwrap().beacon_s;
        let made = beacons(&change, "web", Some(900)).unwrap();
        let words: Vec<String> = made.steps.iter().flat_map(crate::charter::describe).collect();
        let said = "! beacons speak to its VMs for 900 s at the most";
        assert!(words.iter().any(|w| w.contains(said)), "{words:?}");
        assert_eq!(rule(), Some(900));
        assert_eq!(beacons(&change, "web", Some(900)).unwrap().outcome, Outcome::AlreadySo);
        crate::charter::renew(&change, &[]).unwrap();
        assert_eq!(rule(), Some(900));
        assert!(beacons(&change, "web", Some(179)).is_err(), "no document says that");
        beacons(&change, "web", None).unwrap();
        assert_eq!(rule(), None);
        assert!(beacons(&change, "nope", None).is_err());
    }
}
