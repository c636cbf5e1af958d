//! The VMs of the bench: roots with a view each, by one backend or by plain copies.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde::Deserialize;
use serde_json::{Value, json};
use stork_node::store::{SetInfo, Store};
use stork_node::view::{Backend, GenerationLabel, Isolation, KEEP_GENERATIONS, ViewSpec, Views};

use super::disk::Disk;
use super::group::Group;
use super::mix::Mix;
use super::packages::Stocked;
use super::{ms, spec};
use crate::content::tools::output;
use crate::percentile;

/// Switches that are timed.
const SWITCHES: usize = 21;
/// The time of all generations, which nothing here depends on.
const NOW: u64 = 1_800_000_000;

/// The VMs of one way to show packages.
pub(crate) struct Vms<'a> {
    store: &'a Arc<Store>,
    views: Views,
    stocked: &'a Stocked,
    name: String,
    /// None: plain copies.
    backend: Option<Backend>,
    dir: PathBuf,
    set: SetInfo,
    /// How many VMs see the set.
    roots: usize,
}

impl<'a> Vms<'a> {
    /// Roots without views; the set is built.
    pub(crate) fn new(
        store: &'a Arc<Store>,
        disk: &Disk,
        stocked: &'a Stocked,
        (name, most): (&str, usize),
    ) -> Result<Self> {
        let backend = backend_of(name)?;
        let dir = disk.path().join("vms").join(name);
        let set = store.build_set(&spec(stocked, backend.unwrap_or(Backend::Tree), true))?;
        let views = Views::new(Arc::clone(store));
        let (name, roots) = (name.to_owned(), 0);
        let vms = Self { store, views, stocked, name, backend, dir, set, roots };
        for number in 0..most {
            vms.make_root(number)?;
        }
        Ok(vms)
    }

    fn root(&self, number: usize) -> PathBuf {
        self.dir.join(format!("vm-{number}"))
    }

    /// Where its view is: a system extension is named by its folder.
    fn target(&self, number: usize) -> PathBuf {
        let name = if self.name == "sysext" { "at/stork" } else { "at/view" };
        self.root(number).join(name)
    }

    /// A root that finds all programs in its view.
    fn make_root(&self, number: usize) -> Result<()> {
        let root = self.root(number);
        for dir in ["tmp", "dev", "at"] {
            std::fs::create_dir_all(root.join(dir))?;
        }
        let (kind, mode) = (FileType::CharacterDevice, Mode::from_raw_mode(0o666));
        mknodat(CWD, root.join("dev/null"), kind, mode, makedev(1, 3))?;
        std::fs::write(root.join("probe"), "a file to hash\n")?;
        for (name, to) in [
            ("usr", "at/view/usr"),
            ("etc", "at/view/etc"),
            ("bin", "usr/bin"),
            ("sbin", "usr/sbin"),
            ("lib", "usr/lib"),
            ("lib64", "usr/lib64"),
        ] {
            symlink(to, root.join(name))?;
        }
        Ok(())
    }

    fn view_spec(&self, number: usize, backend: Backend) -> Result<ViewSpec> {
        Ok(ViewSpec {
            vm: format!("{}-{number}", self.name).parse()?,
            backend,
            target: self.target(number),
            isolation: Isolation::None,
            keep_generations: KEEP_GENERATIONS,
            options: stork_node::view::ViewOptions::default(),
        })
    }

    /// Shows the set to more VMs until so many see it.
    pub(crate) fn grow(&mut self, count: usize) -> Result<()> {
        for number in self.roots..count {
            match self.backend {
                None => copy(&self.set.path, &self.root(number).join("at/view"))?,
                Some(backend) => {
                    let spec = self.view_spec(number, backend)?;
                    self.views.show(&spec, &self.set, GenerationLabel::default(), NOW)?;
                }
            }
            self.roots = number + 1;
        }
        Ok(())
    }

    /// Do programs run from these views, as they are?
    pub(crate) fn can_run(&self) -> bool {
        self.root(0).join("usr/bin/python3").exists()
    }

    /// Bytes that the programs of all VMs hold in memory, and how they are made up.
    pub(crate) fn memory(&self) -> Result<(u64, Value)> {
        rustix::fs::sync();
        // So that what the programs read is read again, and counted as theirs.
        std::fs::write("/proc/sys/vm/drop_caches", "3").context("drop the caches")?;
        let group = Group::new()?;
        let mut running = Vec::with_capacity(self.roots);
        for number in 0..self.roots {
            running.push(Mix::start(&self.root(number), &group)?);
        }
        group.usage()
    }

    /// Milliseconds of switches between two sets that are built.
    pub(crate) fn switch(&self) -> Result<Value> {
        let Some(backend) = self.backend else { return Ok(Value::Null) };
        let other = self.store.build_set(&spec(self.stocked, backend, false))?;
        let view = self.view_spec(0, backend)?;
        let mut times = Vec::with_capacity(SWITCHES);
        for n in 0..SWITCHES {
            let set = if n % 2 == 0 { &other } else { &self.set };
            let begun = Instant::now();
            self.views.show(&view, set, GenerationLabel::default(), NOW)?;
            times.push(ms(begun));
            // What the daemon does some seconds after a switch.
            self.views.tidy(&view)?;
        }
        times.sort_by(f64::total_cmp);
        Ok(json!({
            "count": SWITCHES, "p50_ms": percentile(&times, 0.5), "max_ms": percentile(&times, 1.0),
        }))
    }

    /// Takes the VMs away again.
    pub(crate) fn end(self) -> Result<()> {
        if let Some(backend) = self.backend {
            for number in 0..self.roots {
                self.views.hide(&self.view_spec(number, backend)?)?;
            }
        }
        std::fs::remove_dir_all(&self.dir).context("remove the VMs")
    }
}

/// A plain copy of a tree, with all that belongs to it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    output(Command::new("cp").arg("-a").arg(from).arg(to)).map(|_| ())
}

/// The backend of this name; none for plain copies.
pub(crate) fn backend_of(name: &str) -> Result<Option<Backend>> {
    if name == "copies" {
        return Ok(None);
    }
    let name = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(name);
    Ok(Some(Backend::deserialize(name).context("--backends")?))
}

/// What building a set takes: the first of its form, one with a package less, and one that is
/// there already.
pub(crate) fn builds(store: &Store, stocked: &Stocked, backend: Backend) -> Result<Value> {
    let timed = |all: bool| -> Result<f64> {
        rustix::fs::sync();
        let begun = Instant::now();
        store.build_set(&spec(stocked, backend, all))?;
        Ok(ms(begun))
    };
    let (first, other, again) = (timed(true)?, timed(false)?, timed(true)?);
    Ok(json!({ "first_ms": first, "one_package_less_ms": other, "again_ms": again }))
}
