//! What a change does, in words: for whoever is asked to sign it.

use stork_wire::charter::{
    Delegation, GroupDoc, Lift, PublisherDoc, PublisherGrant, ReleaseKey, Role, RootDoc, Survivor,
    VetoKey,
};
use stork_wire::ids::PublicKey;
use stork_wire::text::Pattern;

use super::{Doc, Step};
use crate::keys::fingerprint;
use crate::out;

/// Names of patterns, or that there are none.
fn names(patterns: &[Pattern]) -> String {
    let all: Vec<&str> = patterns.iter().map(Pattern::as_str).collect();
    if all.is_empty() { "nothing".into() } else { all.join(", ") }
}

fn keys_differ(what: &str, old: &[PublicKey], new: &[PublicKey], out: &mut Vec<String>) {
    let lost = old.iter().filter(|k| !new.contains(k));
    out.extend(lost.map(|k| format!("- {what} key {}", fingerprint(k))));
    let won = new.iter().filter(|k| !old.contains(k));
    out.extend(won.map(|k| format!("+ {what} key {}", fingerprint(k))));
}

fn role(what: &str, old: Option<&Role>, new: &Role, out: &mut Vec<String>) {
    keys_differ(what, old.map_or(&[], |r| &r.keys), &new.keys, out);
    let count = |r: &Role| format!("{} of {}", r.threshold, r.keys.len());
    if old.map(count) != Some(count(new)) {
        let was = old.map_or_else(String::new, |r| format!(" (was {})", count(r)));
        out.push(format!("  {what}: {} must sign{was}", count(new)));
    }
}

fn earlier_admission(old: Option<&RootDoc>, new: &RootDoc, lines: &mut Vec<String>) {
    for past in new.admission_before.iter() {
        if old.is_some_and(|o| o.admission_before.contains(past)) {
            continue;
        }
        let (key, day) = (fingerprint(&past.key), out::day(past.until));
        lines.push(format!("  what admission key {key} signed is good until {day}"));
    }
    let Some(old) = old else { return };
    let earlier = old.admission_before.iter().map(|p| p.key);
    let gone = |k: &PublicKey| {
        !new.admission.keys.contains(k) && new.admission_before.iter().all(|p| p.key != *k)
    };
    for key in old.admission.keys.iter().copied().chain(earlier).filter(gone) {
        let key = fingerprint(&key);
        lines
            .push(format!("- whatever admission key {key} signed is void: those hosts join again"));
    }
}

fn root(old: Option<&RootDoc>, new: &RootDoc, out: &mut Vec<String>) {
    if old.is_none() {
        out.push(format!("founds the fleet {}", new.name));
    }
    if let Some(old) = old.filter(|o| o.name != new.name) {
        out.push(format!("  the fleet's name was {}", old.name));
    }
    role("root", old.map(|d| &d.root), &new.root, out);
    role("admission", old.map(|d| &d.admission), &new.admission, out);
    earlier_admission(old, new, out);
    let before = old.map(|d| d.authorities.to_vec()).unwrap_or_default();
    for a in before.iter().filter(|a| new.authorities.iter().all(|n| n.names != a.names)) {
        out.push(format!("- nobody may found groups {}", a.names.as_str()));
    }
    for a in &new.authorities {
        let was = before.iter().find(|b| b.names == a.names).map(|b| &b.role);
        role(&format!("groups {}", a.names.as_str()), was, &a.role, out);
    }
    let order = |d: &[stork_wire::charter::Authority]| -> Vec<Pattern> {
        d.iter().map(|a| a.names.clone()).collect()
    };
    if old.is_some() && order(&before) != order(&new.authorities) {
        let all = names(&order(&new.authorities));
        out.push(format!("  who may found a group is looked up in this order: {all}"));
    }
}

fn granted(g: &PublisherGrant) -> String {
    let limit = match g.release_bytes_max {
        0 => String::new(),
        n => format!(", {} a release at the most", out::bytes(n)),
    };
    let provides = if g.provides.is_empty() {
        String::new()
    } else {
        format!(", provides {}", names(&g.provides))
    };
    format!(
        "publisher {} ({}): {}{provides}{limit}",
        g.name,
        g.publisher.short(),
        names(&g.packages)
    )
}

fn group(old: Option<&GroupDoc>, new: &GroupDoc, out: &mut Vec<String>) {
    if old.is_none() {
        out.push(format!("founds the group {}", new.name));
    }
    role("authority", old.map(|d| &d.authority), &new.authority, out);
    let before = old.map(|d| d.publishers.to_vec()).unwrap_or_default();
    out.extend(
        before
            .iter()
            .filter(|g| !new.publishers.contains(g))
            .map(|g| "- ".to_owned() + &granted(g)),
    );
    out.extend(
        new.publishers
            .iter()
            .filter(|g| !before.contains(g))
            .map(|g| "+ ".to_owned() + &granted(g)),
    );
    let before = old.map(|d| d.veto.to_vec()).unwrap_or_default();
    let veto =
        |v: &VetoKey| format!("veto key {} until {}", fingerprint(&v.key), out::day(v.not_after));
    let gone = before.iter().filter(|v| !new.veto.contains(v));
    out.extend(gone.map(|v| "- ".to_owned() + &veto(v)));
    let come = new.veto.iter().filter(|v| !before.contains(v));
    out.extend(come.map(|v| "+ ".to_owned() + &veto(v)));
    match (old.and_then(|d| d.private), new.private) {
        (before, now) if before == now => {}
        (None, Some(key)) => out.push(format!("+ private: sealed with key {}", key.short())),
        (Some(_), Some(key)) => out.push(format!("! another key seals: {}", key.short())),
        (_, None) => out.push("- private: everybody may read what comes".to_owned()),
    }
    let before = old.and_then(|d| d.beacon_s);
    match new.beacon_s {
        now if now == before => {}
        Some(s) => out.push(format!("! beacons speak to its VMs for {s} s at the most")),
        None => out.push("! beacons speak to its VMs as long as they say".to_owned()),
    }
    out.extend(new.lifts.iter().map(|lift| match lift {
        Lift::Denial { log, through } => {
            format!("! the denial {log} is lifted, as signed until {}", out::day(*through))
        }
        Lift::AllBy(key) => {
            format!("! every denial by veto key {} is lifted for ever", fingerprint(key))
        }
    }));
}

