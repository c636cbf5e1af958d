//! Delegated keys over real sockets: what a build job does with one, and what it cannot.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use stork_wire::delegated::Delegated;
use stork_wire::feed::Entry;

use super::fake::Fake;
use super::tests::Shop;
use super::*;
use crate::delegate::{DelegateError, DelegateOptions, DelegateReport, delegate};
use crate::feed::FeedError;

/// Delegates at this time, for an hour.
fn made(shop: &Shop, packages: &[&str], name: &str, now: UnixSeconds) -> DelegateReport {
    delegate(&options(shop, packages, name), now).unwrap()
}

fn options(shop: &Shop, packages: &[&str], name: &str) -> DelegateOptions {
    DelegateOptions {
        charter: shop.dir.path().join("c"),
        key: None,
        passphrase: Passphrase::None,
        packages: packages.iter().map(|p| p.parse().unwrap()).collect(),
        ttl_s: 3_600,
        out: shop.dir.path().join(name),
    }
}

async fn push_from(
    shop: &Shop,
    dir: &Path,
    version: &str,
    to: &Fake,
) -> Result<PushReport, PushError> {
    let options = PushOptions { charter: dir.into(), ..shop.options(version, &[to]) };
    push(&options, &Progress::Silent).await
}

fn refused(r: Result<PushReport, PushError>) -> DelegateError {
    match r.unwrap_err() {
        PushError::Feed(FeedError::Delegate(e)) => e,
        other => panic!("{other}"),
    }
}

/// A job has a directory and nothing else: it pushes, the release key goes on after it, and the
/// next job after that. The directory holds no key of the shop.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_pushes() {
    let a = Fake::start(1);
    let shop = Shop::new(vec![a.node], &[]);
    shop.push("1.0", &[&a]).await.unwrap();
    let job = made(&shop, &["tool", "ci-*"], "job", now());
    let mode = |name: &str| fs::metadata(job.dir.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("."), mode("ci")), (0o700, 0o600));
    let mut names: Vec<_> =
        fs::read_dir(&job.dir).unwrap().map(|f| f.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["charter.bundle", "ci", "ci.delegated", "ci.pub", "publisher.toml"]);
    assert_eq!(push_from(&shop, &job.dir, "1.1", &a).await.unwrap().seq, Some(2));
    assert_eq!(shop.push("1.2", &[&a]).await.unwrap().seq, Some(3), "the head is ours");
    // With the shop's own directory, and the key by its name.
    let mut by_name = shop.options("1.3", &[&a]);
    by_name.key = Some(job.dir.join("ci").to_string_lossy().into_owned());
    assert_eq!(push(&by_name, &Progress::Silent).await.unwrap().seq, Some(4));
    let again = delegate(&options(&shop, &["tool"], "job"), now()).unwrap_err();
    assert!(matches!(again, PushError::Key(crate::keys::KeyError::Exists(_))), "{again}");

    let state = a.state();
    let via = |e: &stork_wire::sign::Envelope| e.claimed::<Entry>().unwrap().via;
    let with: Vec<bool> = state.feed.iter().map(|e| via(e).is_some()).collect();
    assert_eq!(with, [false, true, false, true]);
    let cert: Delegated = via(&state.feed[1]).unwrap().claimed().unwrap();
    assert_eq!((cert.from + 300 + 3_600, cert.until), (cert.until, job.until));
}

/// T002, T001: another package, an hour that is over, a recall, a halt: refused before a node is
/// asked, in words.
#[tokio::test(flavor = "multi_thread")]
async fn t001_t002_what_a_job_cannot_do() {
    let a = Fake::start(1);
    let shop = Shop::new(vec![a.node], &["tool", "ci-*"]);
    shop.push("1.0", &[&a]).await.unwrap();
    let other = made(&shop, &["ci-*"], "other", now());
    let e = refused(push_from(&shop, &other.dir, "1.1", &a).await);
    assert_eq!(e.to_string(), "the delegated key may release `ci-*`, and not `tool`");
    assert_eq!((e.exit(), e.help().contains("--packages")), (4, true));
    let wide = made(&shop, &["*"], "wide", now());
    assert!(push_from(&shop, &wide.dir, "1.1", &a).await.is_ok());
    let e = delegate(&options(&shop, &["nginx"], "x"), now()).unwrap_err();
    assert_eq!(e.to_string(), "the release key does not permit the package name `nginx`");

    let late = made(&shop, &["tool"], "late", now() - 3_600 - 60 * 10);
    let e = refused(push_from(&shop, &late.dir, "1.2", &a).await);
    assert!(e.to_string().starts_with("the delegated key ran out 10 min ago"), "{e}");
    let early = made(&shop, &["tool"], "early", now() + 1_000);
    let e = refused(push_from(&shop, &early.dir, "1.2", &a).await);
    assert!(e.to_string().contains("clock is behind"), "{e}");

    let spec = wide.dir.join("ci").to_string_lossy().into_owned();
    let recall = RecallOptions {
        package: "tool".parse().unwrap(),
        versions: vec!["1.0".parse().unwrap()],
        arch: None,
        reason: "x".parse().unwrap(),
        charter: shop.dir.path().join("c"),
        key: Some(spec.clone()),
        passphrase: Passphrase::None,
        root: None,
        to: shop.options("1.0", &[&a]).to,
        dry_run: false,
    };
    let e = super::recall(&recall, &Progress::Silent).await.unwrap_err();
    assert_eq!(
        e.to_string(),
        format!("`{spec}` is a delegated key: it pushes releases, and does nothing else")
    );
    assert_eq!(e.exit(), 2);
    let again =
        delegate(&DelegateOptions { key: Some(spec), ..options(&shop, &["tool"], "y") }, now());
    assert!(again.unwrap_err().to_string().contains("does nothing else"), "no chain of them");
    assert_eq!(a.state().narrowing.len(), 0);
}

/// A certificate that was changed, is of another key, or is none.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_do_not_fit() {
    let a = Fake::start(1);
    let shop = Shop::new(vec![a.node], &[]);
    let job = made(&shop, &["tool"], "job", now());
    let good = fs::read_to_string(&job.certificate).unwrap();
    let write = |text: &str| fs::write(&job.certificate, text).unwrap();
    let fails = async || refused(push_from(&shop, &job.dir, "1.0", &a).await);

    write(&fs::read_to_string(made(&shop, &["tool"], "two", now()).certificate).unwrap());
    assert!(matches!(fails().await, DelegateError::OtherKey(_)));
    for bad in
        ["", "stork delegated key v1", "stork delegated key v1\nzz\n", &good[..good.len() - 9]]
    {
        write(bad);
        let e = fails().await;
        assert!(matches!(e, DelegateError::Format { .. }), "{e}");
        assert_eq!(e.exit(), 78);
    }
    // Another signature of the same length.
    let mut forged: Vec<char> = good.chars().collect();
    let at = forged.len() - 5;
    forged[at] = if forged[at] == '0' { '1' } else { '0' };
    write(&forged.into_iter().collect::<String>());
    assert!(matches!(fails().await, DelegateError::NotVouched(_)));
    fs::remove_file(&job.certificate).unwrap();
    let e = push_from(&shop, &job.dir, "1.0", &a).await.unwrap_err();
    assert!(matches!(e, PushError::Feed(FeedError::NoReleaseKey(_))), "{e}");
    write(&good);
    assert!(push_from(&shop, &job.dir, "1.0", &a).await.is_ok());
}
