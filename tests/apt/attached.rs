//! What `stork vm attach` prints, read by the programs that it is for.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use stork_node::apt::pgp::SigningKey;
use stork_tests::fleet::binary;

use super::run;

/// A folder with files of VMs and a state folder with a key.
fn places() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (vms, state) = (dir.path().join("vms"), dir.path().join("state"));
    fs::create_dir_all(&vms).unwrap();
    fs::create_dir_all(&state).unwrap();
    for backend in ["tree", "virtiofs", "packages", "image"] {
        let target = format!("/srv/views/{backend}/packages");
        let text =
            format!("[vm]\ngroups = []\n[view]\nbackend = \"{backend}\"\ntarget = \"{target}\"\n");
        fs::write(vms.join(format!("{backend}.toml")), text).unwrap();
    }
    let key = state.join("apt.key");
    fs::write(&key, format!("stork apt key v1\nseed {}\nhost h\n", "05".repeat(32))).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&key, mode).unwrap();
    dir
}

fn attach(dir: &Path, vm: &str, format: &str) -> Output {
    let mut stork = Command::new(binary("stork"));
    stork.args(["vm", "attach", vm, "--format", format]);
    stork.arg("--state").arg(dir.join("state")).arg("--vms").arg(dir.join("vms"));
    stork.env_remove("STORK_CONFIG").output().unwrap()
}

fn text(dir: &Path, vm: &str, format: &str) -> String {
    let out = attach(dir, vm, format);
    assert!(out.status.success(), "{vm} {format}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// xmllint takes the parts of a libvirt domain, findmnt the line of fstab, a YAML parser the user
/// data of cloud-init, whose source entry apt takes, and a shell the commands for Incus and
/// Proxmox.
#[test]
fn real_programs_read_it() {
    let dir = places();
    let dir = dir.path();
    for vm in ["virtiofs", "image"] {
        let xml = format!("<domain>{}</domain>", text(dir, vm, "libvirt"));
        fs::write(dir.join("domain.xml"), xml).unwrap();
        run(Command::new("xmllint").arg("--noout").arg(dir.join("domain.xml")));
    }
    let tab = text(dir, "virtiofs", "fstab");
    fs::write(dir.join("fstab"), &tab).unwrap();
    let mut findmnt = Command::new("findmnt");
    findmnt.args(["--tab-file"]).arg(dir.join("fstab")).args(["-n", "-o", "SOURCE,TARGET,FSTYPE"]);
    if let Some(out) = run(&mut findmnt) {
        let words = String::from_utf8(out.stdout).unwrap();
        let words: Vec<&str> = words.split_whitespace().collect();
        assert_eq!(words, ["stork", "/opt/stork", "virtiofs"]);
    }
    for format in ["incus", "proxmox", "qemu"] {
        fs::write(dir.join("script"), text(dir, "packages", format)).unwrap();
        run(Command::new("sh").arg("-n").arg(dir.join("script")));
    }
    let data = text(dir, "packages", "cloud-init");
    fs::write(dir.join("user-data"), &data).unwrap();
    let script = "import sys, yaml; d = yaml.safe_load(open(sys.argv[1])); \
                  f = d['write_files'][0]; assert d['mounts'][0][2] == 'virtiofs'; \
                  assert f['permissions'] == '0644'; open(sys.argv[2], 'w').write(f['content'])";
    let mut python = Command::new("python3");
    python.args(["-c", script]).arg(dir.join("user-data")).arg(dir.join("stork.sources"));
    if stork_node::doctor::find_program("python3").is_none() || python.output().is_err() {
        return eprintln!("skipped: there is no python3");
    }
    if !Command::new("python3").args(["-c", "import yaml"]).status().unwrap().success() {
        return eprintln!("skipped: python3 has no yaml");
    }
    run(&mut python);
    let key = SigningKey::new(&[5; 32], "h").certificate();
    let source = fs::read_to_string(dir.join("stork.sources")).unwrap();
    assert!(key.lines().filter(|l| !l.is_empty()).all(|l| source.contains(l)), "{source}");
    let mut apt = Command::new("apt-get");
    apt.arg("-o").arg(format!("Dir::Etc::SourceParts={}", dir.display()));
    apt.args(["-o", "Dir::Etc::SourceList=/dev/null", "update", "--print-uris"]);
    if let Some(out) = run(&mut apt) {
        let uris = String::from_utf8(out.stdout).unwrap();
        assert!(uris.contains("'file:/opt/stork/packages/./InRelease'"), "{uris}");
    }
}

/// A wrong pair, an unknown VM and a wrong word end with what to do.
#[test]
fn wrong_orders_are_answered() {
    let dir = places();
    for (vm, format, code, help) in [
        ("virtiofs", "nspawn", 2, "--format libvirt"),
        ("nobody", "nspawn", 5, "stork doctor"),
        ("tree", "vmware", 2, "possible values"),
    ] {
        let out = attach(dir.path(), vm, format);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(code), "{said}");
        assert!(said.contains(help), "{said}");
    }
}

/// `stork doctor` works without a daemon: it names what a VM's file asks for in vain, and ends
/// with 1.
#[test]
fn doctor_needs_no_daemon() {
    let dir = places();
    let doctor = |json: bool| {
        let mut stork = Command::new(binary("stork"));
        stork.arg("doctor").args(json.then_some("--json")).env_remove("STORK_CONFIG");
        stork.arg("--state").arg(dir.path().join("state"));
        stork.arg("--vms").arg(dir.path().join("vms")).output().unwrap()
    };
    let file = dir.path().join("vms/broken.toml");
    fs::write(&file, "[vm]\ngroups = []\n[view]\nbackend = \"tre\"\ntarget = \"/x\"\n").unwrap();
    let out = doctor(false);
    let said = String::from_utf8(out.stdout).unwrap();
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("broken.toml: DOES NOT WORK"), "{said}");
    assert!(said.contains("did you mean `tree`?"), "{said}");
    let value: serde_json::Value = serde_json::from_slice(&doctor(true).stdout).unwrap();
    assert_eq!(value["schema"], "stork.doctor/v1");
    assert!(value["findings"].as_array().unwrap().iter().all(|f| f["evidence"] != ""));
    assert_eq!(value["vms"].as_array().unwrap().len(), 5);
}
