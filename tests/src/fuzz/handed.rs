//! What is handed over outside of the fleet's protocols: charter bundles, changes that wait for
//! signatures, a publisher's settings, and what the daemon orders of the view helper.

use stork_node::view::order::{ORDER_LEN_MAX, Order};
use stork_publisher::bundle::{read_bundle, write_bundle};
use stork_publisher::charter::{Pending, Profile};
use stork_wire::codec::{decode, encode};

use super::samples::Fleet;
use super::{feature, kind_of};

/// The first byte says as which file of a charter the rest is read.
pub(super) fn charter_file(data: &[u8]) -> String {
    let Some((kind, rest)) = data.split_first() else { return feature("nothing", 0) };
    match kind % 2 {
        0 => match read_bundle(rest) {
            Ok(items) => {
                assert_eq!(write_bundle(&items).unwrap(), rest);
                feature(&format!("bundle {}", items.len().min(4)), data.len())
            }
            Err(e) => feature(&kind_of(&e), data.len()),
        },
        _ => match Pending::parse(rest) {
            Ok(pending) => {
                let text = pending.text(&[]).unwrap();
                assert_eq!(Pending::parse(text.as_bytes()), Ok(pending));
                feature("pending", data.len())
            }
            Err(e) => feature(&kind_of(&e), data.len()),
        },
    }
}

pub(super) fn charter_files() -> Vec<Vec<u8>> {
    let fleet = Fleet::new();
    let bundle = write_bundle(&fleet.documents).unwrap();
    let pending = Pending { fleet: fleet.fleet, items: fleet.documents };
    let text = pending.text(&["to sign".into()]).unwrap();
    vec![[&[0], &*bundle].concat(), [&[1], text.as_bytes()].concat()]
}

/// The settings of a publisher's folder.
pub(super) fn publisher_toml(data: &[u8]) -> String {
    let text = String::from_utf8_lossy(data);
    match toml::from_str::<Profile>(&text) {
        Ok(profile) => {
            let again = toml::to_string(&profile).unwrap();
            assert_eq!(toml::from_str::<Profile>(&again).as_ref(), Ok(&profile));
            feature(&format!("{} groups", profile.groups.len().min(4)), data.len())
        }
        Err(e) => feature(&kind_of(&e.message()), data.len()),
    }
}

pub(super) fn publisher_tomls() -> Vec<Vec<u8>> {
    let fleet = Fleet::new();
    let all = format!(
        "fleet = \"{}\"\npublisher = \"{}\"\nrelease_key = \"ssh-agent:x\"\n\
         origin = \"s3://bucket/prefix\"\norigin_credentials = \"c.toml\"\n\
         [[group]]\nid = \"{}\"\nname = \"web\"\n",
        fleet.fleet, fleet.publisher, fleet.group
    );
    let short = format!("fleet = \"{}\"\npublisher = \"{}\"\n", fleet.fleet, fleet.publisher);
    vec![all.into_bytes(), short.into_bytes()]
}

/// An order as the view helper reads it.
pub(super) fn view_order(data: &[u8]) -> String {
    match decode::<Order>(data, ORDER_LEN_MAX) {
        Ok(order) => {
            assert_eq!(encode(&order), data);
            let what = format!("{order:?}");
            let what = what.split("what: ").nth(1).and_then(|w| w.split([' ', '(', '{']).next());
            feature(what.unwrap_or_default(), data.len())
        }
        Err(e) => feature(&kind_of(&e), data.len()),
    }
}

pub(super) fn view_orders() -> Vec<Vec<u8>> {
    let shows = (7u64, "ab".repeat(32), Some(6u64));
    let head = |what: u8| encode(&("db", 0u8, "/views/db", [3u8; 32], what));
    let mut all: Vec<Vec<u8>> = [0, 1, 5].map(head).to_vec();
    let switch = (&shows, Some(&shows), (true, false), vec!["cd".repeat(32)]);
    all.push([head(2), encode(&switch)].concat());
    all.push([head(3), encode(&shows)].concat());
    all.push([head(4), encode(&vec![1u64, 2, 3])].concat());
    all.push([head(7), encode(&9u64)].concat());
    all
}
