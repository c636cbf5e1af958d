//! The texts as they are, and what is refused.

use clap::ValueEnum;

use super::*;
use crate::apt::pgp::SigningKey;

fn scene(backend: &str, target: &str, machine: Option<&str>) -> Result<Scene, Refused> {
    let text = format!(
        "[vm]\ngroups = []\n[view]\nbackend = \"{backend}\"\ntarget = \"{target}\"\n\
         isolation = \"none\"\n"
    );
    let vm = VmFile::parse("web-1", &text).unwrap();
    let key = Some(SigningKey::new(&[5; 32], "host-1").certificate());
    let places = Places::default();
    let (name, at) = ("web-1".to_owned(), "/opt/stork".into());
    let machine = machine.map(str::to_owned);
    Scene::of(&vm, &AttachArgs { name, format: Format::Fstab, at, machine, places }, key)
}

fn text(backend: &str, format: Format) -> Result<String, Refused> {
    scene(backend, "/srv/views/web-1/packages", None).unwrap().text(format)
}

/// Each text for a usual VM, word for word.
#[test]
fn the_texts() {
    let nspawn = text("tree", Format::Nspawn).unwrap();
    let last = nspawn.lines().last().unwrap();
    assert_eq!(last, "BindReadOnly=/srv/views/web-1:/opt/stork:rbind");
    let incus = text("tree", Format::Incus).unwrap();
    assert_eq!(
        incus.lines().last().unwrap(),
        "incus config device add web-1 stork disk source=/srv/views/web-1 path=/opt/stork \
         recursive=true propagation=rslave readonly=true"
    );
    assert_eq!(
        text("virtiofs", Format::Fstab).unwrap(),
        "stork /opt/stork virtiofs ro,nosuid,nodev,nofail 0 0\n"
    );
    let libvirt = text("virtiofs", Format::Libvirt).unwrap();
    assert!(libvirt.contains("<source socket='/run/stork-virtiofs/web-1/sock'/>"), "{libvirt}");
    assert!(libvirt.contains("<source type='memfd'/>"), "{libvirt}");
    let qemu = text("virtiofs", Format::Qemu).unwrap();
    assert!(qemu.contains("share=on") && qemu.contains("tag=stork"), "{qemu}");
    assert!(!qemu.contains("STORK_EXPORT"), "the usual folder needs no drop-in: {qemu}");
    let cloud = text("packages", Format::CloudInit).unwrap();
    assert!(cloud.contains("URIs: file:/opt/stork/packages\n"), "{cloud}");
    assert!(cloud.contains("-----BEGIN PGP PUBLIC KEY BLOCK-----"), "{cloud}");
    let disk = text("image", Format::Libvirt).unwrap();
    assert!(disk.contains("<source file='/srv/views/web-1/packages/image.erofs'/>"), "{disk}");
    assert!(disk.contains("<readonly/>"), "{disk}");
    let qemu = text("image", Format::Qemu).unwrap();
    assert!(qemu.contains("readonly=on -device virtio-blk-pci,drive=stork,serial=stork"), "{qemu}");
    assert_eq!(
        text("image", Format::Fstab).unwrap(),
        "/dev/disk/by-id/virtio-stork /opt/stork/packages erofs ro,nosuid,nodev,nofail 0 0\n"
    );
    assert!(!text("tree", Format::CloudInit).unwrap().contains("write_files"));
    let proxmox = scene("virtiofs", "/data/w/packages", Some("101")).unwrap();
    let proxmox = proxmox.text(Format::Proxmox).unwrap();
    assert!(proxmox.contains("\nqm set 101 --args '-object"), "{proxmox}");
    assert!(proxmox.contains("Environment=STORK_EXPORT=/data/w\n"), "{proxmox}");
}

/// A view for hardware VMs is not given to containers, and no path or name breaks out of a text.
#[test]
fn what_is_refused() {
    for format in [Format::Nspawn, Format::Incus] {
        for backend in ["virtiofs", "image"] {
            let refused = text(backend, format).unwrap_err();
            assert!(refused.help.contains("--format libvirt"), "{refused:?}");
        }
    }
    for target in ["/srv/a b/c", "/srv/a'/c", "/srv/$(x)/c", "/view", "/srv/a:b/c"] {
        assert!(scene("tree", target, None).is_err(), "{target}");
    }
    for machine in ["", "-x", "a b", "a;b", "../x"] {
        assert!(scene("tree", "/srv/v/p", Some(machine)).is_err(), "{machine}");
    }
    let mut without = scene("packages", "/srv/v/p", None).unwrap();
    without.key = None;
    assert!(without.text(Format::CloudInit).unwrap_err().help.contains("as root"));
}

/// Every backend has a text in some format, and none panics.
#[test]
fn every_pair_answers() {
    for backend in ["tree", "hardlink", "virtiofs", "packages", "composefs", "image"] {
        let texts = Format::value_variants().iter().map(|f| text(backend, *f));
        assert!(texts.filter(Result::is_ok).count() >= 5, "{backend}");
    }
}
