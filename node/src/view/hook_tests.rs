//! Hooks: what they are told, how long they may take, and which are not run.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::hook::{HookEnv, HookError, OUTPUT_LEN_MAX, run_hook};

fn hook(folder: &Path, text: &str, mode: u32) -> PathBuf {
    let path = folder.join(format!("hook-{}", text.len()));
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(&path, mode).unwrap();
    path
}

/// A hook sees only what it is told, its output is bounded, and when its time is over it dies with
/// everything that it started.
#[test]
fn hooks() {
    let folder = tempfile::tempdir().unwrap();
    let (vm, target, set) = ("web".into(), "/t".into(), "abc".into());
    let env = HookEnv { vm, target, generation: 7, set, set_path: None };
    let second = Duration::from_secs(20);
    let run = |text: &str, time| run_hook(&hook(folder.path(), text, 0o755), &env, time).unwrap();
    let out =
        run("env | grep -v ^PWD | grep -v ^_ | grep -v SHLVL | sort; echo e >&2; exit 3", second);
    assert_eq!((out.code, out.timed_out, out.succeeded()), (Some(3), false, false));
    let lines: Vec<_> = out.output.lines().collect();
    assert_eq!(
        lines[1..],
        ["STORK_GENERATION=7", "STORK_SET=abc", "STORK_TARGET=/t", "STORK_VM=web", "e"]
    );
    assert!(lines[0].starts_with("PATH=/usr/local/sbin"));
    let out = run("yes | head -c 3000000; exit 0", second);
    assert_eq!(out.output.len(), OUTPUT_LEN_MAX);
    assert!(out.succeeded());
    let mark = folder.path().join("alive");
    let text = format!("(sleep 1; touch {}) & sleep 60", mark.display());
    let out = run(&text, Duration::from_millis(200));
    assert!(out.timed_out && !out.succeeded());
    std::thread::sleep(Duration::from_millis(1300));
    assert!(!mark.exists(), "what the hook started is dead too");
}

/// A server that a hook starts lives, also where its second process leaves the hook's group only
/// after the hook has ended, as those of nginx do; what stays in the group does not.
#[test]
fn servers_that_a_hook_starts() {
    let folder = tempfile::tempdir().unwrap();
    let (vm, target, set) = ("web".into(), "/t".into(), "abc".into());
    let env = HookEnv { vm, target, generation: 7, set, set_path: None };
    let run = |text: &str| {
        run_hook(&hook(folder.path(), text, 0o755), &env, Duration::from_secs(20)).unwrap()
    };
    let (server, stays) = (folder.path().join("server"), folder.path().join("stays"));
    let text = format!(
        "(sleep 0.3; exec setsid sh -c 'sleep 0.3; echo lives >{}') >/dev/null 2>&1 &",
        server.display()
    );
    assert!(run(&text).succeeded());
    let end = Instant::now() + Duration::from_secs(20);
    while std::fs::read(&server).ok().is_none_or(|text| text != b"lives\n") {
        assert!(Instant::now() < end, "the server is dead");
        std::thread::sleep(Duration::from_millis(20));
    }
    let text = format!("(echo $$ >{0}; exec sleep 600) >/dev/null 2>&1 &", stays.display());
    assert!(run(&text).succeeded());
    let group = std::fs::read_to_string(&stays).unwrap().trim().parse().unwrap();
    let group = rustix::process::Pid::from_raw(group).unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while rustix::process::test_kill_process_group(group).is_ok() {
        assert!(Instant::now() < end, "what a hook leaves in its group goes on");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A hook that others could change, or that is no program, is not run.
#[test]
fn hooks_that_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (vm, target, set) = ("web".into(), "/t".into(), "abc".into());
    let env = HookEnv { vm, target, generation: 7, set, set_path: None };
    let run = |path: &Path| run_hook(path, &env, Duration::from_secs(5));
    let paths = [
        PathBuf::from("relative"),
        hook(folder.path(), "x", 0o777),
        hook(folder.path(), "xx", 0o644),
        folder.path().to_owned(),
    ];
    for path in paths {
        assert!(matches!(run(&path), Err(HookError::Refused { .. })), "{path:?}");
    }
    let missing = run(&folder.path().join("missing"));
    assert!(matches!(missing, Err(HookError::Io { .. })), "{missing:?}");
}
