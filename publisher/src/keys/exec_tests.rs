//! Programs that sign: one that does as it should, and all the ways to fail.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::*;
use stork_wire::charter::PushCert;
use stork_wire::ids::{PublisherId, hex};
use tempfile::TempDir;

const FLEET: FleetId = FleetId([2; 32]);

/// A shell script that answers `key` and `sign` by these lines of shell.
fn program(dir: &Path, name: &str, key: &str, sign: &str) -> String {
    let path = dir.join(name);
    let text = format!(
        "#!/bin/sh\nread question\ncase \"$question\" in\n*'\"ask\":\"key\"'*) {key};;\n\
         *'\"ask\":\"sign\"'*) {sign};;\nesac\n"
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

fn cert(key: PublicKey) -> PushCert {
    PushCert { version: 1, tls_key: key, publisher: PublisherId([1; 32]), issued: 1, expires: 2 }
}

/// Opens a program that was just written: another test that forks at this moment may still hold it
/// open for writing, which the system refuses to run ("text file busy").
fn open(command: &str) -> Result<Exec, ExecError> {
    loop {
        match Exec::open(command) {
            Err(ExecError::Run { source, .. })
                if source.kind() == std::io::ErrorKind::ExecutableFileBusy => {}
            other => return other,
        }
    }
}

const LONG: Duration = Duration::from_secs(60);

/// A good program signs like a file. It is told what it signs and gets nothing of our environment.
#[test]
fn a_program_signs() {
    let dir = TempDir::new().unwrap();
    let secret = generate().unwrap();
    let body = cert(secret.public());
    let good = Signer::File(secret).sign(&body, FLEET).unwrap();
    let key = body.tls_key;
    let place = dir.path().display();
    let sign = format!(
        "echo \"$question\" > {place}/asked; env > {place}/env; echo \"$1\" > {place}/argument; \
         echo {}",
        hex(&good.signatures[0].signature.0)
    );
    let command = program(dir.path(), "signer", &format!("echo {key}"), &sign) + " slot-1";
    let signer = Signer::Exec(open(&command).unwrap());
    assert_eq!(signer.public(), key);
    assert_eq!(signer.sign(&body, FLEET).unwrap(), good);
    let asked = fs::read_to_string(dir.path().join("asked")).unwrap();
    let asked: serde_json::Value = serde_json::from_str(&asked).unwrap();
    assert_eq!(
        (&asked["context"], &asked["public_key"]),
        (&PushCert::CONTEXT.into(), &key.to_string().into())
    );
    assert_eq!(asked["body"], hex(&good.body));
    let message = signed_bytes(PushCert::CONTEXT, FLEET, &good.body);
    assert_eq!(
        (&asked["message"], &asked["fleet"]),
        (&hex(&message).into(), &FLEET.to_string().into())
    );
    assert_eq!(fs::read_to_string(dir.path().join("argument")).unwrap(), "slot-1\n");
    let env = fs::read_to_string(dir.path().join("env")).unwrap();
    assert!(!env.contains("CARGO") && !env.contains("HOME="), "{env}");
    let named = "exec:".to_owned() + &command;
    assert_eq!(Signer::open(&named, &Passphrase::None).unwrap().public(), key);
    assert!(!is_file_spec(&named));
}

/// A wrong signature never leaves here, and nothing that a program does hangs or fills memory.
#[test]
fn programs_that_fail() {
    let dir = TempDir::new().unwrap();
    let key = generate().unwrap().public();
    let good = format!("echo {key}");
    let sign = |name: &str, line: &str, wait: Duration| {
        let command = program(dir.path(), name, &good, line);
        // The key is asked for with enough time: only the signature is late.
        let signer = open(&command).unwrap().with_timeout(wait);
        Signer::Exec(signer).sign(&cert(key), FLEET).unwrap_err()
    };
    let wrong = sign("wrong", &format!("echo {}", "07".repeat(64)), LONG);
    assert!(matches!(wrong, SignError::Body(VerifyError::BadSignature)), "{wrong}");
    for (name, line) in [
        ("short", "echo 0707"),
        ("junk", "echo hello"),
        ("silent", "true"),
        ("flood", "cat /dev/zero"),
        ("bytes", "printf '\\377\\376'"),
    ] {
        let e = sign(name, line, LONG);
        assert!(matches!(e, SignError::Exec(ExecError::Malformed { .. })), "{name}: {e}");
    }
    let e = sign("refuses", "exit 3", LONG);
    assert!(matches!(e, SignError::Exec(ExecError::Failed { .. })) && e.exit() == 1, "{e}");
    let begun = Instant::now();
    for (name, line) in [("hangs", "sleep 30"), ("closes", "exec >&-; sleep 30")] {
        let e = sign(name, line, Duration::from_millis(300));
        assert!(matches!(e, SignError::Exec(ExecError::TimedOut(_))) && e.exit() == 6, "{e}");
    }
    assert!(begun.elapsed() < Duration::from_secs(20));
    for (command, code) in [("", 2), ("signer", 2), ("/nowhere/signer", 5), ("/etc/passwd", 77)] {
        let e = Exec::open(command).unwrap_err();
        assert_eq!(e.exit(), code, "{e}");
    }
    // A weak key is no key.
    let weak = format!("echo 01{}", "00".repeat(31));
    let command = program(dir.path(), "weak", &weak, "true");
    assert!(matches!(open(&command), Err(ExecError::Malformed { .. })));
}
