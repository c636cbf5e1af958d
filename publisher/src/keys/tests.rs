//! Keys against the real tools: what ssh-keygen makes is read, what is made here is read by
//! ssh-keygen, and a real ssh-agent signs.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::*;
use stork_wire::charter::PushCert;
use stork_wire::ids::PublisherId;
use tempfile::TempDir;

/// Runs a tool; `None` (with the reason printed) where it is not installed.
fn run(tool: &str, args: &[&str], env: &[(&str, &Path)]) -> Option<String> {
    let mut command = Command::new(tool);
    command.args(args).envs(env.iter().map(|(k, v)| (*k, v.as_os_str()))).stdin(Stdio::null());
    match command.output() {
        Ok(out) => {
            assert!(out.status.success(), "{tool}: {}", String::from_utf8_lossy(&out.stderr));
            Some(String::from_utf8(out.stdout).unwrap())
        }
        Err(e) => {
            println!("skipped: {tool}: {e}");
            None
        }
    }
}

fn secret_file(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join("passphrase");
    std::fs::write(&path, format!("{text}\n")).unwrap();
    path
}

/// A key of ssh-keygen opens, in the clear and encrypted; a wrong passphrase and none are told
/// apart.
#[test]
fn reads_what_ssh_keygen_makes() {
    let dir = TempDir::new().unwrap();
    let (plain, locked) = (dir.path().join("plain"), dir.path().join("locked"));
    let args = |file: &Path, phrase: &str| {
        let file = file.to_str().unwrap();
        ["-q", "-t", "ed25519", "-N", phrase, "-C", "me", "-f", file].map(str::to_owned)
    };
    for (file, phrase) in [(&plain, ""), (&locked, "correct horse")] {
        let args = args(file, phrase);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        if run("ssh-keygen", &args, &[]).is_none() {
            return;
        }
    }
    let key = read_secret(&plain, &Passphrase::None).unwrap();
    assert_eq!(read_public(&dir.path().join("plain.pub")).unwrap(), (key.public(), "me".into()));
    let listed = run("ssh-keygen", &["-l", "-f", plain.to_str().unwrap()], &[]).unwrap();
    assert!(listed.contains(&fingerprint(&key.public())), "{listed}");

    let good = Passphrase::File(secret_file(dir.path(), "correct horse"));
    let key = read_secret(&locked, &good).unwrap();
    assert_eq!(read_public(&locked).unwrap().0, key.public());
    let e = read_secret(&locked, &Passphrase::None).unwrap_err();
    assert!(matches!(e, KeyError::NoPassphrase(_)) && e.exit() == 78);
    let bad = Passphrase::File(secret_file(dir.path(), "wrong"));
    assert!(matches!(read_secret(&locked, &bad), Err(KeyError::WrongPassphrase(_))));
}

/// What is written here is a key to ssh-keygen, is private, and is never overwritten.
#[test]
fn writes_what_ssh_keygen_reads() {
    let dir = TempDir::new().unwrap();
    for (name, phrase) in [("a", None), ("b", Some("battery staple"))] {
        let path = dir.path().join(name);
        let key = generate().unwrap();
        write_key(&path, &key, "release", phrase).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let secret =
            phrase.map_or(Passphrase::None, |p| Passphrase::File(secret_file(dir.path(), p)));
        assert_eq!(read_secret(&path, &secret).unwrap().public(), key.public());
        let e = write_key(&path, &key, "release", phrase).unwrap_err();
        assert!(matches!(e, KeyError::Exists(_)));
        let args = ["-y", "-P", phrase.unwrap_or(""), "-f", path.to_str().unwrap()];
        if let Some(public) = run("ssh-keygen", &args, &[]) {
            let ours = std::fs::read_to_string(dir.path().join(format!("{name}.pub"))).unwrap();
            assert_eq!(ours.trim(), public.trim());
        }
    }
}