fn release_key(k: &ReleaseKey) -> String {
    let end = k.valid_through.map_or_else(String::new, |at| format!(", signs nothing after {at}"));
    let (key, day) = (fingerprint(&k.key), out::day(k.not_after));
    format!("release key {key} for {} until {day}{end}", names(&k.packages))
}

fn publisher(old: Option<&PublisherDoc>, new: &PublisherDoc, out: &mut Vec<String>) {
    if old.is_none() {
        out.push(format!("makes the publisher {}", new.name));
    }
    if let Some(old) = old.filter(|o| o.name != new.name) {
        out.push(format!("  the publisher's name was {}", old.name));
    }
    if old.is_some_and(|o| o.epoch != new.epoch) {
        let named = |s: Survivor| format!("{} with hash {}", s.at, s.hash);
        let text = match (new.compacts, new.survivor) {
            (Some(c), _) => format!(
                "begins with an empty feed; what was live at {} is carried over, later entries are \
                 void",
                named(c)
            ),
            (None, Some(s)) => format!("begins after {}; later entries are void", named(s)),
            (None, None) => "begins after nothing: every release is withdrawn".to_owned(),
        };
        out.push(format!("! epoch {} {text}", new.epoch));
    }
    role("publisher root", old.map(|d| &d.root), &new.root, out);
    let before = old.map(|d| d.release_keys.to_vec()).unwrap_or_default();
    out.extend(
        before
            .iter()
            .filter(|k| !new.release_keys.contains(k))
            .map(|k| "- ".to_owned() + &release_key(k)),
    );
    out.extend(
        new.release_keys
            .iter()
            .filter(|k| !before.contains(k))
            .map(|k| "+ ".to_owned() + &release_key(k)),
    );
    keys_differ("beacon", old.map_or(&[], |d| &d.beacon_keys), &new.beacon_keys, out);
    if old.is_some_and(|o| o.homes != new.homes) || old.is_none() && !new.homes.is_empty() {
        let homes: Vec<String> = new.homes.iter().map(ToString::to_string).collect();
        let homes = if homes.is_empty() { "any node".to_owned() } else { homes.join(", ") };
        out.push(format!("  homes: {homes}"));
    }
    let before = old.map(|d| d.delegations.to_vec()).unwrap_or_default();
    let gone = before.iter().filter(|d| !new.delegations.contains(d));
    out.extend(gone.map(|d| format!("- {}", delegation(d))));
    let come = new.delegations.iter().filter(|d| !before.contains(d));
    out.extend(come.map(|d| format!("+ {}", delegation(d))));
}

fn delegation(d: &Delegation) -> String {
    let end = if d.terminating { ", and no later one is asked" } else { "" };
    format!("delegates {} to publisher {}{end}", names(&d.packages), d.to)
}

/// What a document changes against the one before it, and who must sign it.
#[must_use]
pub fn describe(step: &Step) -> Vec<String> {
    let mut lines = vec![step.doc.title()];
    let mut says = Vec::new();
    let (was, expires) = match (&step.before, &step.doc) {
        (before, Doc::Root(new)) => {
            let old =
                before.as_ref().and_then(|d| if let Doc::Root(d) = d { Some(d) } else { None });
            root(old, new, &mut says);
            (old.map(|d| d.expires), new.expires)
        }
        (before, Doc::Group(new)) => {
            let old =
                before.as_ref().and_then(|d| if let Doc::Group(d) = d { Some(d) } else { None });
            group(old, new, &mut says);
            (old.map(|d| d.expires), new.expires)
        }
        (before, Doc::Publisher(new)) => {
            let old = before
                .as_ref()
                .and_then(|d| if let Doc::Publisher(d) = d { Some(d) } else { None });
            publisher(old, new, &mut says);
            (old.map(|d| d.expires), new.expires)
        }
    };
    let was = was.map_or_else(String::new, |t| format!(" (was {})", out::day(t)));
    says.push(format!("  valid until {}{was}", out::day(expires)));
    says.push(format!("  hash {}", step.item.envelope.hash()));
    for need in &step.needs {
        let (signed, of) = (need.signed.len(), need.role.threshold);
        says.push(format!("  signatures of {}: {signed} of {of}", need.who));
    }
    lines.extend(says.into_iter().map(|l| format!("  {l}")));
    lines
}
