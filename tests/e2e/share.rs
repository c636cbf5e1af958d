//! `stork vm share`: a VM that was installed by other means shares the disk with the store.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;
use stork_tests::fleet::{Fleet, Namespace, VmFile, binary, noise};

const MIB: usize = 1 << 20;

/// A fleet whose second host has its state, and a VM's folder, on a small disk of its own.
struct World {
    fleet: Fleet,
    /// The VM's folder for the host, and for this test.
    root: PathBuf,
    seen: PathBuf,
}

impl World {
    /// `disk` makes a disk in a file and mounts it, by a script with the file and the place.
    fn new(disk: &str) -> Option<Self> {
        let namespace = Namespace::or_skip()?;
        let mut fleet = Fleet::inside(namespace, &["web"], 1);
        let host = fleet.stranger("host-2");
        let state = host.dir.join("state");
        fs::create_dir(&state).unwrap();
        let namespace = fleet.namespace().unwrap();
        let mut make = namespace.command("sh");
        make.args(["-ec", disk, "sh"]).arg(host.dir.join("disk")).arg(&state);
        let out = make.output().unwrap();
        if !out.status.success() {
            eprintln!("skipped: no such disk here: {}", String::from_utf8_lossy(&out.stderr));
            return None;
        }
        let root = state.join("guest");
        let seen = namespace.see(&root);
        fs::create_dir(&seen).unwrap();
        fleet.enlist().start();
        let world = Self { fleet, root, seen };
        let host = &world.fleet.hosts[1];
        host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")).mounted());
        Some(world)
    }

    fn stork(&self, args: &[&str]) -> Output {
        let mut command = self.fleet.namespace().unwrap().command(binary("stork"));
        command.arg("--socket").arg(self.fleet.hosts[1].dir.join("sock")).args(args);
        command.output().unwrap()
    }

    fn share(&self, args: &[&str]) -> (Option<i32>, Value) {
        let root = self.root.to_str().unwrap();
        let out = self.stork(&[&["--json", "vm", "share", root], args].concat());
        let error = String::from_utf8_lossy(&out.stderr);
        let value = serde_json::from_slice(&out.stdout);
        assert!(value.is_ok(), "{error}");
        (out.status.code(), value.unwrap())
    }
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
    fs::File::open(path).unwrap().sync_all().unwrap();
}

const XFS: &str = "truncate -s 320M \"$1\"; mkfs.xfs -q \"$1\"; mount -o loop \"$1\" \"$2\"; \
                   chmod 700 \"$2\"";
const EXT4: &str = "truncate -s 320M \"$1\"; mkfs.ext4 -q \"$1\"; mount -o loop \"$1\" \"$2\"; \
                    chmod 700 \"$2\"";

/// On a disk that can share blocks, equal files give back their room, whatever they are called and
/// whoever owns them; nothing else of them changes. What differs, what is a link, and what root of
/// the VM put in the way is left alone. Writing to a shared file changes neither the store nor what
/// other VMs are shown. Doing it again changes nothing.
#[test]
fn files_of_an_installed_vm_share_the_disk() {
    let Some(world) = World::new(XFS) else { return };
    let (large, small) = (noise("large", 24 * MIB + 100), noise("small", 5_000));
    let files: &[(&str, &[u8])] = &[("lib/large", &large), ("share/small", &small)];
    world.fleet.push(&world.fleet.package("app", "1", files), &["web"]);
    let host = &world.fleet.hosts[1];
    host.await_vm("vm", &[("app", "1")]);
    write(&world.seen.join("usr/lib/large"), &large);
    write(&world.seen.join("opt/other name"), &small);
    let mut near = large.clone();
    near[70_000] ^= 1;
    write(&world.seen.join("usr/lib/near"), &near);
    let mode = fs::Permissions::from_mode(0o4711);
    fs::set_permissions(world.seen.join("usr/lib/large"), mode).unwrap();
    symlink("/etc/shadow", world.seen.join("usr/lib/link")).unwrap();
    symlink("/", world.seen.join("all")).unwrap();
    let before = fs::metadata(world.seen.join("usr/lib/large")).unwrap();

    let (code, dry) = world.share(&["--dry-run"]);
    assert_eq!((code, &dry["equal_files"], &dry["shared_files"]), (Some(0), &2.into(), &0.into()));
    let (code, done) = world.share(&[]);
    assert_eq!((code, &done["shared_files"]), (Some(0), &2.into()), "{done}");
    assert_eq!(done["shared_bytes"].as_u64(), Some((large.len() + small.len()) as u64));
    assert!(done["freed_bytes"].as_u64() >= Some(23 * MIB as u64), "{done}");
    let after = fs::metadata(world.seen.join("usr/lib/large")).unwrap();
    let same = |m: &fs::Metadata| (m.ino(), m.mode(), m.uid(), m.mtime(), m.mtime_nsec());
    assert_eq!(same(&before), same(&after));
    assert_eq!(fs::read(world.seen.join("usr/lib/near")).unwrap(), near);

    let (code, again) = world.share(&[]);
    assert_eq!((code, again["freed_bytes"].as_u64()), (Some(0), Some(0)), "{again}");
    // Root of the VM writes to its own file.
    let mut file = fs::read(world.seen.join("usr/lib/large")).unwrap();
    assert_eq!(file, large);
    file[0] ^= 1;
    fs::write(world.seen.join("usr/lib/large"), file).unwrap();
    host.verify_store();
    assert_eq!(fs::read(host.seen("vm").join("lib/large")).unwrap(), large);
    let text = world.stork(&["vm", "share", world.root.to_str().unwrap()]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("1 of 3 files are equal to files of the store"), "{text}");
}

/// On a disk that cannot share blocks nothing is changed, and it is said what could be saved. A
/// folder that is not there is an error that says what to do.
#[test]
fn a_disk_that_cannot_share_says_so() {
    let Some(world) = World::new(EXT4) else { return };
    let bytes = noise("app", 3 * MIB);
    world.fleet.push(&world.fleet.package("app", "1", &[("app", &bytes)]), &["web"]);
    world.fleet.hosts[1].await_vm("vm", &[("app", "1")]);
    write(&world.seen.join("app"), &bytes);
    let (code, told) = world.share(&[]);
    assert_eq!(
        (code, &told["equal_files"], &told["shared_files"]),
        (Some(3), &1.into(), &0.into())
    );
    assert!(told["cannot"].as_str().unwrap().contains("xfs and btrfs can"), "{told}");
    let out = world.stork(&["vm", "share", "/nowhere"]);
    let error = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && error.contains("help: name the folder"), "{error}");
}
