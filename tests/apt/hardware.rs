//! The backend `virtiofs` with a real guest: QEMU without acceleration, Debian's cloud kernel, and
//! a virtiofsd with the arguments of its unit.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use stork_node::doctor::find_program;
use stork_tests::fleet::{Fleet, Namespace, VmFile};
use stork_tests::wait::wait_until;

use super::{CHANGES, run};

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        drop(self.0.wait());
    }
}

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd").join(name)
}

/// The arguments of virtiofsd in the unit, or in the drop-in for the one of QEMU 7.
fn arguments(program: &Path, socket: &Path, export: &Path) -> Vec<String> {
    let old = program.starts_with("/usr/lib/qemu");
    let file = if old { "virtiofsd-qemu7.conf" } else { "stork-virtiofsd@.service" };
    let text = fs::read_to_string(deploy(file)).unwrap().replace("\\\n", " ");
    let mut lines = text.lines().filter_map(|l| l.strip_prefix("ExecStart="));
    let line = lines.rfind(|l| !l.is_empty()).unwrap();
    let words = line.split_whitespace().skip(1).filter(|w| !w.starts_with("--socket-group"));
    let place = |w: &str| {
        w.replace("/run/stork-virtiofs/%i/sock", socket.to_str().unwrap())
            .replace("${STORK_EXPORT}", export.to_str().unwrap())
    };
    words.map(place).collect()
}

/// In a namespace as systemd makes it for the unit: all is read-only, mounts of the host come in.
const SANDBOX: &str = "mount --rbind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" && shift && \
                       exec \"$@\"";

/// Every test of the word in the guest's output.
fn has(lines: &[String], word: &str) -> bool {
    lines.iter().any(|l| l.starts_with(word))
}

/// The machine: memory that virtiofsd sees, its socket, and a serial line.
fn machine(qemu: &Path, dir: &Path, socket: &Path) -> Command {
    let mut guest = Command::new(qemu);
    guest.args(["-M", "q35,accel=tcg,memory-backend=mem", "-m", "256", "-nodefaults"]);
    guest.args(["-object", "memory-backend-memfd,id=mem,size=256M,share=on"]);
    guest.arg("-chardev").arg(format!("socket,id=stork,path={}", socket.display()));
    guest.args(["-device", "vhost-user-fs-pci,queue-size=1024,chardev=stork,tag=stork"]);
    guest.arg("-kernel").arg(dir.join("vmlinuz"));
    guest.arg("-initrd").arg(dir.join("initramfs"));
    guest.args(["-append", "console=ttyS0 panic=-1 quiet", "-no-reboot", "-nographic"]);
    guest.args(["-serial", "stdio"]).stdin(Stdio::null()).stdout(Stdio::piped());
    guest
}

