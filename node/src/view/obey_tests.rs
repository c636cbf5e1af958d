//! What the view helper does for whoever gives it orders, a daemon that was taken over perhaps.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use stork_wire::codec::List;

use super::order::{Answer, Order, Shows, What};
use super::tests::{World, in_namespace, which, world};
use super::*;
use crate::catalog::VmFile;
use crate::store::tests::support::root_or_skip;

fn file(w: &World, backend: &str, more: &str) -> VmFile {
    let target = w.spec(Backend::Tree).target;
    let text = format!(
        "[vm]\ngroups = [\"web\"]\n[view]\nbackend = \"{backend}\"\ntarget = {target:?}\n{more}"
    );
    VmFile::parse("web-1", &text).unwrap()
}

fn order(file: &VmFile, what: What) -> Order {
    let (vm, backend, target) = (file.name.clone(), file.backend, file.target.clone());
    Order { vm, backend, target, secret: [7; 32], what }
}

fn switch(set: SetId, number: u64) -> What {
    let next = Shows { number, set, from: number.checked_sub(1).filter(|n| *n > 0) };
    let from = next.from.map(|number| Shows { number, set, from: None });
    What::Switch { next, from, needs: (true, true), manifests: List::default() }
}

fn refused(answer: &Answer, because: &str) {
    let Answer::Failed(why, help) = answer else { panic!("{answer:?}") };
    assert!(why.contains(because), "{why}, {help}");
}

/// The helper does what the VM's file says, whatever else an order says; a set's claim to setuid
/// files and devices counts only where the file grants it.
#[test]
fn orders_do_what_the_file_says() {
    if !root_or_skip("mounting") {
        return;
    }
    in_namespace(|| {
        let w = world();
        let file = file(&w, "tree", "");
        let set = w.sets[0].id;
        w.store.vm_dir(&file.name).unwrap();
        let give = |what| obey(w.store.dir(), &file, &order(&file, what));
        assert_eq!(give(What::Check), Answer::Done);
        assert_eq!(give(What::Shown), Answer::Shown(None));
        assert_eq!(give(switch(set, 1)), Answer::Done);
        assert_eq!(which(&file.target).unwrap(), "a");
        let flags = rustix::fs::statvfs(&file.target).unwrap().f_flag;
        for flag in ["RDONLY", "NOSUID", "NODEV"] {
            let flag = rustix::fs::StatVfsMountFlags::from_name(flag).unwrap();
            assert!(flags.contains(flag), "{flag:?}");
        }
        let Answer::Shown(Some(seen)) = give(What::Shown) else { panic!("it is shown") };
        assert_eq!(seen.set, set);
        let shows = Shows { number: 1, set, from: None };
        assert_eq!(give(What::InUse(shows)), Answer::Is(true));
        assert_eq!(give(What::Number(7)), Answer::Done);
        let number = file.target.with_file_name("rootfs.generation");
        assert_eq!(fs::read_to_string(&number).unwrap(), "7\n");
        // Another place, another way, no set at all.
        let elsewhere = Order { target: "/etc".into(), ..order(&file, switch(set, 2)) };
        refused(&obey(w.store.dir(), &file, &elsewhere), "has just changed");
        let links = Order { backend: Backend::Hardlink, ..order(&file, switch(set, 2)) };
        refused(&obey(w.store.dir(), &file, &links), "has just changed");
        refused(&give(switch(SetId([9; 32]), 2)), "no longer in the store");
        assert_eq!(which(&file.target).unwrap(), "a");
        assert_eq!(give(What::Hide), Answer::Done);
        assert!(which(&file.target).is_err() && !number.exists());
    });
}

/// Whoever may write into the state folder plants links where the helper goes: it goes nowhere.
#[test]
fn links_in_the_store_lead_nowhere() {
    if !root_or_skip("mounting") {
        return;
    }
    in_namespace(|| {
        let w = world();
        let precious = w.folder.path().join("precious");
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("secret"), "host").unwrap();
        let untouched = || {
            let left: Vec<_> = fs::read_dir(&precious).unwrap().collect();
            assert_eq!(left.len(), 1);
            assert_eq!(fs::read_to_string(precious.join("secret")).unwrap(), "host");
        };
        let replace = |path: &Path| {
            if path.symlink_metadata().is_ok() {
                fs::rename(path, path.with_extension("away")).unwrap();
            }
            symlink(&precious, path).unwrap();
        };
        let [one, two] = [w.sets[0].id, w.sets[1].id];
        let overlay = file(&w, "overlay", "");
        let own = w.store.vm_dir(&overlay.name).unwrap();
        let give = |file: &VmFile, what| obey(w.store.dir(), file, &order(file, what));
        assert_eq!(give(&overlay, switch(one, 1)), Answer::Done);
        fs::write(overlay.target.join("own"), "guest").unwrap();
        // The next layer would be made from the last one, and old ones removed.
        for path in ["aside", "upper-1", ""] {
            let place = if path.is_empty() { own.clone() } else { own.join(path) };
            replace(&place);
            let answer = give(&overlay, switch(two, 2));
            let mounted = which(&overlay.target).unwrap() == "b";
            assert!(!mounted || !overlay.target.join("secret").exists(), "{path}: {answer:?}");
            for what in [What::Tidy(List::truncated([1])), What::Carried(1)] {
                give(&overlay, what);
                untouched();
            }
        }
        give(&overlay, What::Drop(1));
        give(&overlay, What::Tidy(List::default()));
        untouched();
        assert_eq!(give(&overlay, What::Hide), Answer::Done);
        let tree = file(&w, "tree", "");
        replace(&w.sets[0].path);
        refused(&give(&tree, switch(one, 3)), "could not open");
        replace(&w.store.dir().join("sets"));
        refused(&give(&tree, switch(two, 3)), "could not open");
        assert!(!tree.target.join("secret").exists());
        untouched();
    });
}

/// An answer is cut to fit, whatever a guest called its files.
#[test]
fn answers_fit() {
    let long = "x".repeat(4_000);
    let carried = Carried {
        conffiles: vec![long.clone(); 200],
        late: vec![long.clone(); 200],
        shadowed: vec![Shadowed { path: long, hides: Hides::Copy }; 200],
        shadowed_count: 500,
        ..Carried::default()
    };
    let answer = obey::fit(Answer::Carried(Some(carried)));
    assert!(stork_wire::codec::encode(&answer).len() <= order::ANSWER_LEN_MAX);
    let Answer::Carried(Some(carried)) = answer else { panic!("it is the same answer") };
    assert_eq!((carried.shadowed.len(), carried.shadowed_count), (100, 500));
}
