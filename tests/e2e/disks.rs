//! Disk images as content: a file system of a VM, published, updated as a delta, and mounted from
//! the view.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use stork_tests::fleet::{Fleet, Namespace, Package, VmFile, noise};
use stork_tests::wait::wait_until;

/// Mebibytes of the image, and of files in it: in the gate, and with `STORK_LONG=1`.
const MIB: (u64, usize) = (64, 12);
const MIB_LONG: (u64, usize) = (1_280, 320);

fn run(command: &mut Command) {
    let out = command.output().unwrap();
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Work on a mounted image, inside of the namespace.
fn change(namespace: &Namespace, image: &Path, at: &Path, script: &str) {
    fs::create_dir_all(at).unwrap();
    run(namespace.command("mount").args(["-o", "loop"]).arg(image).arg(at));
    run(namespace.command("sh").args(["-e", "-c", script, "change"]).arg(at));
    run(namespace.command("umount").arg(at));
}

/// A package whose only file is the image.
fn package(folder: &Path, version: &str) -> Package {
    Package { file: folder.into(), named: Some(("disk".into(), version.into())) }
}

/// What a host shows of a file of the image, mounted read-only from its view.
fn mounted(namespace: &Namespace, view: &Path, at: &Path) -> PathBuf {
    fs::create_dir_all(at).unwrap();
    let image = view.join("disk.img");
    run(namespace.command("mount").args(["-o", "loop,ro"]).arg(image).arg(at));
    namespace.see(at)
}

/// A file system of 1.25 GiB (64 MiB in the gate) goes to a host, whose VM mounts it from the view.
/// One file of it changes: the host fetches little more than that file, and the VM mounts the new
/// image, while the old one stays whole for as long as it is mounted.
#[test]
fn a_disk_image_is_updated_by_delta_and_mounted_from_the_view() {
    let (mib, filled) = if std::env::var_os("STORK_LONG").is_some() { MIB_LONG } else { MIB };
    let Some(namespace) = Namespace::or_skip() else { return };
    let fleet = Fleet::inside(namespace, &["web"], 2);
    let namespace = fleet.namespace().unwrap();
    let [one, two] = ["1", "2"].map(|v| fleet.folder("images").join(v));
    fs::create_dir_all(&one).unwrap();
    let image = one.join("disk.img");
    fs::File::create(&image).unwrap().set_len(mib << 20).unwrap();
    run(namespace.command("mkfs.ext4").args(["-q", "-F"]).arg(&image));
    let data = fleet.folder("data");
    fs::create_dir_all(&data).unwrap();
    for n in 0..filled {
        fs::write(data.join(format!("file-{n}")), noise(&format!("disk {n}"), 1 << 20)).unwrap();
    }
    let at = fleet.folder("mnt");
    let fill = format!("cp -r {}/. \"$1\"; echo one > \"$1/version\"", data.display());
    change(namespace, &image, &at, &fill);

    let host = &fleet.hosts[1];
    host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")).mounted());
    fleet.push(&package(&one, "1"), &["web"]);
    host.await_vm("vm", &[("disk", "1")]);
    let old = mounted(namespace, &host.target("vm"), &fleet.folder("old"));
    assert_eq!(fs::read_to_string(old.join("version")).unwrap(), "one\n");

    run(Command::new("cp").args(["-a", "--sparse=always"]).arg(&one).arg(&two));
    let more = "echo two > \"$1/version\"; head -c 1048576 /dev/urandom > \"$1/file-0\"";
    change(namespace, &two.join("disk.img"), &at, more);
    let report = fleet.push(&package(&two, "2"), &["web"]);
    host.await_vm("vm", &[("disk", "2")]);
    let release = host.await_whole("disk", "2");
    assert_eq!(release["fetched_as"], "delta", "{release}");
    let fetched = release["fetched_bytes"].as_u64().unwrap();
    eprintln!("{mib} MiB: the delta is {fetched} bytes, of {}", report["full_bytes"]);
    // The file that changed cannot be packed; the file system writes a little around it.
    assert!((1 << 20..3 << 20).contains(&fetched), "{release}");
    let new = mounted(namespace, &host.target("vm"), &fleet.folder("new"));
    assert_eq!(fs::read_to_string(new.join("version")).unwrap(), "two\n");
    let last = format!("file-{}", filled - 1);
    assert!(fs::read(new.join(&last)).unwrap() == fs::read(data.join(&last)).unwrap());

    // The old image is still whole where it is mounted, and the view cannot be written.
    wait_until("the old image to be read", || {
        fs::read_to_string(old.join("version")).is_ok_and(|t| t == "one\n")
    });
    assert!(fs::read(old.join("file-0")).unwrap() == fs::read(data.join("file-0")).unwrap());
    let shown = namespace.see(&host.target("vm").join("disk.img"));
    let refused = fs::OpenOptions::new().write(true).open(shown).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(30), "{refused}");
    for at in ["old", "new"] {
        run(namespace.command("umount").arg(fleet.folder(at)));
    }
}
