//! Origins of every kind: one suite against a folder, a small S3 server of our own and an
//! independent one, and what each must do when something goes wrong.

#![expect(clippy::unwrap_used, reason = "these are tests, and what they share")]

mod faults;
mod moto;
mod suite;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use stork_origin::{Address, Origin, Purpose, Records};
use stork_tests::s3::S3;
use tempfile::TempDir;

/// An origin under test, and a folder for what belongs to it.
struct Place {
    dir: TempDir,
    address: Address,
    credentials: Option<PathBuf>,
}

impl Place {
    fn new(address: &str, settings: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let credentials = settings.map(|text| {
            let path = dir.path().join("credentials");
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            path
        });
        Self { dir, address: address.parse().unwrap(), credentials }
    }

    fn of(server: &S3) -> Self {
        Self::new(&server.address(), Some(&server.settings()))
    }

    fn open(&self, purpose: Purpose) -> Origin {
        Origin::open(&self.address, self.credentials.as_deref(), purpose).unwrap()
    }

    fn records(&self) -> Records {
        Records::new(self.dir.path().join("uploads"))
    }
}

/// The suite against a folder.
#[tokio::test]
async fn folder() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::new(&format!("file:{}", dir.path().display()), None);
    suite::run(&place).await;
}

/// A folder that is not there takes nothing: it may be that its disk is not mounted. A host starts
/// without it, and finds it when it is there.
#[tokio::test]
async fn missing_folder() {
    let dir = tempfile::tempdir().unwrap();
    let below = dir.path().join("not mounted");
    let place = Place::new(&format!("file:{}", below.display()), None);
    let e = Origin::open(&place.address, None, Purpose::Write).unwrap_err();
    assert!(e.to_string().contains("not mounted"), "{e}");
    assert_eq!(e.exit(), 78);
    let reader = place.open(Purpose::Read);
    let missing = reader.read(&suite::key(1), 3, 0..3).await.unwrap_err();
    assert_eq!(missing.why(), stork_origin::Why::Missing);
    std::fs::create_dir(&below).unwrap();
    let writer = place.open(Purpose::Write);
    writer.put(&suite::key(1), vec![1, 2, 3], &place.records(), &|_| {}).await.unwrap();
    assert_eq!(reader.read(&suite::key(1), 3, 1..3).await.unwrap(), [2, 3]);
}

/// The suite against the S3 server of this repository; what was put there is read over the plain
/// web as well, by a client without credentials.
#[tokio::test(flavor = "multi_thread")]
async fn own_s3() {
    let server = S3::start();
    let place = Place::of(&server);
    suite::run(&place).await;
    assert_eq!(server.open_uploads(), 0);
    assert!(server.objects().keys().all(|k| k.starts_with("origin/stork/v1/packs/")));
    suite::read_only(&Place::new(&server.web_address(), None)).await;
}

/// The suite against moto, which others wrote.
#[tokio::test(flavor = "multi_thread")]
async fn moto_s3() {
    match moto::Moto::start() {
        Ok(server) => suite::run(&server.place()).await,
        Err(why) => println!("skipped: moto cannot be run here: {why}"),
    }
}
