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
/// Crates that read what strangers send or that check signatures, the version in which a fault that
/// could be reached from outside was mended last, and its advisory. Where a crate is here in
/// several versions, each of them must be as new.
const MINIMUMS: &[(&str, [u64; 3], &str)] = &[
    ("bytes", [1, 11, 1], "RUSTSEC-2026-0007: an overflow when a buffer grows"),
    ("curve25519-dalek", [4, 1, 3], "RUSTSEC-2024-0344: secrets show in the time it takes"),
    ("ed25519-dalek", [2, 0, 0], "RUSTSEC-2022-0093: a signature for a wrong key leaks the secret"),
    ("idna", [1, 0, 0], "RUSTSEC-2024-0421: two names for one host"),
    (
        "quinn-proto",
        [0, 11, 19],
        "two remote faults that deny service, RUSTSEC-2026-0185 among them",
    ),
    ("ring", [0, 17, 12], "RUSTSEC-2025-0009: a panic that a QUIC peer can cause"),
    ("rustls", [0, 23, 18], "RUSTSEC-2024-0399: a panic that a peer can cause"),
    ("rustls-webpki", [0, 103, 15], "RUSTSEC-2026-0049 and three more: certificates that pass"),
    ("tar", [0, 4, 45], "RUSTSEC-2026-0067 and 0068: archives that leave their folder"),
    ("tracing-subscriber", [0, 3, 20], "RUSTSEC-2025-0055: what is logged controls the terminal"),
];

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
        let minimum = MINIMUMS.iter().find(|(of, _, _)| *of == name);
        if let Some((_, least, why)) = minimum
            && numbers(&version) < least.to_vec()
        {
            faults.push(format!("  {name} {version}: {why}. Run `cargo update -p {name}`."));
        }
    }
    faults
}

/// T123: banned crates, those from git, and versions below the
/// minimum are found, also where a newer one of the same name is there.
#[test]
fn t123_bad_locks_are_found() {
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
    for (name, [major, minor, patch], why) in MINIMUMS {
        assert!(!why.is_empty());
        assert_eq!(of(name, &format!("{major}.{minor}.{patch}"), registry), 0, "{name}");
        let below = match (minor, patch) {
            (0, 0) => format!("{}.99.0", major - 1),
            (_, 0) => format!("{major}.{}.99", minor - 1),
            _ => format!("{major}.{minor}.{}", patch - 1),
        };
        assert_eq!(of(name, &below, registry), 1, "{name} {below}");
    }
    let two = |first: &str| {
        let block =
            |v: &str| format!("[[package]]\nname = \"ring\"\nversion = \"{v}\"\n{registry}");
        check(&[block(first), block("0.17.14")].concat()).len()
    };
    assert_eq!((two("0.16.20"), two("0.17.12")), (1, 0));
    assert_eq!(check("").len(), 1);
}
