//! moto, an S3 server of other people, in Python. It is installed into a folder of the build; where
//! that cannot be done, its test says why and is skipped.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use stork_tests::wait::wait_until;

use super::Place;

const VERSION: &str = "moto[server]==5.2.5";
const BUCKET: &str = "fleet";

/// A running server, which ends with this.
pub(crate) struct Moto {
    child: Child,
    addr: SocketAddr,
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn run(program: &Path, args: &[&str]) -> Result<(), String> {
    let out = Command::new(program).args(args).output();
    let out = out.map_err(|e| format!("{}: {e}", program.display()))?;
    if out.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&out.stderr);
    let last = text.lines().last().unwrap_or_default();
    Err(format!("{} {args:?}: {last}", program.display()))
}

/// The server's program, installed if need be.
fn program() -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("moto");
    let program = folder.join("bin/moto_server");
    if !program.exists() {
        // Made beside its place, so that a try that was cut off is none.
        drop(std::fs::remove_dir_all(&folder));
        run(Path::new("python3"), &["-m", "venv", &folder.display().to_string()])?;
        run(&folder.join("bin/pip"), &["install", "--quiet", VERSION])?;
    }
    Ok(program)
}

impl Moto {
    pub(crate) fn start() -> Result<Self, String> {
        let program = program()?;
        let addr = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).unwrap();
        let child = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", &addr.port().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| e.to_string())?;
        let moto = Self { child, addr };
        wait_until("moto to answer", || TcpStream::connect(addr).is_ok());
        moto.make_bucket();
        Ok(moto)
    }

    fn make_bucket(&self) {
        let mut stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let host = self.addr;
        let text = format!(
            "PUT /{BUCKET} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\
             Connection: close\r\n\r\n"
        );
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    pub(crate) fn place(&self) -> Place {
        let settings = format!(
            "AWS_ACCESS_KEY_ID=testing\nAWS_SECRET_ACCESS_KEY=testing-secret\n\
             AWS_REGION=us-east-1\nAWS_ENDPOINT_URL=http://{}\nAWS_ALLOW_HTTP=true\n",
            self.addr
        );
        Place::new(&format!("s3://{BUCKET}/a/b"), Some(&settings))
    }
}
