//! Delivery by others: two BitTorrent clients as they come from Debian, and the chain. Each host
//! tells by a file that its copy is whole.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use stork_tests::lab::wait_every;

use super::Method;
use super::bed::Bed;
use super::crew::Crew;
use super::tools::{mark, marked, now_ms, output};

/// Bytes of a piece: small, as these swarms pass on whole pieces only.
const PIECE: u64 = 256 * 1024;
const TRACKER_PORT: u16 = 6969;
const PEER_PORT: u16 = 6881;
const CHAIN_PORT: u16 = 7000;
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The peer of libtorrent, which is a library.
const PEER: &str = include_str!("peer.py");
/// Debian's own, whose packages hold libtorrent, whatever else is called python3.
const PYTHON: &str = "/usr/bin/python3";

/// Why a method cannot be run here, if it cannot.
pub(crate) fn missing(method: Method) -> Option<&'static str> {
    let runs = |program: &str, args: &[&str]| {
        Command::new(program).args(args).output().is_ok_and(|o| o.status.success())
    };
    match method {
        Method::Aria2 if !runs("aria2c", &["--version"]) => {
            Some("aria2c is missing: apt-get install aria2")
        }
        Method::Libtorrent if !runs(PYTHON, &["-c", "import libtorrent"]) => {
            Some("libtorrent is missing: apt-get install python3-libtorrent")
        }
        _ => None,
    }
}

/// Processes of a rival, ready to begin.
#[derive(Debug)]
pub(crate) struct Rival<'a> {
    method: Method,
    bed: &'a Bed,
    dir: PathBuf,
    content: PathBuf,
}

impl<'a> Rival<'a> {
    /// Starts what may run before the delivery begins. `content` is the file, of the name
    /// [`super::DATA`].
    pub(crate) async fn prepare(
        method: Method,
        bed: &'a Bed,
        (dir, content): (&Path, &Path),
        crew: &mut Crew,
    ) -> Result<Self> {
        let (dir, content) = (dir.to_owned(), content.to_owned());
        let rival = Self { method, bed, dir, content };
        for node in 0..=bed.shape.hosts {
            std::fs::create_dir_all(rival.home(node))?;
        }
        if method == Method::Chain {
            rival.chain(crew).await?;
            return Ok(rival);
        }
        let listen = format!("{}:{TRACKER_PORT}", bed.ip(0));
        let ready = rival.dir.join("tracker");
        let mut tracker = bed.command(0, &std::env::current_exe()?);
        tracker.args(["helper", "tracker", "--listen", &listen, "--ready"]).arg(&ready);
        crew.start(0, &mut tracker, &rival.home(0))?;
        await_mark(&ready).await?;
        rival.write_torrent()?;
        if method == Method::Aria2 {
            let hook = "#!/bin/sh\nd=$(dirname \"$3\")\ndate +%s.%N >$d/new && mv $d/new $d/done\n";
            let path = rival.dir.join("hook");
            std::fs::write(&path, hook)?;
            output(Command::new("chmod").arg("+x").arg(&path))?;
            std::fs::hard_link(&rival.content, rival.file(0))?;
            crew.start(0, rival.aria2(0).arg("--check-integrity=true"), &rival.home(0))?;
            // It says when it has checked its own copy.
            await_mark(&rival.mark(0, "done")).await?;
        } else {
            std::fs::write(rival.dir.join("peer.py"), PEER)?;
            std::fs::hard_link(&rival.content, rival.file(0))?;
            for node in 0..=bed.shape.hosts {
                crew.start(node, &mut rival.libtorrent(node), &rival.home(node))?;
                await_mark(&rival.mark(node, "ready")).await?;
            }
        }
        Ok(rival)
    }

    fn home(&self, node: usize) -> PathBuf {
        self.dir.join(Bed::who(node))
    }

    fn mark(&self, node: usize, name: &str) -> PathBuf {
        self.home(node).join(name)
    }

    fn torrent(&self) -> PathBuf {
        self.dir.join("torrent")
    }

    /// The copy of a node.
    pub(crate) fn file(&self, node: usize) -> PathBuf {
        self.home(node).join(super::DATA)
    }

    /// When a host had its copy.
    pub(crate) fn done(&self, node: usize) -> Option<u64> {
        marked(&self.mark(node, "done"))
    }

