//! An origin that fails: it is tried again within bounds, and what it sends is never more or less
//! than what was asked for. An upload that was cut off goes on.

use std::time::Duration;

use stork_origin::{Purpose, Put, Why};
use stork_tests::fleet::noise;
use stork_tests::s3::{Fault, Faults, S3, SECRET_KEY};

use super::Place;
use super::suite::{LARGE, key};

const PART: u64 = 6 * 1024 * 1024;

/// A server with one object of 100 000 bytes.
async fn stocked() -> (S3, Place) {
    let server = S3::start();
    let place = Place::of(&server);
    let bytes = noise("stock", 100_000);
    let origin = place.open(Purpose::Write);
    origin.put(&key(1), bytes, &place.records(), &|_| {}).await.unwrap();
    (server, place)
}

/// Two failures in a row are overcome; more are told, after few tries.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_in_trouble() {
    let (server, place) = stocked().await;
    let origin = place.open(Purpose::Read);
    for status in [500, 503] {
        server.fail(Faults::of(Fault::Status(status), "GET", 2));
        let read = origin.read(&key(1), 100_000, 0..100).await.unwrap();
        assert_eq!(read.len(), 100);
    }
    let before = server.seen("GET");
    server.fail(Faults::of(Fault::Status(500), "GET", usize::MAX));
    let e = origin.read(&key(1), 100_000, 0..100).await.unwrap_err();
    assert_eq!(e.why(), Why::Down, "{e}");
    assert!(server.seen("GET") - before <= 4, "tried too often");
    server.fail(Faults::of(Fault::Slow(Duration::from_millis(700)), "GET", 1));
    assert!(origin.read(&key(1), 100_000, 0..100).await.is_ok());
}

/// What breaks off, is longer than asked for, or is shorter than announced is no answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_sends_something_else() {
    let (server, place) = stocked().await;
    let origin = place.open(Purpose::Read);
    for fault in [Fault::Truncate, Fault::IgnoreRange] {
        server.fail(Faults::of(fault, "GET", usize::MAX));
        let e = origin.read(&key(1), 100_000, 0..50_000).await.unwrap_err();
        assert!(matches!(e.why(), Why::Wrong | Why::Down), "{fault:?}: {e}");
        assert!(e.to_string().contains(key(1).as_str()), "{e}");
    }
    // Other bytes of the right number come through: the caller has the hash.
    server.fail(Faults::of(Fault::Lie, "GET", 1));
    let lies = origin.read(&key(1), 100_000, 0..50_000).await.unwrap();
    assert!(lies.len() == 50_000 && lies != noise("stock", 100_000)[..50_000]);
    server.change(&format!("origin/{}", key(1)), |bytes| bytes.truncate(99_999));
    let e = origin.read(&key(1), 100_000, 0..10).await.unwrap_err();
    assert!(e.why() == Why::Wrong && e.to_string().contains("99999"), "{e}");
}

/// Credentials that do not fit are refused at once, and no secret is in what we say.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials() {
    let (server, _place) = stocked().await;
    let settings = server.settings().replace("AKIASTORKTESTS", "AKIASOMEBODYELSE");
    let stranger = Place::new(&server.address(), Some(&settings));
    let origin = stranger.open(Purpose::Write);
    let read = origin.read(&key(1), 100_000, 0..10).await.unwrap_err();
    let put = origin.put(&key(5), vec![1; 10], &stranger.records(), &|_| {}).await.unwrap_err();
    for e in [read, put] {
        assert_eq!((e.why(), e.exit()), (Why::Denied, 77), "{e}");
        let said = format!("{e} {e:?} {origin:?}");
        assert!(!said.contains(SECRET_KEY), "{said}");
        assert!(!e.to_string().contains("AKIASOMEBODYELSE"), "{e}");
    }
}

/// An upload in parts stops after the first part, by an error and by the end of the process. Nobody
/// sees anything of it, and the next try sends the rest only.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on() {
    let bytes = noise("suite", LARGE);
    for fault in [Fault::Status(500), Fault::Slow(Duration::from_secs(60))] {
        let server = S3::start();
        let place = Place::of(&server);
        let origin = place.open(Purpose::Write);
        server.fail(Faults::of(fault, "partNumber", usize::MAX).after(1));
        let (records, none, name) = (place.records(), |_| {}, key(7));
        let cut = origin.put(&name, bytes.clone(), &records, &none);
        if let Ok(outcome) = tokio::time::timeout(Duration::from_secs(20), cut).await {
            assert_eq!(outcome.unwrap_err().why(), Why::Down);
        }
        assert!(server.objects().is_empty(), "something half-written is visible");
        assert_eq!(server.open_uploads(), 1);

        server.fail(Faults::default());
        let before = server.seen("partNumber");
        let put = origin.put(&key(7), bytes.clone(), &records, &none).await.unwrap();
        assert_eq!(put, Put::Stored { resumed: PART });
        assert_eq!(server.seen("partNumber") - before, 3);
        assert!(server.object(&format!("origin/{}", key(7))).unwrap() == bytes);
        assert_eq!(server.open_uploads(), 0);
        assert!(!place.dir.path().join("uploads").exists(), "a record is left");
    }
}

/// The bucket has dropped the parts meanwhile: the upload begins anew by itself.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_begins_anew() {
    let server = S3::start();
    let place = Place::of(&server);
    let origin = place.open(Purpose::Write);
    let bytes = noise("suite", LARGE);
    server.fail(Faults::of(Fault::Status(500), "partNumber", usize::MAX).after(2));
    let (records, none) = (place.records(), |_| {});
    origin.put(&key(7), bytes.clone(), &records, &none).await.unwrap_err();
    server.fail(Faults::default());
    server.drop_uploads();
    let put = origin.put(&key(7), bytes.clone(), &records, &none).await.unwrap();
    assert_eq!(put, Put::Stored { resumed: 0 });
    assert!(server.object(&format!("origin/{}", key(7))).unwrap() == bytes);
}
