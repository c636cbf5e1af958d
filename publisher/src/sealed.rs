//! Releases for private groups: sealed with the key that the group's document names, which lies
//! beside the charter.

use stork_wire::feed::{Kind, Release};
use stork_wire::ids::{GroupId, ReleaseHash};
use stork_wire::seal::Sealed;

use crate::charter::sealing_key;
use crate::feed::{Author, FeedError};

impl Author<'_> {
    /// A release as it is announced: sealed, where its group is private.
    pub(crate) fn announced(&self, release: Release) -> Result<(Kind, ReleaseHash), FeedError> {
        let groups = release.groups.iter().filter_map(|g| self.charter.groups.get(g));
        let private = groups.filter_map(|g| Some((g, g.private?))).next();
        let Some((group, id)) = private else {
            let hash = release.hash();
            return Ok((Kind::Release(Box::new(release)), hash));
        };
        if release.groups.len() != 1 {
            return Err(FeedError::Mixed(group.name.to_string()));
        }
        let key = sealing_key(&self.charter.keys, id, group.name.as_str())?;
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).map_err(|e| FeedError::Random(e.to_string()))?;
        let sealed = Sealed::seal(&release, self.publisher, key, salt)?;
        let hash = sealed.hash();
        Ok((Kind::Sealed(Box::new(sealed)), hash))
    }

    /// Is every group one for which this can be announced? Asked before anything is packed.
    pub(crate) fn may_seal(&self, groups: &[GroupId]) -> Result<(), FeedError> {
        for group in groups.iter().filter_map(|g| self.charter.groups.get(g)) {
            let Some(id) = group.private else { continue };
            if groups.len() != 1 {
                return Err(FeedError::Mixed(group.name.to_string()));
            }
            sealing_key(&self.charter.keys, id, group.name.as_str())?;
        }
        Ok(())
    }
}
