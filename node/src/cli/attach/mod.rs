//! `stork vm attach NAME --format F`: what to paste so that a guest sees its view.
//!
//! It reads the VM's file and asks no daemon. What a backend cannot be given to is refused with
//! what can. The guest gets the folder *above* the target: a switch puts something new at the
//! target, and who holds the target itself would go on seeing the old.

mod containers;
mod guests;
mod hardware;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::doctor::Places;
use super::out::{failure, note, result};
use crate::catalog::{Backend, VmFile};
use crate::config::VmFolder;
use crate::store::repository_key;

/// What follows `stork vm`.
#[derive(Debug, Subcommand)]
pub(super) enum VmCommand {
    /// Print what gives a guest its view: for the hypervisor, or for the guest itself.
    #[command(after_help = "Examples:
  stork vm attach web-1 --format nspawn > /etc/systemd/nspawn/web-1.nspawn
  stork vm attach web-1 --format incus | sh
  stork vm attach web-1 --format cloud-init --at /opt/stork

The guest gets the folder above the view, read-only. docs/HYPERVISORS.md says what was tried.")]
    Attach(AttachArgs),
    /// What is asked of the daemon.
    #[command(flatten)]
    Ask(super::vm::VmOrder),
    /// Let the files of a VM's folder share the disk with equal files of the store.
    ///
    /// The kernel compares and joins them (FIDEDUPERANGE), on xfs and btrfs; the VM may run.
    /// Owners, modes, times and names stay as they are, and a later write makes a copy. Elsewhere
    /// only what could be saved is told.
    Share(super::share::ShareArgs),
}

/// Which text, and for which place.
#[derive(Debug, Args)]
pub(super) struct AttachArgs {
    /// The VM, by its name in `vms.d`.
    name: String,
    /// Who reads the text.
    #[arg(long, value_enum)]
    format: Format,
    /// Where the guest has it.
    #[arg(long, value_name = "PATH", default_value = "/opt/stork")]
    at: PathBuf,
    /// The name of the machine, where the hypervisor has another one for it (Proxmox: its number).
    #[arg(long, value_name = "NAME")]
    machine: Option<String>,
    #[command(flatten)]
    places: Places,
}

/// Who reads the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// systemd-nspawn: a `.nspawn` file.
    Nspawn,
    /// Incus or LXD: a command.
    Incus,
    /// libvirt: parts of a domain.
    Libvirt,
    /// Proxmox VE: commands.
    Proxmox,
    /// QEMU: options.
    Qemu,
    /// The guest's `/etc/fstab`.
    Fstab,
    /// The guest's cloud-init user data.
    CloudInit,
}

/// What can't be printed: why, and what can.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refused {
    what: String,
    help: &'static str,
}

/// The file in the target of an `image` view.
const IMAGE: &str = "image.erofs";

/// How a view gets into a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// A folder of the host, for containers, and by virtiofsd for hardware VMs.
    Folder {
        /// The guest's root may write into it.
        writable: bool,
    },
    /// A folder that only hardware VMs get.
    Export,
    /// An image that only hardware VMs get.
    Image,
}

const fn way(backend: Backend) -> Way {
    match backend {
        Backend::Tree
        | Backend::Composefs
        | Backend::Packages
        | Backend::Sysext
        | Backend::Hardlink => Way::Folder { writable: false },
        Backend::Overlay => Way::Folder { writable: true },
        Backend::Virtiofs => Way::Export,
        Backend::Image => Way::Image,
    }
}

/// All that the texts are made of.
#[derive(Debug)]
struct Scene {
    /// The VM, as stork calls it.
    vm: String,
    /// The VM, as the hypervisor calls it.
    machine: String,
    backend: Backend,
    /// The folder that is given away, and the name of the view in it.
    folder: String,
    view: String,
    /// Where the guest has the folder.
    at: String,
    /// The public key of the host's repositories, for `packages`.
    key: Option<String>,
    /// First user and number of users of the guest, where its file says so (`idmap`).
    users: Option<(u32, u32)>,
    /// Bytes of the image, for `image`; none where it is not there yet.
    bytes: Option<u64>,
}

/// A path that may stand unquoted in all formats.
fn plain(path: &Path) -> Result<String, Refused> {
    let help = "choose a path of letters, digits and ./_-+@ only";
    let text = path.to_str().unwrap_or_default();
    let ok = |c: char| c.is_ascii_alphanumeric() || "./_-+@".contains(c);
    if path.is_absolute() && text.chars().all(ok) && !text.split('/').any(|p| p == "..") {
        Ok(text.to_owned())
    } else {
        Err(Refused { what: format!("`{}` cannot be written into it", path.display()), help })
    }
}