/// A key that others can read is refused with the command that mends it.
#[test]
fn open_files_are_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("k");
    write_key(&path, &generate().unwrap(), "", None).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let e = read_secret(&path, &Passphrase::None).unwrap_err();
    assert!(matches!(e, KeyError::TooOpen { mode: 0o640, .. }));
    assert!(e.help().starts_with("chmod 600"));
    assert_eq!(e.exit(), 77);
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A real agent lists its keys and signs our bytes; the signature verifies like one of a file.
#[test]
fn a_real_agent_signs() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("agent");
    let mut agent = Command::new("ssh-agent");
    agent.args(["-D", "-a"]).arg(&socket).stdin(Stdio::null()).stdout(Stdio::null());
    let _agent = match agent.spawn() {
        Ok(child) => Running(child),
        Err(e) => {
            println!("skipped: ssh-agent: {e}");
            return;
        }
    };
    for _ in 0..200 {
        if socket.exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let env: [(&str, &Path); 1] = [("SSH_AUTH_SOCK", &socket)];
    let keys: Vec<_> = (0..2)
        .map(|i| {
            let path = dir.path().join(format!("k{i}"));
            let key = generate().unwrap();
            write_key(&path, &key, "agent", None).unwrap();
            (path, key.public())
        })
        .collect();
    assert!(matches!(Agent::open_at(socket.clone(), ""), Err(AgentError::NoKey(_))));
    if run("ssh-add", &["-q", keys[0].0.to_str().unwrap()], &env).is_none() {
        return;
    }
    let only = Agent::open_at(socket.clone(), "").unwrap();
    assert_eq!(only.public(), keys[0].1);
    run("ssh-add", &["-q", keys[1].0.to_str().unwrap()], &env).unwrap();
    assert!(matches!(Agent::open_at(socket.clone(), ""), Err(AgentError::Several(_))));
    let named = Agent::open_at(socket, &fingerprint(&keys[1].1)).unwrap();
    let cert = PushCert {
        version: 1,
        tls_key: keys[0].1,
        publisher: PublisherId([1; 32]),
        issued: 1,
        expires: 2,
    };
    let fleet = FleetId([2; 32]);
    let envelope = Signer::Agent(named).sign(&cert, fleet).unwrap();
    assert_eq!(envelope.verify::<PushCert>(fleet, &[keys[1].1], 1).unwrap().body(), &cert);
}

/// An agent that says nothing sensible is an error, not a hang or a crash.
#[test]
fn hostile_agents() {
    use std::io::{Read, Write};
    for answer in [
        &[0, 0, 0, 0][..],
        &[0xff, 0xff, 0xff, 0xff, 12],
        &[0, 0, 0, 5, 12, 0, 0, 0, 9],
        &[0, 0, 0, 1, 5],
        &[0, 0],
    ] {
        let dir = TempDir::new().unwrap();
        let socket = dir.path().join("agent");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let answer = answer.to_vec();
        let thread = std::thread::spawn(move || {
            let (mut s, _) = listener.accept().unwrap();
            s.read_exact(&mut [0; 5]).unwrap();
            s.write_all(&answer).unwrap();
        });
        assert!(Agent::open_at(socket, "").is_err());
        thread.join().unwrap();
    }
}

/// What to do about a key that cannot be read fits the cause, and not the option that named it; a
/// passphrase file is no key.
#[test]
fn what_cannot_be_read_says_why() {
    let dir = TempDir::new().unwrap();
    let missing = read_public(&dir.path().join("beacon.pub")).unwrap_err();
    assert!(missing.help().starts_with("correct that name"), "{}", missing.help());
    let path = dir.path().join("key");
    let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
    let full = KeyError::Write { path: path.clone(), source };
    assert!(full.help().starts_with("make room"), "{}", full.help());
    let source = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
    let refused = KeyError::Read { path: path.clone(), source };
    assert!(refused.help().contains(path.to_str().unwrap()), "{}", refused.help());
    write_key(&path, &generate().unwrap(), "me", Some("secret")).unwrap();
    let e = read_secret(&path, &Passphrase::File(dir.path().join("none"))).unwrap_err();
    assert!(matches!(e, KeyError::ReadPassphrase { .. }), "{e}");
    assert_eq!((e.exit(), missing.exit(), refused.exit()), (5, 5, 77));
}
