//! Permits to go back: which are good here, and what they permit.
//!
//! A VM is shown no release that its publisher made before the one that it shows (attack A4, rows
//! T017 and T019). An operator whose key the node's own file names may permit one such step, for
//! one VM and for some time.

use stork_wire::charter::UnixSeconds;
use stork_wire::ids::{FleetId, PublicKey, PublisherId};
use stork_wire::limits::CLOCK_SKEW_S;
use stork_wire::permit::DowngradePermit;
use stork_wire::sign::{Envelope, VerifyError};
use stork_wire::text::{Label, PackageName};

/// Permits that a host keeps.
pub const PERMITS_MAX: usize = 256;

/// Why a permit is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PermitError {
    /// The node's file names no operator.
    #[error("this host names no operator whose permits it takes")]
    NoOperator,
    /// It is not signed by one of them, or for another fleet.
    #[error("no operator of this host has signed it for this fleet: {0}")]
    Signature(VerifyError),
    /// It is worth nothing any more.
    #[error("it ran out {0} s ago")]
    Expired(u64),
    /// It was made in the future.
    #[error("it was made {0} s in the future")]
    FutureDated(u64),
    /// This host has no such VM.
    #[error("there is no VM `{0}` on this host")]
    OtherVm(Label),
    /// There are too many already.
    #[error("this host keeps {PERMITS_MAX} permits and no more")]
    TooMany,
}

/// The permits of a host that are good.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permits(Vec<DowngradePermit>);

/// Checks a permit for this host.
fn check(
    envelope: &Envelope,
    fleet: FleetId,
    operators: &[PublicKey],
    now: UnixSeconds,
) -> Result<DowngradePermit, PermitError> {
    if operators.is_empty() {
        return Err(PermitError::NoOperator);
    }
    let verified = envelope.verify::<DowngradePermit>(fleet, operators, 1);
    let permit = verified.map_err(PermitError::Signature)?.into_body();
    if permit.until <= now {
        return Err(PermitError::Expired(now - permit.until));
    }
    match permit.issued.saturating_sub(now) {
        ahead if ahead > CLOCK_SKEW_S => Err(PermitError::FutureDated(ahead)),
        _ => Ok(permit),
    }
}

impl Permits {
    /// None at all.
    #[must_use]
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// Takes a permit, if it is good here.
    pub fn add(
        &mut self,
        envelope: &Envelope,
        fleet: FleetId,
        operators: &[PublicKey],
        now: UnixSeconds,
    ) -> Result<DowngradePermit, PermitError> {
        let permit = check(envelope, fleet, operators, now)?;
        self.0.retain(|p| p.until > now && *p != permit);
        if self.0.len() >= PERMITS_MAX {
            return Err(PermitError::TooMany);
        }
        self.0.push(permit.clone());
        Ok(permit)
    }

    /// All that are kept, those that ran out included.
    #[must_use]
    pub fn all(&self) -> &[DowngradePermit] {
        &self.0
    }

    /// Until when a VM may go back to this release; `None`: it may not.
    #[must_use]
    pub fn until(
        &self,
        vm: &Label,
        package: &PackageName,
        (publisher, release): (PublisherId, u64),
        now: UnixSeconds,
    ) -> Option<UnixSeconds> {
        let fits = |p: &&DowngradePermit| {
            p.vm == *vm
                && p.package == *package
                && p.publisher == publisher
                && p.release == release
                && p.until > now
        };
        self.0.iter().filter(fits).map(|p| p.until).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stork_wire::sign::SecretKey;

    const NOW: u64 = 1_800_000_000;
    const FLEET: FleetId = FleetId([1; 32]);

    fn permit() -> DowngradePermit {
        DowngradePermit {
            version: 1,
            vm: "web-1".parse().unwrap(),
            package: "hello".parse().unwrap(),
            publisher: PublisherId([7; 32]),
            release: 3,
            issued: NOW,
            until: NOW + 3_600,
        }
    }

    /// T019: a permit is good for its VM, package, publisher and release, until its time has come,
    /// and where an operator of this host has signed it for this fleet.
    #[test]
    fn t019_what_a_permit_permits() {
        let (key, other) = (SecretKey::from_seed(&[1; 32]), SecretKey::from_seed(&[2; 32]));
        let sign = |p: &DowngradePermit, k| Envelope::sign(p, FLEET, k).unwrap();
        let operators = [key.public()];
        let mut all = Permits::default();
        all.add(&sign(&permit(), &key), FLEET, &operators, NOW).unwrap();
        all.add(&sign(&permit(), &key), FLEET, &operators, NOW).unwrap();
        assert_eq!(all.all().len(), 1, "twice the same is once");
        let asked = |vm: &str, package: &str, by: u8, release: u64, now: u64| {
            let whose = (PublisherId([by; 32]), release);
            all.until(&vm.parse().unwrap(), &package.parse().unwrap(), whose, now).is_some()
        };
        assert!(asked("web-1", "hello", 7, 3, NOW + 3_599));
        assert!(!asked("web-1", "hello", 7, 3, NOW + 3_600), "expired");
        assert!(!asked("web-2", "hello", 7, 3, NOW), "other VM");
        assert!(!asked("web-1", "hello", 7, 2, NOW), "other release");
        assert!(!asked("web-1", "other", 7, 3, NOW), "other package");
        assert!(!asked("web-1", "hello", 8, 3, NOW), "other publisher");

        let refused = |e: &Envelope, operators: &[PublicKey], now| {
            check(e, FLEET, operators, now).unwrap_err()
        };
        let good = sign(&permit(), &key);
        assert_eq!(refused(&good, &[], NOW), PermitError::NoOperator);
        let by_other = refused(&sign(&permit(), &other), &operators, NOW);
        assert!(matches!(by_other, PermitError::Signature(_)), "{by_other}");
        let elsewhere = Envelope::sign(&permit(), FleetId([2; 32]), &key).unwrap();
        let elsewhere = refused(&elsewhere, &operators, NOW);
        assert!(matches!(elsewhere, PermitError::Signature(_)), "{elsewhere}");
        assert_eq!(refused(&good, &operators, NOW + 3_605), PermitError::Expired(5));
        assert_eq!(refused(&good, &operators, NOW - 301), PermitError::FutureDated(301));
    }
}