/// T100: root of a hardware guest mounts the export, writes, changes modes and owners, links,
/// renames, removes and makes nodes, before and after it remounts: nothing changes. A switch of the
/// host is seen without a new mount, with the number of its generation, while the daemon is
/// killed and started again; the store is whole afterwards.
#[test]
fn t100_a_hardware_guest_reads_only() {
    if std::env::var_os("STORK_LONG").is_none() {
        return eprintln!("skipped: STORK_LONG is not set");
    }
    let found = (find_program("virtiofsd"), find_program("qemu-system-x86_64"));
    let (Some(virtiofsd), Some(qemu)) = found else {
        return eprintln!("skipped: there is no virtiofsd or no qemu-system-x86_64");
    };
    let Some(namespace) = Namespace::or_skip() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (here, script) = (Path::new(env!("CARGO_MANIFEST_DIR")), dir.path().join("script"));
    let mount = "M=/mnt; mount -t virtiofs stork /mnt && echo MOUNTED\n";
    fs::write(&script, [mount, CHANGES].concat()).unwrap();
    let mut make = Command::new("sh");
    make.arg(here.join("guests/initramfs.sh")).arg(dir.path()).arg(&script);
    if run(make.args(["virtiofs", "virtio_pci"])).is_none() {
        return;
    }
    let mut fleet = Fleet::inside(namespace, &["web"], 2);
    let target = fleet.hosts[1].target("vm/packages");
    let file = VmFile::usual(&["web"], &target).shown_as("virtiofs");
    fleet.hosts[1].write_vm("vm", &file);
    let push = |fleet: &Fleet, version: &str| {
        let text = format!("{version}\n");
        fleet.push(&fleet.package("a", version, &[("share/a/version", text.as_bytes())]), &["web"]);
        fleet.hosts[1].await_vm("vm", &[("a", version)]);
    };
    push(&fleet, "1");

    let socket = dir.path().join("sock");
    let export = target.parent().unwrap();
    let mut served = fleet.namespace().unwrap().command("unshare");
    served.args(["-m", "--propagation", "slave", "sh", "-c", SANDBOX, "virtiofsd"]).arg(export);
    served.arg(&virtiofsd).args(arguments(&virtiofsd, &socket, export));
    let _served = Running(served.stderr(Stdio::null()).spawn().unwrap());
    wait_until("the socket of virtiofsd", || socket.exists());
    let mut guest = machine(&qemu, dir.path(), &socket);
    let mut guest = Running(guest.spawn().unwrap());
    let mut said: Vec<String> = Vec::new();
    let mut out = BufReader::new(guest.0.stdout.take().unwrap());
    let mut read_until = |word: &str| {
        let mut line = String::new();
        while out.read_line(&mut line).unwrap() > 0 {
            said.push(line.trim_end().to_owned());
            if line.contains(word) {
                break;
            }
            line.clear();
        }
        said.clone()
    };
    let lines = read_until("SAW 1 1");
    assert!(has(&lines, "SAW 1 1"), "{lines:#?}");
    push(&fleet, "2");
    read_until("SAW 2 2");
    fleet.hosts[1].kill9();
    fleet.hosts[1].start();
    push(&fleet, "3");
    read_until("SAW 3 3");
    let lines = read_until("DONE");
    for word in ["SAW 1 1", "SAW 2 2", "SAW 3 3", "DONE"] {
        assert!(has(&lines, word), "{word}: {lines:#?}");
    }
    assert!(!lines.iter().any(|l| l.contains("CHANGED")), "{lines:#?}");
    assert_eq!(lines.iter().filter(|l| l.starts_with("refused")).count(), 30, "{lines:#?}");
    fleet.hosts[1].verify_store();
}

/// T110: systemd finds nothing wrong with the unit of virtiofsd and its drop-in, and rates it 2.0
/// at the most.
#[test]
fn t110_the_unit_of_virtiofsd_is_rated() {
    let dir = tempfile::tempdir().unwrap();
    let unit = dir.path().join("stork-virtiofsd@web-1.service");
    fs::copy(deploy("stork-virtiofsd@.service"), &unit).unwrap();
    let mut rate = Command::new("systemd-analyze");
    rate.args(["security", "--offline=true", "--threshold=20", "--no-pager"]);
    if run(rate.arg(&unit)).is_none() {
        return;
    }
    for old in [false, true] {
        let drops = dir.path().join("stork-virtiofsd@web-1.service.d");
        if old {
            fs::create_dir(&drops).unwrap();
            fs::copy(deploy("virtiofsd-qemu7.conf"), drops.join("old.conf")).unwrap();
        }
        let mut verify = Command::new("systemd-analyze");
        let said = verify.args(["verify", "--no-pager"]).arg(&unit).output().unwrap().stderr;
        let said = String::from_utf8_lossy(&said);
        // The other virtiofsd may not be here.
        let faults = said.lines().filter(|l| l.contains("stork-virtiofsd"));
        let faults: Vec<&str> = faults.filter(|l| !l.contains("is not executable")).collect();
        assert!(faults.is_empty(), "{faults:#?}");
    }
}