impl Scene {
    fn of(vm: &VmFile, args: &AttachArgs, key: Option<String>) -> Result<Self, Refused> {
        let target = plain(&vm.target)?;
        let (folder, view) = target.rsplit_once('/').unwrap_or(("", target.as_str()));
        if folder.is_empty() {
            let what = format!("the view {target} lies in the root of the host");
            let help = "give it a folder of its own, such as /srv/views/NAME/packages";
            return Err(Refused { what, help });
        }
        let name = vm.name.as_str().replace('/', "-");
        let machine = args.machine.clone().unwrap_or_else(|| name.clone());
        let ok = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if machine.is_empty() || machine.starts_with('-') || !machine.chars().all(ok) {
            let what = format!("`{}` is no name of a machine", machine.escape_debug());
            return Err(Refused { what, help: "give it by --machine NAME" });
        }
        Ok(Self {
            vm: name,
            machine,
            backend: vm.backend,
            folder: folder.to_owned(),
            view: view.to_owned(),
            at: plain(&args.at)?.trim_end_matches('/').to_owned(),
            key,
            users: vm.view.idmap.map(|m| (m.uid, m.count)),
            bytes: vm.target.join(IMAGE).metadata().ok().map(|m| m.len()),
        })
    }

    /// Where the guest has the view itself.
    fn place(&self) -> String {
        format!("{}/{}", self.at, self.view)
    }

    /// The file of an `image` view.
    fn image(&self) -> Option<String> {
        let is = way(self.backend) == Way::Image;
        is.then(|| format!("{}/{}/{IMAGE}", self.folder, self.view))
    }

    fn text(&self, format: Format) -> Result<String, Refused> {
        match format {
            Format::Nspawn => containers::nspawn(self),
            Format::Incus => containers::incus(self),
            Format::Libvirt => Ok(hardware::libvirt(self)),
            Format::Proxmox => Ok(hardware::proxmox(self)),
            Format::Qemu => Ok(hardware::qemu(self)),
            Format::Fstab => Ok(guests::fstab(self)),
            Format::CloudInit => guests::cloud_init(self),
        }
    }
}

/// There is no such VM, or its file has a mistake: then that is what to say.
fn no_such_vm(folder: &VmFolder, path: &Path, name: &str) -> ExitCode {
    let bad = folder.bad();
    if let Some(bad) = bad.iter().find(|b| b.path.file_stem().is_some_and(|stem| stem == name)) {
        let what = format!("{}: {}", bad.path.display(), bad.error.message);
        return failure(&what, &[], &bad.error.help, 78);
    }
    if let Err(e) = std::fs::read_dir(path) {
        let what = format!("cannot read the folder of VM files {}: {e}", path.display());
        return failure(&what, &[], "name it with --vms, or the settings file with --config", 78);
    }
    let what = format!("no file in {} is of a VM `{name}`", path.display());
    failure(&what, &[], "`stork doctor` lists them; name another folder with --vms", 5)
}

/// Runs the command.
pub(super) fn run(args: &AttachArgs, json: bool) -> ExitCode {
    let config = match args.places.settings() {
        Ok(config) => config,
        Err(e) => return failure(&e.to_string(), &[], &e.help, 78),
    };
    let mut folder = VmFolder::new(config.vms.clone());
    folder.reread();
    let vms = folder.vms();
    let Some(vm) = vms.values().find(|vm| vm.name.as_str() == args.name) else {
        return no_such_vm(&folder, &config.vms, &args.name);
    };
    let key = match repository_key(&config.state) {
        Ok(key) => key.map(|k| k.certificate()),
        // Whoever may not read the state can still print what needs no key.
        Err(_) => None,
    };
    match Scene::of(vm, args, key).and_then(|s| s.text(args.format)) {
        Ok(text) if json => {
            let format = args
                .format
                .to_possible_value()
                .map_or_else(String::new, |v| v.get_name().to_owned());
            let shown = json!({
                "schema": "stork.vm-attach/v1", "vm": args.name, "backend": vm.backend,
                "format": format, "text": text,
            });
            result(&shown.to_string());
            ExitCode::SUCCESS
        }
        Ok(text) => {
            result(text.trim_end());
            if vm.isolation_none {
                note("note: this VM's file says that its root may write into shared files");
            }
            ExitCode::SUCCESS
        }
        Err(e) => failure(&e.what, &[], e.help, 2),
    }
}
