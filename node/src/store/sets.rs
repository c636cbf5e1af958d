//! Package sets: built once per host, shared by all VMs that show them, never changed.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use stork_wire::codec::encode;
use stork_wire::ids::{ManifestId, TreeId};
use stork_wire::manifest::Tree;

use rustix::fs::RenameFlags;

use super::db::{self, SETS};
use super::forms::Material;
use super::fresh::Kind;
use super::merge::{Merged, SetError, SetId, SetMember, SetSpec, merge, set_id};
use super::write::{self, Fault};
use super::{SetForm, Store, StoreError, lock};
use crate::failpoint;

/// Names of folders that are being built or removed begin so.
const BUILD: &str = ".build-";

/// What a set was built from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SetRow {
    pub(super) members: Vec<(String, ManifestId, TreeId)>,
    /// The tag of its form. Sets of earlier versions have the name of their backend here.
    pub(super) tag: String,
    pub(super) suid: bool,
    pub(super) devices: bool,
}

/// A package set that is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetInfo {
    /// Its id.
    pub id: SetId,
    /// Where it is: a file or a folder, as its form has it.
    pub path: PathBuf,
    /// The releases that it was built from first: label, manifest, tree. Another choice of
    /// releases may give the same set.
    pub members: Vec<(String, ManifestId, TreeId)>,
    /// What it is on disk.
    pub form: SetForm,
    /// The tag that went into its id; that of the form, but in sets of earlier versions.
    pub(super) tag: String,
    /// It holds files that work only where setuid bits count.
    pub needs_suid: bool,
    /// It holds devices.
    pub needs_devices: bool,
}

impl SetInfo {
    /// A set that is told by whoever has the database; where it is, is a matter of the folder.
    pub(crate) fn on_disk(
        (dir, id): (&Path, SetId),
        form: SetForm,
        (needs_suid, needs_devices): (bool, bool),
    ) -> Self {
        let path = dir.join("sets").join(id.to_string());
        let (members, tag) = (Vec::new(), form.tag().to_owned());
        Self { id, path, members, form, tag, needs_suid, needs_devices }
    }
}

impl Store {
    fn set_path(&self, id: SetId) -> PathBuf {
        self.dir.join("sets").join(id.to_string())
    }

    fn set_tree_path(&self, id: SetId) -> PathBuf {
        self.dir.join("sets").join(format!("{id}.tree"))
    }

    /// None for a set of a form that only a later version knows.
    fn info(&self, id: SetId, row: SetRow) -> Option<SetInfo> {
        Some(SetInfo {
            id,
            path: self.set_path(id),
            members: row.members,
            form: SetForm::of_tag(&row.tag)?,
            tag: row.tag,
            needs_suid: row.suid,
            needs_devices: row.devices,
        })
    }

    /// A set that is built.
    pub fn set_info(&self, id: SetId) -> Result<Option<SetInfo>, StoreError> {
        self.touch(Kind::Set, id.as_bytes());
        let row: Option<SetRow> = self.record(SETS, id.as_bytes())?;
        let info = row.and_then(|row| self.info(id, row));
        Ok(info.filter(|info| info.path.symlink_metadata().is_ok()))
    }

    /// Every set that is built.
    pub fn sets(&self) -> Result<Vec<SetInfo>, StoreError> {
        let rows = self.rows(SETS)?;
        let mut out = Vec::with_capacity(rows.len());
        for (key, value) in rows {
            let Some(id) = db::first_id(&key).map(SetId) else { continue };
            out.extend(self.info(id, self.decode_row(&value)?));
        }
        Ok(out)
    }

    /// The merged tree of a set that is built.
    pub fn set_tree(&self, id: SetId) -> Result<Option<Tree>, StoreError> {
        if self.row(SETS, id.as_bytes())?.is_none() {
            return Ok(None);
        }
        let path = self.set_tree_path(id);
        let bytes = std::fs::read(&path).map_err(|e| self.fault(Fault::new("read", &path, e)))?;
        self.decode_row(&bytes).map(Some)
    }

    /// Builds a package set, or finds it built already. Take a [`super::Hold`] before, and keep it
    /// until a lease names the set.
    ///
    /// # Errors
    /// Every tree must be complete in the store, and the packages must agree; see [`SetError`].
    pub fn build_set(&self, spec: &SetSpec) -> Result<SetInfo, SetError> {
        let _one = lock(&self.building);
        let _hold = self.inner_hold();
        let mut members = Vec::with_capacity(spec.members.len());
        for member in &spec.members {
            let tree = member.tree.id();
            if !self.tree_complete(tree)? {
                return Err(SetError::Incomplete { package: member.label.clone() });
            }
            members.push((member.label.clone(), member.manifest, tree));
        }
        self.build_merged(&merge(spec)?, spec.form, members)
    }