    /// Lets it begin; returns when.
    pub(crate) fn begin(&self, crew: &mut Crew) -> Result<u64> {
        let now = now_ms();
        match self.method {
            Method::Chain => {
                let mut head = self.hop(0)?;
                head.args(["--next", &format!("{}:{CHAIN_PORT}", self.bed.ip(1))]);
                crew.start(0, &mut head, &self.home(0))?;
            }
            Method::Aria2 => {
                for node in 1..=self.bed.shape.hosts {
                    crew.start(node, &mut self.aria2(node), &self.home(node))?;
                }
            }
            Method::Libtorrent | Method::Stork => mark(&self.dir.join("go"))?,
        }
        Ok(now)
    }

    fn write_torrent(&self) -> Result<()> {
        let len = self.content.metadata()?.len();
        let mut split = Command::new("split");
        split.args(["-b", &PIECE.to_string(), "--filter=sha1sum"]).arg(&self.content);
        let mut hashes = Vec::new();
        for line in output(&mut split)?.lines() {
            for i in (0..40).step_by(2) {
                let digits = line.get(i..i + 2).context("sha1sum prints no hash")?;
                hashes.push(u8::from_str_radix(digits, 16)?);
            }
        }
        let url = format!("http://{}:{TRACKER_PORT}/announce", self.bed.ip(0));
        let (name, count) = (super::DATA, hashes.len());
        let mut torrent = format!(
            "d8:announce{}:{url}4:infod6:lengthi{len}e4:name{}:{name}12:piece lengthi{PIECE}e\
             6:pieces{count}:",
            url.len(),
            name.len()
        )
        .into_bytes();
        torrent.extend(hashes);
        torrent.extend(b"ee");
        Ok(std::fs::write(self.torrent(), torrent)?)
    }

    fn aria2(&self, node: usize) -> Command {
        let mut command = self.bed.command(node, Path::new("aria2c"));
        command.args(["--no-conf", "--disable-ipv6", "--enable-dht=false", "--enable-dht6=false"]);
        command.args(["--bt-enable-lpd=false", "--seed-ratio=0", "--seed-time=99999"]);
        command.args(["--summary-interval=0", "--console-log-level=warn"]);
        command.arg("--file-allocation=none").arg(format!("--listen-port={PEER_PORT}"));
        command.arg(format!("--dir={}", self.home(node).display()));
        let hook = self.dir.join("hook");
        command.arg(format!("--on-bt-download-complete={}", hook.display()));
        command.arg(self.torrent());
        command
    }

    fn libtorrent(&self, node: usize) -> Command {
        let mut command = self.bed.command(node, Path::new(PYTHON));
        command.arg(self.dir.join("peer.py"));
        command.arg(if node == 0 { "seed" } else { "fetch" });
        command.arg(self.torrent()).arg(self.home(node)).arg(self.bed.ip(node));
        command.arg(self.mark(node, "ready")).arg(self.dir.join("go"));
        command.arg(self.mark(node, "done"));
        command
    }

    fn hop(&self, node: usize) -> Result<Command> {
        let mut command = self.bed.command(node, &std::env::current_exe()?);
        let file = if node == 0 { self.content.clone() } else { self.file(node) };
        command.args(["helper", "chain", "--file"]).arg(file);
        command.arg("--ready").arg(self.mark(node, "ready"));
        command.arg("--done").arg(self.mark(node, "done"));
        Ok(command)
    }

    /// The last host first, so that everyone finds the next one listening.
    async fn chain(&self, crew: &mut Crew) -> Result<()> {
        let hosts = self.bed.shape.hosts;
        for node in (1..=hosts).rev() {
            let mut hop = self.hop(node)?;
            hop.args(["--listen", &format!("{}:{CHAIN_PORT}", self.bed.ip(node))]);
            if node < hosts {
                hop.args(["--next", &format!("{}:{CHAIN_PORT}", self.bed.ip(node + 1))]);
            }
            crew.start(node, &mut hop, &self.home(node))?;
            await_mark(&self.mark(node, "ready")).await?;
        }
        Ok(())
    }
}

async fn await_mark(path: &Path) -> Result<u64> {
    let what = format!("{} (see the log beside it)", path.display());
    wait_every(LOOK_EVERY, &what, PATIENCE, || async { marked(path) }).await
}
