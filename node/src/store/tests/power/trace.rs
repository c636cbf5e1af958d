//! What a process asked of the disk: a log of `strace`, read back.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Calls that change a disk, or wait for it.
const CALLS: &str = "openat,write,pwrite64,ftruncate,fallocate,copy_file_range,sendfile,mkdir,\
                     mkdirat,mknodat,link,linkat,symlink,symlinkat,rename,renameat,renameat2,\
                     unlink,unlinkat,rmdir,fsync,fdatasync,chmod,fchmod,fchmodat,utimensat,statx";

/// One call that went well.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) name: String,
    args: Vec<String>,
    pub(super) result: usize,
}

fn bytes_of(text: &str) -> Vec<u8> {
    let digits = text.split("\\x").skip(1);
    digits.map(|d| u8::from_str_radix(d.get(..2).unwrap(), 16).unwrap()).collect()
}

fn between(text: &str, open: char, close: char) -> Option<&str> {
    Some(text.split_once(open)?.1.rsplit_once(close)?.0)
}

impl Call {
    /// The bytes of a quoted argument.
    pub(super) fn bytes(&self, i: usize) -> Vec<u8> {
        bytes_of(between(&self.args[i], '"', '"').unwrap_or(""))
    }

    fn text(&self, i: usize) -> String {
        String::from_utf8(self.bytes(i)).unwrap()
    }

    /// The path behind a descriptor.
    pub(super) fn fd(&self, i: usize) -> String {
        String::from_utf8(bytes_of(between(&self.args[i], '<', '>').unwrap_or(""))).unwrap()
    }

    /// The path of a name relative to a folder, or of a name alone.
    pub(super) fn path(&self, folder: Option<usize>, name: usize) -> String {
        let name = self.text(name);
        match folder {
            Some(folder) if !name.starts_with('/') => format!("{}/{name}", self.fd(folder)),
            _ => name,
        }
    }

    /// What a symbolic link leads to, as it was written.
    pub(super) fn target(&self, i: usize) -> String {
        self.text(i)
    }

    pub(super) fn number(&self, i: usize) -> usize {
        let text = &self.args[i];
        if let Some(octal) = text.strip_prefix('0').filter(|t| !t.is_empty()) {
            return usize::from_str_radix(octal, 8).unwrap();
        }
        text.parse().unwrap()
    }

    pub(super) fn has(&self, i: usize, flag: &str) -> bool {
        self.args.get(i).is_some_and(|a| a.split('|').any(|f| f == flag))
    }

    /// The inode that the system told of.
    pub(super) fn told_ino(&self) -> Option<u64> {
        let text = self.args.last()?.split_once("stx_ino=")?.1;
        text.split([',', '}']).next()?.parse().ok()
    }

    /// The later of two times, in seconds.
    pub(super) fn mtime(&self, i: usize) -> Option<i64> {
        let text = self.args[i].rsplit_once("tv_sec=")?.1;
        text.split([',', ' ', '}']).next()?.parse().ok()
    }
}

/// Splits arguments at commas that stand in no brackets.
fn split(text: &str) -> Vec<String> {
    let (mut out, mut depth) = (vec![String::new()], 0);
    for c in text.chars() {
        match c {
            '[' | '{' | '<' => depth += 1,
            ']' | '}' | '>' => depth -= 1,
            ',' if depth == 0 => {
                out.push(String::new());
                continue;
            }
            _ => {}
        }
        out.last_mut().unwrap().push(c);
    }
    out.into_iter().map(|a| a.trim().to_owned()).collect()
}

fn parse(line: &str) -> Option<Call> {
    let (call, result) = line.rsplit_once(" = ")?;
    let (name, rest) = call.split_once('(')?;
    let args = rest.trim_end().strip_suffix(')')?;
    // A call that failed changed nothing.
    let result = result.split(['<', ' ']).next()?.parse().ok()?;
    Some(Call { name: name.to_owned(), args: split(args), result })
}

/// Reads a log: calls in the order in which they ended, of all threads.
fn read(text: &str) -> Vec<Call> {
    let mut begun: BTreeMap<&str, String> = BTreeMap::new();
    let mut out = Vec::new();
    for line in text.lines() {
        let Some((pid, line)) = line.split_once(' ') else { continue };
        let line = line.trim_start();
        if let Some(start) = line.strip_suffix("<unfinished ...>") {
            begun.insert(pid, start.trim_end().to_owned());
            continue;
        }
        let whole = match line.split_once(" resumed>") {
            Some((_, end)) => begun.remove(pid).unwrap_or_default() + end,
            None => line.to_owned(),
        };
        out.extend(parse(&whole));
    }
    out
}

/// Runs a command under `strace`, which must end well; the variable names what it does. `fault`
/// is a call that fails, in the words of `strace`.
pub(super) fn record(
    log: &Path,
    args: &[&str],
    variable: (&str, &str),
    fault: Option<&str>,
) -> Vec<Call> {
    let mut command = Command::new("strace");
    command.args(fault.iter().flat_map(|f| ["-e".to_owned(), format!("inject={f}")]));
    command.args([
        "-f",
        "-v",
        "-y",
        "-xx",
        "-s",
        "16777216",
        "-e",
        &format!("trace={CALLS}"),
        "-o",
    ]);
    command.arg(log).arg(std::env::current_exe().unwrap()).args(args);
    let out = command.env(variable.0, variable.1).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{said}{}", String::from_utf8_lossy(&out.stderr));
    read(&std::fs::read_to_string(log).unwrap())
}
