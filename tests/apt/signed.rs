//! Signatures that the programs of apt believe.

use std::fs;
use std::path::Path;
use std::process::Command;

use stork_node::apt::pgp::SigningKey;

use super::run;

/// The certificate in the binary form that gpgv wants.
fn keyring(dir: &Path, key: &SigningKey, name: &str) -> Option<std::path::PathBuf> {
    let (text, binary) = (dir.join(format!("{name}.asc")), dir.join(format!("{name}.gpg")));
    fs::write(&text, key.certificate()).unwrap();
    let mut gpg = Command::new("gpg");
    gpg.args(["--batch", "--homedir"]).arg(dir).arg("-o").arg(&binary).arg("--dearmor").arg(&text);
    run(&mut gpg).map(|_| binary)
}

/// gpgv (apt up to Debian 12) and sqv (Debian 13) take a signed text of many keys, and refuse it
/// with a letter changed or by another key; gpg reads fingerprint and owner out of the certificate.
#[test]
fn apts_programs_believe_it() {
    let dir = tempfile::tempdir().unwrap();
    let text = "Origin: stork\n- a line that begins with a dash\nSHA256:\n 00 1 Packages\n";
    // Numbers of a signature are shorter where they begin with zeros: many keys meet that.
    for seed in 0..60 {
        let key = SigningKey::new(&[seed; 32], "host-1");
        let Some(ring) = keyring(dir.path(), &key, &format!("k{seed}")) else { return };
        let signed = dir.path().join("InRelease");
        fs::write(&signed, key.clearsign(text)).unwrap();
        let gpgv = |file: &Path| {
            let mut gpgv = Command::new("gpgv");
            gpgv.arg("--homedir").arg(dir.path()).arg("--keyring").arg(&ring).arg(file);
            gpgv
        };
        if run(&mut gpgv(&signed)).is_none() {
            return;
        }
        let changed = dir.path().join("changed");
        fs::write(&changed, key.clearsign(text).replace("stork", "stark")).unwrap();
        assert!(!gpgv(&changed).output().unwrap().status.success());
        let other = SigningKey::new(&[99; 32], "host-2");
        fs::write(&changed, other.clearsign(text)).unwrap();
        assert!(!gpgv(&changed).output().unwrap().status.success());
        // The sqv of Debian 12 takes no cleartext; the end of the last line is not signed.
        let whole = fs::read_to_string(&signed).unwrap();
        let (_, signature) = whole.split_at(whole.find("-----BEGIN PGP SIGNATURE").unwrap());
        let detached = dir.path().join("Release.gpg");
        fs::write(&detached, signature).unwrap();
        let plain = dir.path().join("Release");
        fs::write(&plain, text.trim_end()).unwrap();
        let mut sqv = Command::new("sqv");
        sqv.arg("--keyring").arg(dir.path().join(format!("k{seed}.asc")));
        if run(sqv.arg(&detached).arg(&plain)).is_none() {
            return;
        }
    }
}

/// gpg shows the fingerprint that we compute, and the host's name.
#[test]
fn gpg_reads_the_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let key = SigningKey::new(&[3; 32], "host-1");
    let file = dir.path().join("key.asc");
    fs::write(&file, key.certificate()).unwrap();
    let mut gpg = Command::new("gpg");
    gpg.args(["--batch", "--with-colons", "--homedir"]).arg(dir.path());
    let Some(out) = run(gpg.args(["--show-keys"]).arg(&file)) else { return };
    let shown = String::from_utf8(out.stdout).unwrap();
    let fingerprint = stork_wire::ids::hex(&key.fingerprint()).to_uppercase();
    assert!(shown.contains(&fingerprint) && shown.contains("stork repositories of host-1"));
    // It signs and certifies, and nothing else.
    assert!(shown.lines().any(|l| l.starts_with("pub:") && l.contains(":scSC:")), "{shown}");
}
