//! The base of a delta: the newest release, fetched from the node, or an older package file.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use stork_wire::feed::Release;
use stork_wire::frame::PushRequest;
use stork_wire::ids::ManifestId;
use stork_wire::limits::MANIFEST_LEN_MAX;
use stork_wire::manifest::{Manifest, Pack, Tree, Variant};
use tempfile::TempDir;

use super::client::Client;
use super::error::PushError;
use crate::pack::unpack;
use crate::progress::Progress;
use crate::source::{ReadOptions, SourceError, Spool, read};

/// Which release a delta is made against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BaseChoice {
    /// The newest release that is published.
    Auto,
    /// No delta.
    None,
    /// An older package file, which must be what hosts hold.
    File(PathBuf),
}

/// A base with the bytes of its files.
#[derive(Debug)]
pub(super) struct Old {
    pub(super) tree: Tree,
    pub(super) contents: Spool,
}

/// Fetches the full packs of a release and unpacks them, everything checked against the entry.
pub(super) async fn fetch(
    client: &Client,
    release: &Release,
    progress: &Progress,
) -> Result<Old, PushError> {
    let reference = release.manifest;
    if reference.size > MANIFEST_LEN_MAX {
        return Err(client.nonsense("a manifest beyond 64 MiB"));
    }
    progress.phase("fetching the base", release.full_bytes);
    let request = PushRequest::GetManifest(reference.id);
    let bytes = client.blob(&request, reference.size, progress).await?;
    if ManifestId::of(&bytes) != reference.id {
        return Err(client.nonsense("a manifest with another hash"));
    }
    let manifest = Manifest::from_bytes(&bytes).map_err(|e| client.nonsense(e.to_string()))?;
    if manifest.tree.id() != release.tree {
        return Err(client.nonsense("a manifest of another tree"));
    }
    let dir = TempDir::with_prefix("stork-base-").map_err(PushError::Local)?;
    for pack in &manifest.packing.packs {
        let bytes = client.blob(&PushRequest::GetPack(pack.id), pack.size, progress).await?;
        std::fs::write(dir.path().join(pack.id.to_string()), bytes).map_err(PushError::Local)?;
    }
    let node = client.clone();
    let work = move || {
        let fetch = |p: &Pack| std::fs::read(dir.path().join(p.id.to_string()));
        unpack(&manifest, Variant::Full, None, &fetch)
            .map(|contents| Old { tree: manifest.tree, contents })
            .map_err(|e| node.nonsense(e.to_string()))
    };
    off_thread(work).await?
}

/// Reads an older package file as the base, in the same way as the new one. A `.deb` says its own
/// name; for other kinds the name does not matter to the tree.
pub(super) async fn from_file(path: PathBuf, options: ReadOptions) -> Result<Arc<Old>, PushError> {
    let work = move || {
        let unnamed = ReadOptions { name: None, version: None, arch: None, ..options.clone() };
        match read(&path, &unnamed) {
            Err(SourceError::Missing { .. }) => read(&path, &options),
            other => other,
        }
    };
    let old = off_thread(work).await??;
    Ok(Arc::new(Old { tree: old.tree, contents: old.contents }))
}

/// Runs work that keeps a core or disk busy where it does not hold up connections.
pub(super) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, PushError> {
    let task = tokio::task::spawn_blocking(work);
    task.await.map_err(|e| PushError::Local(io::Error::other(e)))
}
