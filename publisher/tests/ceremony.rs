//! The commands of docs/CEREMONY.md, as they stand there, by the built program: each person has a
//! directory and a passphrase, and only public files travel on the stick.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of a test, outside of functions marked as tests"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

const PAGE: &str = include_str!("../../docs/CEREMONY.md");
const PEOPLE: [&str; 4] = ["alice", "bob", "carol", "tools"];

struct World(TempDir);

impl World {
    fn new() -> Self {
        let world = Self(TempDir::new().unwrap());
        for name in PEOPLE.into_iter().chain(["stick"]) {
            fs::create_dir(world.home(name)).unwrap();
            fs::write(world.home(name).join("phrase"), format!("{name} has a phrase\n")).unwrap();
        }
        fs::remove_file(world.home("stick").join("phrase")).unwrap();
        world
    }

    fn home(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs the program as somebody.
    fn publish(&self, who: &str, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stork-publish"));
        command.args(words).current_dir(self.home(who));
        for variable in ["STORK_CHARTER", "STORK_PUBLISH_KEY", "SSH_AUTH_SOCK"] {
            command.env_remove(variable);
        }
        command.env("STORK_PASSPHRASE_FILE", "phrase").stdin(std::process::Stdio::null());
        command.output().unwrap()
    }

    /// Runs one line of the page.
    fn line(&self, line: &str) {
        let (who, line) = line.split_once("$ ").unwrap();
        assert!(PEOPLE.contains(&who), "{who} has no directory here");
        let hash = "ab".repeat(32);
        let plain = line.replace('\'', "");
        let mut words: Vec<&str> =
            plain.split_whitespace().map(|w| if w == "HASH" { &hash } else { w }).collect();
        match words.remove(0) {
            "mkdir" => fs::create_dir(self.home(who).join(words[0])).unwrap(),
            "cp" => {
                let home = self.home(who);
                fs::copy(home.join(words[0]), home.join(words[1])).unwrap();
            }
            "stork-publish" => {
                // There is no terminal to type `yes` at.
                if words[..2] == ["charter", "sign"] && !words.contains(&"--dry-run") {
                    let out = self.publish(who, &words);
                    assert_eq!(out.status.code(), Some(2), "signed without being asked");
                    words.push("--yes");
                }
                let out = self.publish(who, &words);
                let said = String::from_utf8_lossy(&out.stderr).into_owned();
                assert!(out.status.success(), "{who}$ {line}\n{said}");
            }
            other => panic!("the page uses `{other}`, which is not known here"),
        }
    }

    fn json(&self, who: &str, words: &[&str]) -> serde_json::Value {
        let out = self.publish(who, words);
        assert!(out.status.success(), "{words:?}: {}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_slice(&out.stdout).unwrap()
    }
}

/// The lines of one section that are to be typed.
fn section(title: &str) -> Vec<&'static str> {
    let from = PAGE.split(&format!("\n## {title}\n")).nth(1).unwrap();
    let section = from.split("\n## ").next().unwrap();
    let blocks = section.split("```console\n").skip(1).map(|b| b.split("```").next().unwrap());
    blocks.flat_map(str::lines).collect()
}

/// Everything below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    entries.flat_map(|p| if p.is_dir() { files(&p) } else { vec![p] }).collect()
}

fn is_private(path: &Path) -> bool {
    fs::read(path).unwrap().starts_with(b"-----BEGIN")
}

/// No private key is on the stick, and none lies in two directories.
fn check_keys(world: &World) {
    assert!(!files(&world.home("stick")).iter().any(|f| is_private(f)), "a private key travels");
    let mut seen = BTreeSet::new();
    for who in PEOPLE {
        for file in files(&world.home(who)).into_iter().filter(|f| is_private(f)) {
            assert!(seen.insert(fs::read(&file).unwrap()), "{} is a copy", file.display());
        }
    }
    assert!(seen.len() >= 9, "{}", seen.len());
}

/// The page from its first command to its last. In between: what has too few signatures does not
/// hold, and what was not signed by the right people is refused.
#[test]
fn the_page_is_played() {
    let world = World::new();
    let play = |title: &str| {
        let lines = section(title);
        assert!(!lines.is_empty(), "nothing to type under `{title}`");
        lines.into_iter().for_each(|l| world.line(l));
    };
    let founding = section("Founding, 2 of 3");
    let signs = founding.iter().position(|l| l.contains("charter sign")).unwrap();
    founding[..signs].iter().for_each(|l| world.line(l));
    let early = ["charter", "import", "../stick/founding.req", "--charter", "charter"];
    let out = world.publish("alice", &early);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(4), "{said}");
    assert!(said.contains("1 more of the root of document 1 (2 of 3 keys)"), "{said}");
    assert!(!world.home("alice").join("charter/charter.bundle").exists());
    founding[signs..].iter().for_each(|l| world.line(l));
    assert_eq!(world.publish("alice", &early).status.code(), Some(0), "already so");

    play("A new publisher");
    let show = |who: &str| world.json(who, &["charter", "show", "charter", "--json"]);
    let names = show("alice")["publishers"].as_object().unwrap().len();
    assert_eq!((names, &show("alice")["groups"]), (2, &show("tools")["groups"]));

    let before = show("alice");
    play("Every year: renewal");
    assert!(show("alice")["root"]["expires"].as_u64() > before["root"]["expires"].as_u64());
    play("Somebody leaves, or a root key is lost");
    let root = show("alice")["root"]["root"].clone();
    assert_eq!((root["threshold"].as_u64(), root["keys"].as_array().unwrap().len()), (Some(2), 3));
    // Carol is no signer any more: the next change is none of hers.
    let out = world.publish(
        "alice",
        &["charter", "rotate", "root", "--threshold", "3", "--charter", "charter"],
    );
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let file = "../alice/charter/pending/root-4.req";
    fs::copy(
        world.home("alice").join("charter/charter.bundle"),
        world.home("carol").join("charter/charter.bundle"),
    )
    .unwrap();
    let sign = ["charter", "sign", file, "--charter", "charter", "--key", "root", "--yes"];
    assert_eq!(world.publish("carol", &sign).status.code(), Some(4));

    play("A stolen release key");
    let tools = show("tools")["publishers"].clone();
    let doc = tools.as_object().unwrap().values().find(|d| d["name"] == "tools").unwrap();
    assert_eq!((&doc["epoch"], &doc["survivor"]["at"]["seq"]), (&2.into(), &41.into()));
    assert_eq!(doc["release_keys"].as_array().unwrap().len(), 1);
    let verified = world.json("tools", &["charter", "verify", "charter", "--json"]);
    assert_eq!(verified["faults"], serde_json::json!([]));
    check_keys(&world);
}
