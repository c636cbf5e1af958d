//! Permits: an operator lets one VM go back to an older release, for some time.
//!
//! Without one no VM is shown a release that its publisher made before what the VM shows, whoever
//! pins what (attack A4). A permit is no part of any log: it is carried to the one host that it
//! concerns, as text.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::charter::{BODY_VERSION, UnixSeconds};
use crate::codec::{decode, encode};
use crate::ids::{PublisherId, hex, unhex};
use crate::sign::{Body, Envelope};
use crate::text::{Label, PackageName};

/// Seconds that a permit is good for, at the most.
pub const PERMIT_VALID_MAX_S: u64 = 90 * 86_400;
/// Bytes of a signed permit at the most.
const PERMIT_LEN_MAX: usize = 1_024;
const PREFIX: &str = "stork-permit1-";

/// Signed by an operator's key, which the node's own file names: this VM may go back so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DowngradePermit {
    /// [`BODY_VERSION`].
    pub version: u8,
    /// The VM.
    pub vm: Label,
    /// The package.
    pub package: PackageName,
    /// Whose release.
    pub publisher: PublisherId,
    /// The counter of the release that it may go back to.
    pub release: u64,
    /// When it was made.
    pub issued: UnixSeconds,
    /// From then on it permits nothing.
    pub until: UnixSeconds,
}

impl Body for DowngradePermit {
    const CONTEXT: &'static str = "downgrade permit";
    const LEN_MAX: usize = 512;
    fn check(&self) -> Result<(), String> {
        if self.version != BODY_VERSION {
            return Err(format!("version {} of this body is not known here", self.version));
        }
        if self.until <= self.issued {
            return Err("ends before it is issued".into());
        }
        if self.until - self.issued > PERMIT_VALID_MAX_S {
            return Err("a permit lives 90 days at the most".into());
        }
        if self.release == 0 {
            return Err("releases are counted from 1".into());
        }
        Ok(())
    }
}

/// Why a text is no permit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no permit: {0}")]
pub struct PermitTextError(String);

/// A signed permit as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PermitText(pub Envelope);

impl fmt::Display for PermitText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", hex(&encode(&self.0)))
    }
}

impl core::str::FromStr for PermitText {
    type Err = PermitTextError;
    /// The signature is left to the host that the permit is for.
    fn from_str(text: &str) -> Result<Self, PermitTextError> {
        let err = |m: &str| PermitTextError(m.to_owned());
        let body = text.trim().strip_prefix(PREFIX);
        let body = body.ok_or_else(|| err("it must begin with `stork-permit1-`"))?;
        if body.len() > 2 * PERMIT_LEN_MAX {
            return Err(err("it is too long"));
        }
        let bytes = unhex(body).ok_or_else(|| err("it holds odd characters, or was cut"))?;
        let envelope: Envelope = decode(&bytes, PERMIT_LEN_MAX).map_err(|e| err(&e.to_string()))?;
        envelope.claimed::<DowngradePermit>().map_err(|e| err(&e.to_string()))?;
        Ok(Self(envelope))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::FleetId;
    use crate::sign::SecretKey;

    fn permit() -> DowngradePermit {
        DowngradePermit {
            version: 1,
            vm: "web-1".parse().unwrap(),
            package: "nginx".parse().unwrap(),
            publisher: PublisherId([7; 32]),
            release: 300,
            issued: 1_800_000_000,
            until: 1_800_003_600,
        }
    }

    /// The bytes of the body, so that a change of the format is seen.
    #[test]
    fn golden_vectors() {
        let want = format!("01057765622d31056e67696e78{}ac0280a4a7da0690c0a7da06", "07".repeat(32));
        assert_eq!(hex(&encode(&permit())), want);
    }

    /// A permit survives being carried as text; what was cut is none.
    #[test]
    fn permit_text() {
        let key = SecretKey::from_seed(&[3; 32]);
        let text = PermitText(Envelope::sign(&permit(), FleetId([1; 32]), &key).unwrap());
        let shown = text.to_string();
        assert_eq!(shown.parse(), Ok(text));
        assert!(shown[..shown.len() - 2].parse::<PermitText>().is_err());
        assert!("stork-permit1-zz".parse::<PermitText>().is_err());
        assert!("stork1-00".parse::<PermitText>().is_err());
    }

    /// What contradicts itself: no release, a life of nothing or of years.
    #[test]
    fn permits_that_are_refused() {
        let bad = [
            DowngradePermit { version: 2, ..permit() },
            DowngradePermit { release: 0, ..permit() },
            DowngradePermit { until: 1_800_000_000, ..permit() },
            DowngradePermit { until: 1_900_000_000, ..permit() },
        ];
        assert!(permit().check().is_ok());
        assert!(bad.iter().all(|p| p.check().is_err()));
    }
}
