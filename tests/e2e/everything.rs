//! Eight hosts, three groups, sixteen VMs that want different things, and real Debian packages.

use std::path::{Path, PathBuf};

use stork_tests::compare::{compare_with_dpkg, disk_usage};
use stork_tests::debs::{Deb, Debs, debs};
use stork_tests::fleet::{Fleet, Host, Package, VmFile};
use stork_tests::wait::wait_until;

/// What a VM asks for, and what it must be shown for that.
struct Case<'a> {
    name: &'static str,
    file: VmFile,
    shows: Vec<(&'static str, &'a Deb)>,
}

const SSL: &str = "libssl3";
const NGINX: &str = "nginx-common";
const PYTHON: &str = "python3.11-minimal";

/// VMs with other groups, patterns, pins, holds and machines.
fn wishes<'a>(debs: &'a Debs, at: &dyn Fn(&str) -> PathBuf) -> Vec<Case<'a>> {
    let [nginx_old, nginx] = &debs.nginx;
    let [ssl_old, ssl] = &debs.ssl;
    let case = |name, file: VmFile, shows| Case { name, file, shows };
    let usual = |name: &str, groups: &[&str]| VmFile::usual(groups, &at(name));
    let acme =
        |name: &str, groups: &[&str]| VmFile::new(groups, &at(name)).trust("allow = \"acme\"");
    let older = format!("<< {}", nginx.version);
    vec![
        case(
            "all-of-web",
            usual("all-of-web", &["web"]),
            vec![("hello", &debs.hello), (NGINX, nginx), (SSL, ssl)],
        ),
        case(
            "pinned",
            usual("pinned", &["db"]).pin(SSL, &format!("= {}", ssl_old.version)),
            vec![(SSL, ssl_old), (PYTHON, &debs.python)],
        ),
        case(
            "constraint",
            acme("constraint", &["web", "ids"]).subscribe_to(NGINX, &older),
            vec![(NGINX, nginx_old)],
        ),
        case(
            "one-group-only",
            acme("one-group-only", &["web", "ids"]).subscribe_in("*", "ids"),
            vec![(PYTHON, &debs.python)],
        ),
        case(
            "patterns",
            acme("patterns", &["web"]).subscribe("lib*").subscribe("hel*"),
            vec![("hello", &debs.hello), (SSL, ssl)],
        ),
        case(
            "other-machine",
            usual("other-machine", &["web"]).vm("arch = \"riscv64\""),
            vec![(NGINX, nginx)],
        ),
        case(
            "held",
            usual("held", &["web"]).hold("hello", "the greeting is being reviewed"),
            vec![(NGINX, nginx), (SSL, ssl)],
        ),
        case(
            "all-groups",
            usual("all-groups", &["db", "ids", "web"]),
            vec![("hello", &debs.hello), (SSL, ssl), (NGINX, nginx), (PYTHON, &debs.python)],
        ),
    ]
}

/// VMs that trust in different ways.
fn trusts<'a>(debs: &'a Debs, at: &dyn Fn(&str) -> PathBuf) -> Vec<Case<'a>> {
    let ([_, nginx], [_, ssl]) = (&debs.nginx, &debs.ssl);
    let of_web = |name: &str| VmFile::new(&["web"], &at(name)).subscribe("*");
    let but_ssl = of_web("not-this-package")
        .trust("deny = \"acme\"\npackages = [\"libssl3\"]")
        .trust("allow = \"*\"");
    vec![
        Case { name: "no-rule", file: of_web("no-rule"), shows: vec![] },
        Case {
            name: "denied",
            file: of_web("denied").trust("deny = \"acme\"").trust("allow = \"*\""),
            shows: vec![],
        },
        Case {
            name: "other-publisher",
            file: of_web("other-publisher").trust("allow = \"globex\""),
            shows: vec![],
        },
        Case {
            name: "not-this-package",
            file: but_ssl,
            shows: vec![("hello", &debs.hello), (NGINX, nginx)],
        },
        Case {
            name: "only-this-package",
            file: of_web("only-this-package").trust("allow = \"acme\"\npackages = [\"libssl*\"]"),
            shows: vec![(SSL, ssl)],
        },
        Case {
            name: "no-group-of-it",
            file: VmFile::usual(&["ids"], &at("no-group-of-it")).subscribe("hello"),
            shows: vec![(PYTHON, &debs.python)],
        },
    ]
}

fn push_all(fleet: &Fleet, debs: &Debs) {
    let [nginx_old, nginx] = &debs.nginx;
    let [ssl_old, ssl] = &debs.ssl;
    for (deb, groups) in [
        (&debs.hello, &["web"][..]),
        (nginx_old, &["web"]),
        (ssl_old, &["web", "db"]),
        (&debs.python, &["db", "ids"]),
        (nginx, &["web"]),
        (ssl, &["web", "db"]),
    ] {
        let report = fleet.push(&Package::deb(&deb.file), groups);
        assert_eq!(report["outcome"], "published", "{report}");
    }
}

