//! What every origin must do.

use stork_origin::{Key, Purpose, Put, Why};
use stork_tests::fleet::noise;
use stork_wire::ids::PackId;

use super::Place;

/// Longer than what goes in one request, and no whole number of parts.
pub(crate) const LARGE: usize = 20 * 1024 * 1024 + 3;

pub(crate) fn key(n: u8) -> Key {
    Key::pack(PackId([n; 32]))
}

fn part_of(bytes: &[u8], from: u64, to: u64) -> &[u8] {
    let place = |n: u64| usize::try_from(n).unwrap();
    bytes.get(place(from)..place(to)).unwrap()
}

/// Puts, puts again, reads parts, and finds what is missing or has another length.
pub(crate) async fn run(place: &Place) {
    let (writer, reader) = (place.open(Purpose::Write), place.open(Purpose::Read));
    let records = place.records();
    for (n, len) in [(1, 1_000), (2, LARGE)] {
        let bytes = noise("suite", len);
        let size = len as u64;
        let missing = reader.read(&key(n), size, 0..1).await.unwrap_err();
        assert_eq!(missing.why(), Why::Missing, "{missing}");
        let put = writer.put(&key(n), bytes.clone(), &records, &|_| {}).await.unwrap();
        assert_eq!(put, Put::Stored { resumed: 0 });
        let again = writer.put(&key(n), bytes.clone(), &records, &|_| {}).await.unwrap();
        assert_eq!(again, Put::Present);
        for (from, to) in [(0, size), (0, 1), (size - 1, size), (300, 900)] {
            let read = reader.read(&key(n), size, from..to).await.unwrap();
            assert!(read == part_of(&bytes, from, to), "{from}..{to} of {len}");
        }
        let short = reader.read(&key(n), size + 1, 0..10).await.unwrap_err();
        assert_eq!(short.why(), Why::Wrong, "{short}");
        let text = short.to_string();
        let named = text.contains(&place.address.to_string()) && text.contains(key(n).as_str());
        assert!(named && text.contains(&size.to_string()), "{text}");
        // What is there is never replaced.
        let other = writer.put(&key(n), vec![0; len + 1], &records, &|_| {}).await.unwrap_err();
        assert_eq!(other.why(), Why::Wrong, "{other}");
        assert!(reader.read(&key(n), size, 0..size).await.unwrap() == bytes);
    }
    two_at_once(place).await;
}

/// Two publishers put the same object at the same moment: it is there once, and whole.
async fn two_at_once(place: &Place) {
    let (a, b) = (place.open(Purpose::Write), place.open(Purpose::Write));
    let bytes = noise("both", 400_000);
    let (records, none) = (place.records(), |_| {});
    let key = key(3);
    let (one, two) = tokio::join!(
        a.put(&key, bytes.clone(), &records, &none),
        b.put(&key, bytes.clone(), &records, &none)
    );
    let stored = [one.unwrap(), two.unwrap()].iter().filter(|p| **p != Put::Present).count();
    assert!((1..=2).contains(&stored));
    assert!(a.read(&key, 400_000, 0..400_000).await.unwrap() == bytes);
}

/// The same content through a web server, where nothing can be put.
pub(crate) async fn read_only(place: &Place) {
    let web = place.open(Purpose::Read);
    let (bytes, size) = (noise("suite", LARGE), LARGE as u64);
    let read = web.read(&key(2), size, 5_000_000..9_000_000).await.unwrap();
    assert!(read == part_of(&bytes, 5_000_000, 9_000_000));
    assert_eq!(web.read(&key(9), 10, 0..10).await.unwrap_err().why(), Why::Missing);
    let e = web.put(&key(9), vec![1], &place.records(), &|_| {}).await.unwrap_err();
    assert!(e.to_string().contains("only read"), "{e}");
}
