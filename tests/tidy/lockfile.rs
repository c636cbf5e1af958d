//! `Cargo.lock`: which crates must never come in, by whatever way.

/// A crate and the reason against it.
const BANNED: &[(&str, &str)] = &[
    ("openssl", "one TLS library only: rustls with ring"),
    ("openssl-sys", "one TLS library only: rustls with ring"),
    ("native-tls", "one TLS library only: rustls with ring"),
    ("aws-lc-rs", "one TLS provider only: ring. Switch off default features of rustls and quinn"),
    ("aws-lc-sys", "one TLS provider only: ring. Switch off default features of rustls and quinn"),
    ("async-std", "one runtime only: tokio"),
    ("smol", "one runtime only: tokio"),
];
/// Two remote denial-of-service faults were fixed in this version.
const QUINN_PROTO_MIN: [u64; 3] = [0, 11, 19];

/// Name, version and source of every package.
fn packages(lock: &str) -> Vec<(String, String, String)> {
    let value = |block: &str, key: &str| {
        let line = block.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(" = "));
        line.unwrap_or("").trim_matches('"').to_owned()
    };
    let blocks = lock.split("[[package]]").skip(1);
    blocks.map(|b| (value(b, "name"), value(b, "version"), value(b, "source"))).collect()
}

fn numbers(version: &str) -> Vec<u64> {
    let core = version.split(['-', '+']).next().unwrap_or("");
    core.split('.').map(|n| n.parse().unwrap_or(0)).collect()
}

pub(crate) fn check(lock: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let all = packages(lock);
    if all.is_empty() {
        faults.push("  Cargo.lock: no packages were found.".to_owned());
    }
    for (name, version, source) in all {
        if let Some((_, why)) = BANNED.iter().find(|(banned, _)| *banned == name) {
            faults.push(format!(
                "  {name} {version}: {why}. Find who needs it: cargo tree -i {name}"
            ));
        }
        if !source.is_empty() && !source.starts_with("registry+") {
            faults
                .push(format!("  {name} {version}: comes from {source}. Use a released version."));
        }
        if name == "quinn-proto" && numbers(&version) < QUINN_PROTO_MIN.to_vec() {
            faults.push(format!("  {name} {version}: run `cargo update -p quinn-proto`."));
        }
    }
    faults
}

/// Banned crates, git sources and old versions are found.
#[test]
fn bad_locks_are_found() {
    let of = |name: &str, version: &str, source: &str| {
        check(&format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n{source}")).len()
    };
    let registry = "source = \"registry+https://github.com/rust-lang/crates.io-index\"\n";
    assert_eq!(of("tokio", "1.0.0", registry), 0);
    assert_eq!(of("stork-wire", "0.1.0", ""), 0);
    assert_eq!(of("smol", "2.0.0", registry), 1);
    assert_eq!(of("tokio", "1.0.0", "source = \"git+https://x.y/z#1\"\n"), 1);
    assert_eq!(of("quinn-proto", "0.11.9", registry), 1);
    assert_eq!(of("quinn-proto", "0.11.19", registry), 0);
    assert_eq!(check("").len(), 1);
}
