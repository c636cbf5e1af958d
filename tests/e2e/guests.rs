//! Guests with a kernel of their own: one that mounts the image of its package set.

use std::path::Path;
use std::process::Command;

use stork_tests::fleet::{Fleet, Namespace, VmFile, noise};

/// Is everything here that a test guest needs? If not, what is missing is printed.
fn able() -> bool {
    if std::env::var_os("STORK_LONG").is_none() {
        eprintln!("skipped: STORK_LONG is not set");
        return false;
    }
    let missing = |program: &&str| {
        let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
        !found.is_ok_and(|o| o.status.success())
    };
    let programs = ["qemu-system-x86_64", "cpio", "modprobe", "depmod", "dpkg-deb", "apt-get"];
    let missing: Vec<&str> = programs.into_iter().filter(missing).collect();
    if !missing.is_empty() {
        eprintln!("skipped: {} are not here", missing.join(", "));
    }
    missing.is_empty()
}

/// T100: a guest maps the image as persistent memory and reads it as a disk: the same bytes as in
/// the packages, nothing of them in its page cache with DAX, and its root cannot write, neither
/// into files nor into the devices.
#[test]
fn t100_a_guest_reads_the_image_and_cannot_write() {
    if !able() {
        return;
    }
    let Some(namespace) = Namespace::or_skip() else { return };
    let fleet = Fleet::inside(namespace, &["web"], 2);
    let host = &fleet.hosts[1];
    let file = VmFile::usual(&["web"], &host.target("vm")).shown_as("image");
    host.write_vm("vm", &file);
    let large = noise("large", 24 << 20);
    let texts: Vec<(String, Vec<u8>)> =
        (0..500).map(|i| (format!("share/doc/{i}"), noise(&i.to_string(), 5_000))).collect();
    let mut files = vec![("lib/large.bin", large.as_slice())];
    files.extend(texts.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())));
    fleet.push(&fleet.package("pkg", "1", &files), &["web"]);
    host.await_vm("vm", &[("pkg", "1")]);
    let shown = host.tell(&["vm", "vm"]);
    assert_eq!(shown["backend"], "image", "{shown}");
    let told = crate::trees::plain(host, &["vm", "vm"]).output().unwrap();
    let told = String::from_utf8_lossy(&told.stdout);
    assert!(told.contains("sees a new image at its next start"), "{told}");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("guests/image.sh");
    let mut boot = fleet.namespace().unwrap().command("sh");
    let out = boot.arg(script).arg(host.target("vm").join("image.erofs")).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    eprint!("{said}");
    assert!(out.status.success(), "{said}{}", String::from_utf8_lossy(&out.stderr));
    host.verify_store();
}
