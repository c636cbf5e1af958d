//! The ready-made hooks of deploy/hooks, run by the daemon's own runner: with programs that write
//! down how they were called, and with what they must refuse.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use stork_node::view::hook::{HookEnv, HookOutcome, run_hook};

/// A folder for one run: programs that the hook finds, its lists, and what was called.
struct Bench {
    dir: tempfile::TempDir,
}

fn script(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

impl Bench {
    fn new(units: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("lists")).unwrap();
        fs::write(dir.path().join("lists/web-1.units"), units).unwrap();
        let log = dir.path().join("calls");
        for program in ["systemctl", "incus", "virsh"] {
            let text = format!(
                "#!/bin/sh\ncat > /dev/null\necho {program} \"$@\" >> {}\n\
                 case \"$*\" in *broken*) exit 5 ;; esac\n",
                log.display()
            );
            script(&dir.path().join(program), &text);
        }
        Self { dir }
    }

    /// Runs a hook of the repository; a cover gives it what the daemon does not: where its lists
    /// and programs are.
    fn run(&self, hook: &str) -> HookOutcome {
        let hook: PathBuf =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/hooks").join(hook);
        let here = self.dir.path().display();
        let cover = self.dir.path().join("cover");
        let text = format!(
            "#!/bin/sh\nPATH={here}:$PATH STORK_HOOKS_DIR={here}/lists \
             STORK_SIGNALS_DIR={here}/signals exec {}\n",
            hook.display()
        );
        script(&cover, &text);
        let env = HookEnv {
            vm: "web-1".into(),
            target: "/srv/views/web-1/packages".into(),
            generation: 7,
            set: "ab12".into(),
            set_path: None,
        };
        run_hook(&cover, &env, Duration::from_secs(20)).unwrap()
    }

    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.path().join("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

/// Units are reloaded in the container, in the instance and by the agent, one after the other;
/// comments and empty lines are none.
#[test]
fn units_are_reloaded() {
    let list = "# a comment\n\nnginx.service\napp@2.service\n";
    for (hook, first) in [
        ("nspawn", "systemctl --machine=web-1 try-reload-or-restart -- nginx.service"),
        ("incus", "incus exec web-1 -- systemctl try-reload-or-restart -- nginx.service"),
        (
            "qemu-agent",
            "virsh qemu-agent-command web-1 {\"execute\":\"guest-exec\",\"arguments\":{\"path\":\
             \"systemctl\",\"arg\":[\"try-reload-or-restart\",\"--\",\"nginx.service\"]}}",
        ),
    ] {
        let bench = Bench::new(list);
        let out = bench.run(hook);
        assert!(out.succeeded(), "{hook}: {}", out.output);
        let calls = bench.calls();
        assert_eq!(calls.len(), 2, "{hook}: {calls:?}");
        assert_eq!(calls[0], first, "{hook}");
        assert!(calls[1].contains("app@2.service"), "{hook}");
    }
}

/// A unit that fails fails the hook, so that the view goes back; a VM without a list is content;
/// a name that would break out of the agent's JSON is refused.
#[test]
fn failures_are_failures() {
    for hook in ["nspawn", "incus", "qemu-agent"] {
        assert!(!Bench::new("broken.service\nnginx.service\n").run(hook).succeeded(), "{hook}");
        let bench = Bench::new("");
        fs::remove_file(bench.dir.path().join("lists/web-1.units")).unwrap();
        assert!(bench.run(hook).succeeded(), "{hook}");
        assert!(bench.calls().is_empty());
    }
    let bench = Bench::new("a\"],\"path\":\"/bin/rm\n");
    let out = bench.run("qemu-agent");
    assert!(!out.succeeded() && out.output.contains("no name of a unit"), "{}", out.output);
    assert!(bench.calls().is_empty());
}

/// The signal is one whole file, replaced by the next.
#[test]
fn the_signal_is_a_whole_file() {
    let bench = Bench::new("");
    for _ in 0..2 {
        let out = bench.run("signal-file");
        assert!(out.succeeded(), "{}", out.output);
    }
    let folder = bench.dir.path().join("signals");
    let text = fs::read_to_string(folder.join("web-1")).unwrap();
    assert_eq!(text, "generation=7\nset=ab12\ntarget=/srv/views/web-1/packages\n");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
}
