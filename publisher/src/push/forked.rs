//! What lies behind a fork of the own feed, as nodes have it: each its own branch, and the two
//! entries with which the branches begin. No head commits to any of it; it is asked for only to be
//! recalled.

use stork_wire::feed::Entry;
use stork_wire::frame::{PushReply, PushRequest};
use stork_wire::text::PackageName;

use super::PushError;
use super::client::Body;
use super::session::Peer;
use crate::feed::{Author, Published, Standing};

impl Peer {
    /// The releases of a package that this node has behind a fork, checked.
    pub(super) async fn forked(
        &self,
        author: Author<'_>,
        standing: &Standing,
        package: &PackageName,
    ) -> Result<Vec<Published>, PushError> {
        let request = PushRequest::Forked { package: package.clone() };
        let shown = match self.client.ask(&request, Body::None).await?.0 {
            PushReply::Releases(shown) => shown,
            other => return Err(self.client.nonsense(format!("{other:?}"))),
        };
        let mut out = Vec::new();
        for envelope in &shown {
            let entry: Entry =
                envelope.claimed().map_err(|_e| self.client.nonsense("entries that are none"))?;
            // As if the head committed to it: who signed it is all that counts here.
            let mut alone = standing.clone();
            alone.live = entry.release_hash().into_iter().collect();
            let release = author.latest(&alone, envelope)?;
            if release.release.package != *package {
                return Err(self.client.nonsense("the release of another package"));
            }
            out.push(release);
        }
        Ok(out)
    }
}
