//! What `stork why` says of each outcome: the words, the line of the VM's file, and the document.

use stork_wire::ids::{ItemHash, LogId, Position};

use super::depends::DependsError;
use super::world::{World, vm};
use super::{Considered, Narrow, Outcome, Privilege, Shown};
use crate::trust::{Cause, DeniedBy, Freeze};

/// One of each; a new outcome does not compile before it stands here.
fn all() -> Vec<Outcome> {
    let hash = ItemHash([1; 32]);
    let at = Position { epoch: 1, seq: 3 };
    let by = "hello".parse().unwrap();
    let log = LogId([0xab; 32]);
    let denied = DeniedBy { group: "web".into(), log, reason: "bad".parse().unwrap() };
    let all = vec![
        Outcome::Chosen,
        Outcome::Kept,
        Outcome::Older,
        Outcome::OtherArch,
        Outcome::NotForGroup,
        Outcome::NotGranted("web".into()),
        Outcome::Constraint(">= 1".into()),
        Outcome::Pinned("= 3".into()),
        Outcome::Held("INC-1".into()),
        Outcome::Denied(Some(0)),
        Outcome::Denied(None),
        Outcome::NotAttested { have: 1, need: 2 },
        Outcome::NotFresh { hide: false },
        Outcome::NotFresh { hide: true },
        Outcome::Privileged(Privilege { path: "bin/su".into(), what: "setuid" }),
        Outcome::Downgrade(12),
        Outcome::BelowFloor(7),
        Outcome::Expired,
        Outcome::Skipped,
        Outcome::Frozen(Freeze { at, cause: Cause::Fork { proof: hash, entries: [hash; 2] } }),
        Outcome::Narrowed(Narrow::Recalled(log, "bad".into())),
        Outcome::Narrowed(Narrow::Halted(log, "wait".into())),
        Outcome::Narrowed(Narrow::Unsettled(at)),
        Outcome::Narrowed(Narrow::Denied(denied)),
        Outcome::Retired,
        Outcome::Stale("2".parse().unwrap()),
        Outcome::Blocked("2".parse().unwrap()),
        Outcome::OverQuota { what: "bytes", with: 2, limit: 1 },
        Outcome::Depends(DependsError::Unsatisfiable { entry: "libc6".into(), by }),
        Outcome::Bundle { name: "stack".into(), lacks: "world".parse().unwrap() },
    ];
    for one in &all {
        match one {
            Outcome::Chosen
            | Outcome::Kept
            | Outcome::Older
            | Outcome::OtherArch
            | Outcome::NotForGroup
            | Outcome::NotGranted(_)
            | Outcome::Constraint(_)
            | Outcome::Pinned(_)
            | Outcome::Held(_)
            | Outcome::Denied(_)
            | Outcome::NotAttested { .. }
            | Outcome::NotFresh { .. }
            | Outcome::Privileged(_)
            | Outcome::Downgrade(_)
            | Outcome::BelowFloor(_)
            | Outcome::Expired
            | Outcome::Retired
            | Outcome::Skipped
            | Outcome::Frozen(_)
            | Outcome::Narrowed(_)
            | Outcome::Stale(_)
            | Outcome::Blocked(_)
            | Outcome::OverQuota { .. }
            | Outcome::Depends(_)
            | Outcome::Bundle { .. } => {}
        }
    }
    all
}

const WANT: &str = "\
chosen | [[trust]] rule 1:15 | group web 1
kept: the VM's file asks for an older one, which needs a permit | [[pin]]:8 | -
a newer or more trusted one was chosen | [[trust]] rule 1:15 | group web 1
it is for another architecture | [vm]:1 | -
it is for none of the groups of this VM | [vm]:1 | -
group `web` does not let its publisher release it any more | - | group web 1
the subscription asks for >= 1 | [[subscribe]]:5 | -
the package is pinned to = 3 | [[pin]]:8 | -
the package is held: INC-1 | [[hold]]:11 | -
trust rule 1 denies it | [[trust]] rule 1:15 | -
no trust rule allows it | after the last [[trust]]:15 | -
1 of the publishers that its rule names announce it, 2 must | [[trust]] rule 1:15 | -
its feed is not fresh, and this VM takes nothing new from such a feed | [[trust]] rule 1:15 | -
its feed is not fresh, and this VM shows nothing of such a feed | [[trust]] rule 1:15 | -
`bin/su` is setuid, which needs `privileged` in the VM's file | [view]:19 | -
the VM shows a later release (12): going back needs a permit | - | entry acme 1
the publisher withdrew everything below release 7 | - | entry acme 1
its announcement has expired | - | entry acme 1
it was rolled back on this VM | - | -
frozen | - | proof acme 3
its publisher recalled it: bad | - | recall acme LOG
its publisher has halted it: wait | - | halt acme LOG
epoch 1 ended with entry 3, which is not here yet: until then a key that is out of use may have \
made it up | - | publisher acme 1
the security team of group `web` denies it: bad | - | denial web LOG
its publisher retired it: it stays where it is shown, and comes nowhere anew | - | entry acme 1
the newer 2 has expired, so nothing older is installed | - | entry acme 1
the newer 2 needs privileges, so nothing older is installed | - | entry acme 1
over the quota of this VM: 2 bytes with it, 1 are allowed | [vm]:1 | -
`hello` needs `libc6`, and nothing that this VM may have is that | [vm]:1 | -
its bundle `stack` is not complete: `world` lacks | - | entry acme 1
";

/// Every outcome has words of its own, and names the line that decided, the document, or both,
/// unless the VM's own past did.
#[test]
fn each_outcome_says_what_made_it() {
    let mut w = World::plain(&["acme"]);
    w.announce(0, "hello", "1");
    let vm = vm(
        "",
        "[[subscribe]]\npackage = \"hello\"\n\n[[pin]]\npackage = \"hello\"\nversion = \"= 3\"\n\
         [[hold]]\npackage = \"hello\"\nreason = \"INC-1\"\n\n[[trust]]\nallow = \"acme\"\n\
         freshness = \"no_new\"\n",
    );
    let none = Shown::default();
    let first: Considered<'_> = w.consider(&vm, "hello", &none).remove(0);
    let mut got = String::new();
    for outcome in all() {
        let c = Considered { outcome, ..first.clone() };
        let because = c.because(&vm, w.scene());
        let rule = because.rule.map_or_else(|| "-".into(), |(part, n)| format!("{part}:{n}"));
        let document = because
            .document
            .map_or_else(|| "-".into(), |d| format!("{} {} {}", d.kind, d.name, d.number));
        let words = match c.outcome {
            Outcome::Frozen(_) => "frozen".to_owned(),
            other => other.to_string(),
        };
        got += &format!("{words} | {rule} | {document}\n");
    }
    assert_eq!(got, WANT.replace("LOG", &"ab".repeat(32)));
}