    /// The same releases as a set that is built, in another form. Takes what [`Store::build_set`]
    /// takes, and its privileges were granted when the set was built.
    pub fn set_in_form(&self, set: &SetInfo, form: SetForm) -> Result<SetInfo, SetError> {
        if set.form == form {
            return Ok(set.clone());
        }
        let _one = lock(&self.building);
        let _hold = self.inner_hold();
        if !set.form.merges() {
            return self.remerged(set, form);
        }
        let tree = self
            .set_tree(set.id)?
            .filter(|_| form.merges())
            .or_else(|| (!form.merges()).then(Tree::default))
            .ok_or_else(|| SetError::Incomplete { package: format!("set {}", set.id.short()) })?;
        let id = set_id(form.tag(), &tree, set.members.iter().map(|m| m.1));
        self.build_merged(&Merged::new(id, tree), form, set.members.clone())
    }

    /// The releases of a set without a tree of its own, in a form that has one.
    fn remerged(&self, set: &SetInfo, form: SetForm) -> Result<SetInfo, SetError> {
        let mut members = Vec::with_capacity(set.members.len());
        for (label, manifest, _) in &set.members {
            let found = self.manifest_decoded(*manifest)?;
            let found = found.ok_or_else(|| SetError::Incomplete { package: label.clone() })?;
            members.push(SetMember {
                label: label.clone(),
                manifest: *manifest,
                tree: found.tree,
                privileged_allowed: true,
            });
        }
        let merged = merge(&SetSpec { members, form })?;
        self.build_merged(&merged, form, set.members.clone())
    }

    fn build_merged(
        &self,
        merged: &Merged,
        form: SetForm,
        members: Vec<(String, ManifestId, TreeId)>,
    ) -> Result<SetInfo, SetError> {
        if let Some(info) = self.set_info(merged.id)? {
            return Ok(info);
        }
        let tag = form.tag().to_owned();
        let row = SetRow { members, tag, suid: merged.suid, devices: merged.devices };
        self.make_set(merged, form, &row)?;
        self.set_info(merged.id)?
            .ok_or_else(|| SetError::Incomplete { package: format!("set {}", merged.id.short()) })
    }

    fn make_set(&self, merged: &Merged, form: SetForm, row: &SetRow) -> Result<(), SetError> {
        let (sets, path) = (self.dir.join("sets"), self.set_path(merged.id));
        self.check_latch()?;
        // What stands there without a row is half of a removal.
        write::remove_any(&path).map_err(|f| self.fault(f))?;
        let build = sets.join(format!("{BUILD}{}", merged.id.short()));
        write::remove_any(&build).map_err(|f| self.fault(f))?;
        let material = Material { tree: &merged.tree, members: &row.members };
        self.build_form(form, &material, &build)?;
        let bytes = encode(&merged.tree);
        self.write_file(&sets, &format!("{}.tree", merged.id), &bytes)?;
        let fault = |f| self.fault(f);
        write::rename(&build, &path, RenameFlags::NOREPLACE).map_err(fault)?;
        write::sync_dir(&sets).map_err(fault)?;
        failpoint::hit("store.set.renamed");
        self.put_record(SETS, merged.id.as_bytes(), row)?;
        Ok(())
    }

    /// Removes what is left on disk of a set whose row is gone.
    pub(super) fn remove_set_files(&self, id: SetId) -> Result<(), StoreError> {
        let old = self.dir.join("sets").join(format!("{BUILD}old-{}", id.short()));
        write::remove_any(&old).map_err(|f| self.fault(f))?;
        let path = self.set_path(id);
        if path.symlink_metadata().is_ok() {
            write::rename(&path, &old, RenameFlags::empty()).map_err(|f| self.fault(f))?;
        }
        write::remove_file(&self.set_tree_path(id)).map_err(|f| self.fault(f))?;
        write::remove_any(&old).map_err(|f| self.fault(f))
    }

    /// Moves a set with a damaged file out of the way, so that it is built again.
    pub(super) fn quarantine_set(&self, id: SetId) -> Result<(), StoreError> {
        self.write(|tx| db::remove(tx, SETS, id.as_bytes()))?;
        let name = format!("set-{id}-{}", write::temp_name().trim_start_matches('.'));
        let path = self.set_path(id);
        if path.symlink_metadata().is_ok() {
            let to = self.dir.join("quarantine").join(name);
            write::rename(&path, &to, RenameFlags::NOREPLACE).map_err(|f| self.fault(f))?;
        }
        write::remove_file(&self.set_tree_path(id)).map_err(|f| self.fault(f))
    }
}