fn check(host: &Host, case: &Case<'_>) {
    let wanted: Vec<_> = case.shows.iter().map(|(p, d)| (*p, d.version.as_str())).collect();
    host.await_vm(case.name, &wanted);
    let debs: Vec<&Path> = case.shows.iter().map(|(_, d)| d.file.as_path()).collect();
    if debs.is_empty() {
        assert!(!host.target(case.name).exists(), "{} is shown something", case.name);
    } else {
        compare_with_dpkg(&host.target(case.name), &debs);
    }
}

/// The rule that decided is named: its number and its text, or that there is none.
fn check_reasons(host_of: &dyn Fn(&str) -> usize, fleet: &Fleet) {
    for (vm, outcome, rule) in [
        ("no-rule", "no trust rule allows it", serde_json::Value::Null),
        ("denied", "trust rule 1 denies it", serde_json::json!(1)),
        ("other-publisher", "no trust rule allows it", serde_json::Value::Null),
        ("held", "the package is held: the greeting is being reviewed", serde_json::json!(1)),
    ] {
        let why = fleet.hosts[host_of(vm)].tell(&["why", vm, "hello"]);
        let best = &why["considered"][0];
        assert_eq!(best["outcome"], outcome, "{vm}: {why}");
        let number = best["rule"].get("number").unwrap_or(&serde_json::Value::Null);
        assert_eq!(*number, rule, "{vm}: {why}");
        assert_eq!(best["chosen"], false, "{vm}: {why}");
    }
    let why = fleet.hosts[host_of("denied")].tell(&["why", "denied", "hello"]);
    assert_eq!(why["considered"][0]["rule"]["effect"], "deny", "{why}");
    assert_eq!(why["considered"][0]["rule"]["subject"], "acme", "{why}");
}

/// Eight hosts with two VMs each, three groups, and six pushes of four real packages: each VM shows
/// exactly what its file asks for, every file is what `dpkg -x` unpacks, a VM that does not trust the
/// publisher shows nothing and `stork why` names the rule. A second VM costs no space for files.
#[test]
fn each_vm_shows_exactly_what_its_file_asks_for() {
    let Some(debs) = debs() else { return };
    let fleet = Fleet::new(&["web", "db", "ids"], 8);
    let host_of = |vm: &str| vm.bytes().map(usize::from).sum::<usize>() % 8;
    let mut used = [0; 8];
    let mut place = std::collections::BTreeMap::new();
    for case in wishes(&debs, &|_| "/".into()).iter().chain(&trusts(&debs, &|_| "/".into())) {
        // Two VMs on each host, and on two hosts one that costs nothing more: see below.
        let first = (0..8).map(|i| (host_of(case.name) + i) % 8).find(|h| used[*h] < 2).unwrap();
        used[first] += 1;
        place.insert(case.name, first);
    }
    let at = |vm: &str| fleet.hosts[place[vm]].target(vm);
    let cases: Vec<Case<'_>> = wishes(&debs, &at).into_iter().chain(trusts(&debs, &at)).collect();
    for case in &cases {
        fleet.hosts[place[case.name]].write_vm(case.name, &case.file);
    }
    push_all(&fleet, &debs);
    for case in &cases {
        check(&fleet.hosts[place[case.name]], case);
    }
    check_reasons(&|vm| place[vm], &fleet);
    for host in &fleet.hosts {
        wait_until("every VM to be current", || {
            let status = host.ask(&["status"]).unwrap_or_default();
            status["vms_current"] == status["vms"]
        });
    }
    // The last two of the sixteen: they show what another VM of their host shows already.
    for (name, like) in [("all-of-web-2", "all-of-web"), ("all-groups-2", "all-groups")] {
        second_vm_costs_nothing(&fleet.hosts[place[like]], &cases, (name, like));
    }
}

fn second_vm_costs_nothing(host: &Host, cases: &[Case<'_>], (name, like): (&'static str, &str)) {
    let like = cases.iter().find(|c| c.name == like).unwrap();
    let store = ["objects", "packs"].map(|f| host.dir.join("state").join(f));
    let store: Vec<&Path> = store.iter().map(PathBuf::as_path).collect();
    let before = disk_usage(&store);
    let groups =
        if name.starts_with("all-of-web") { vec!["web"] } else { vec!["db", "ids", "web"] };
    let file = VmFile::usual(&groups, &host.target(name));
    let case = Case { name, file, shows: like.shows.clone() };
    host.write_vm(name, &case.file);
    check(host, &case);
    assert_eq!(disk_usage(&store), before, "the store holds no file more");
    let (one, other) = (host.target(like.name), host.target(name));
    let (alone, both) = (disk_usage(&[&one]), disk_usage(&[&one, &other]));
    assert_eq!(alone, both, "both VMs are shown the same files on disk");
    assert!(alone > 1_000_000, "{alone} bytes are too few to tell");
}
