//! The key that signs what is pushed: a release key, or one that a release key has delegated.

use super::PushError;
use crate::charter::Profile;
use crate::delegate::{self, DelegateError, Via};
use crate::feed::FeedError;
use crate::keys::{Passphrase, Signer};

fn spec<'a>(key: Option<&'a String>, profile: &'a Profile) -> Result<&'a String, PushError> {
    let spec = key.or(profile.release_key.as_ref());
    spec.ok_or_else(|| PushError::Usage("no release key: add --key FILE".into()))
}

/// The release key that is named, or the profile's.
pub(crate) fn release_signer(
    key: Option<&String>,
    profile: &Profile,
    passphrase: &Passphrase,
) -> Result<Signer, PushError> {
    let spec = spec(key, profile)?;
    if delegate::beside(spec).is_some() {
        return Err(FeedError::from(DelegateError::OnlyReleases(spec.clone())).into());
    }
    Ok(Signer::open(spec, passphrase)?)
}

/// The same for a push, which a delegated key may do too: it has its certificate beside it.
pub(super) fn of_push(
    key: Option<&String>,
    profile: &Profile,
    passphrase: &Passphrase,
) -> Result<(Signer, Option<Via>), PushError> {
    let spec = spec(key, profile)?;
    let via = delegate::beside(spec).map(|path| delegate::read(&path)).transpose();
    let via = via.map_err(FeedError::from)?;
    Ok((Signer::open(spec, passphrase)?, via))
}
