//! Which release a VM gets, and the reason that `stork why` gives for it.

use super::{Catalog, Outcome, Shown, VmFile};
use crate::trust::{Fact, Trust, Verdict};
use crate::trust_fixture::{Fixture, NOW};

fn vm(extra: &str) -> VmFile {
    let text = format!(
        "[vm]\narch = \"amd64\"\ngroups = [\"web\"]\n{extra}\n\
         [view]\nbackend = \"tree\"\ntarget = \"/srv/vm\"\n"
    );
    VmFile::parse("web-1", &text).unwrap()
}

const SUBSCRIBE: &str = "[[subscribe]]\npackage = \"hello*\"\n";
const TRUST: &str = "[[trust]]\nallow = \"acme\"\n";

fn world(versions: u64) -> (Fixture, Trust, Catalog) {
    let f = Fixture::new();
    let mut t = f.trust();
    let mut c = Catalog::default();
    for i in f.feed(versions) {
        if let Verdict::Accepted { fact: Fact::Entry(e), .. } = t.judge(&i, NOW) {
            c.apply(e.get());
        }
    }
    assert_eq!(c.len() as u64, versions);
    (f, t, c)
}

fn chosen(extra: &str, shown: &Shown, now: u64) -> Option<String> {
    let (_, t, c) = world(12);
    let wish = c.wish(&vm(extra), shown, t.charter(), now);
    wish.values().next().map(|w| w.known.release.version.to_string())
}

fn reason(extra: &str, shown: &Shown) -> Outcome {
    let (_, t, c) = world(12);
    let hello = "hello".parse().unwrap();
    let vm = vm(extra);
    let all = c.consider(&vm, &hello, shown, t.charter(), NOW);
    all.iter().find(|c| c.known.release.version.as_str() == "12").unwrap().outcome.clone()
}

/// The newest by Debian's order that the subscription, the pin and trust allow.
#[test]
fn the_newest_that_is_allowed() {
    let none = Shown::default();
    let both = format!("{SUBSCRIBE}{TRUST}");
    assert_eq!(chosen(&both, &none, NOW).as_deref(), Some("12"));
    let old = format!("[[subscribe]]\npackage = \"hello\"\nversion = \">= 2, < 10\"\n{TRUST}");
    assert_eq!(chosen(&old, &none, NOW).as_deref(), Some("9"));
    let pinned = format!("{both}[[pin]]\npackage = \"hello\"\nversion = \"= 3\"\n");
    assert_eq!(chosen(&pinned, &none, NOW).as_deref(), Some("3"));
    assert_eq!(reason(&pinned, &none), Outcome::Pinned("= 3".into()));
    assert_eq!(chosen(TRUST, &none, NOW), None, "no subscription");
}

/// What no rule allows is denied, and the reason says which rule.
#[test]
fn trust_decides() {
    let none = Shown::default();
    assert_eq!(chosen(SUBSCRIBE, &none, NOW), None);
    assert_eq!(reason(SUBSCRIBE, &none), Outcome::Denied(None));
    let deny = format!("{SUBSCRIBE}[[trust]]\ndeny = \"acme\"\npackages = [\"hello\"]\n{TRUST}");
    assert_eq!(reason(&deny, &none), Outcome::Denied(Some(0)));
}

/// A hold keeps what is shown; an expired entry is kept but not installed anew; what was rolled
/// back is skipped.
#[test]
fn hold_expiry_and_skip() {
    let (_, _, c) = world(12);
    let hello = "hello".parse().unwrap();
    let hash = |v: &str| {
        c.of_package(&hello).iter().find(|k| k.release.version.as_str() == v).unwrap().hash
    };
    let both = format!("{SUBSCRIBE}{TRUST}");
    let held = format!("{both}[[hold]]\npackage = \"hello\"\nreason = \"INC-1\"\n");
    let mut shown = Shown::default();
    assert_eq!(chosen(&held, &shown, NOW), None);
    shown.releases.insert("hello".parse().unwrap(), hash("4"));
    assert_eq!(chosen(&held, &shown, NOW).as_deref(), Some("4"));
    assert_eq!(reason(&held, &shown), Outcome::Held("INC-1".into()));
    assert_eq!(chosen(&both, &shown, NOW + 5000).as_deref(), Some("4"), "expired but shown");
    assert_eq!(chosen(&both, &Shown::default(), NOW + 5000), None, "expired");
    shown.skipped.insert(hash("12"));
    assert_eq!(chosen(&both, &shown, NOW).as_deref(), Some("11"));
    assert_eq!(reason(&both, &shown), Outcome::Skipped);
}

/// Wrong files say what to do.
#[test]
fn wrong_files() {
    let parse = |text: &str| VmFile::parse("x", text).unwrap_err();
    let e = parse("[vm]\ngroups = [\"web\"]\n[view]\nbackend = \"hardlink\"\ntarget = \"/x\"\n");
    assert!(e.help.contains("isolation"), "{e:?}");
    let e = parse("[vm]\ngroups = [\"web\"]\n[view]\nbackend = \"tree\"\ntarget = \"x\"\n");
    assert!(e.message.contains("absolute"), "{e:?}");
    let e = parse("[vm]\ngroups = [\"../x\"]\n[view]\nbackend = \"tree\"\ntarget = \"/x\"\n");
    assert!(e.message.contains("line 2, column") && e.help.contains("a group"), "{e:?}");
    let e = parse("[vm]\ngroups = []\n");
    assert_eq!(e.help, "add the key `view`");
    let e =
        VmFile::parse("../x", "[vm]\ngroups = []\n[view]\nbackend = \"tree\"\ntarget = \"/x\"\n");
    assert!(e.unwrap_err().help.contains("rename the file"));
}

/// A pattern or name that no package can have, wherever it stands: refused with line, column, the
/// rule that it breaks, and what to write instead.
#[test]
fn what_no_package_can_be_called() {
    let parse = |lines: &str| {
        let rest = "[view]\nbackend = \"tree\"\ntarget = \"/x\"\n";
        let text = format!("[vm]\ngroups = [\"web\"]\n{lines}\n{rest}");
        VmFile::parse("x", &text).unwrap_err()
    };
    for bad in ["../x", "/etc/passwd", "", "a//b", "a/../*", ".x", "a b", "a\\u0007", "a\\n"] {
        let e = parse(&format!("[[subscribe]]\npackage = \"{bad}\""));
        assert!(e.message.contains("line 4, column 11"), "{bad}: {e:?}");
        assert!(e.message.contains("pattern `") && e.help.contains("a path is none"), "{e:?}");
        assert!(!e.message.contains('\u{7}'), "{e:?}");
        for lines in [
            format!("[[trust]]\nallow = \"*\"\npackages = [\"{bad}\"]"),
            format!("[[pin]]\npackage = \"{bad}\"\nversion = \"1\""),
            format!("[[hold]]\npackage = \"{bad}\""),
            format!("[[subscribe]]\npackage = \"x\"\ngroup = \"{bad}\""),
        ] {
            let e = parse(&lines);
            assert!(e.message.contains("line ") && !e.help.contains("examples"), "{bad}: {e:?}");
        }
    }
    let e = parse("[[subscribe]]\npackage = \"x\"\nversion = \">= a b\"");
    assert!(e.message.contains("line 5, column 11") && e.help.contains(">= 1.0"), "{e:?}");
}
