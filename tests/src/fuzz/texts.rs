//! Texts of operators: join tokens and configuration files. A mistake in one is told, with help,
//! and in words that can be shown on a terminal.

use core::fmt::Debug;

use serde::de::DeserializeOwned;
use stork_node::catalog::VmFile;
use stork_node::config::NodeConfig;
use stork_node::control::{GcBody, HostGrantBody, PermitBody, RollbackBody, SwitchBody, TokenBody};
use stork_wire::charter::JoinToken;
use stork_wire::permit::PermitText;

use super::{feature, kind_of};

pub(super) fn token(data: &[u8]) -> String {
    let text = String::from_utf8_lossy(data);
    if text.starts_with("stork-permit1-") {
        return permit(&text, data.len());
    }
    match JoinToken::from_text(&text) {
        Ok((token, envelope)) => {
            assert!(!token.addrs.is_empty() && token.expires > token.issued);
            let again = JoinToken::to_text(&envelope);
            assert!(again.eq_ignore_ascii_case(text.trim()), "two texts for one token");
            feature("token", data.len())
        }
        Err(e) => {
            shown(&e.to_string());
            feature(&kind_of(&e), data.len())
        }
    }
}

fn permit(text: &str, len: usize) -> String {
    match text.parse::<PermitText>() {
        Ok(permit) => {
            assert!(permit.to_string().eq_ignore_ascii_case(text.trim()), "two texts");
            feature("permit", len)
        }
        Err(e) => {
            shown(&e.to_string());
            feature(&kind_of(&e), len)
        }
    }
}

/// What is printed holds no control characters but line ends, with which the parser draws.
fn shown(text: &str) {
    let odd = |c: char| c.is_control() && c != '\n' && c != '\t';
    assert!(!text.chars().any(odd), "an error forges the terminal: {text:?}");
}

pub(super) fn node_toml(data: &[u8]) -> String {
    let text = String::from_utf8_lossy(data);
    match toml::from_str::<NodeConfig>(&text) {
        Ok(config) => {
            assert_eq!(config, config.clone());
            feature(&format!("{:?} {}", config.log, config.advertise.len()), data.len())
        }
        Err(e) => feature(&kind_of(&e.message()), data.len()),
    }
}

pub(super) fn vm_toml(data: &[u8]) -> String {
    let text = String::from_utf8_lossy(data);
    match VmFile::parse("vm", &text) {
        Ok(file) => {
            assert!((2..=100).contains(&file.keep_generations));
            assert!(file.hook.is_none_or(|h| (1..=3_600).contains(&h.timeout_s)));
            let counts = (file.subscriptions.len(), file.pins.len(), file.rules.len());
            feature(&format!("{counts:?}"), data.len())
        }
        Err(e) => {
            assert!(!e.help.is_empty(), "no help for: {}", e.message);
            let first = e.message.lines().last().unwrap_or_default();
            feature(&kind_of(&first), data.len())
        }
    }
}

/// The first byte says to which route the rest is sent as a body.
pub(super) fn control_request(data: &[u8]) -> String {
    fn one<T: DeserializeOwned + Debug + Clone + PartialEq>(what: &str, data: &[u8]) -> String {
        match serde_json::from_slice::<T>(data) {
            Ok(body) => {
                let shown = format!("{body:?}");
                assert!(!shown.chars().any(char::is_control), "{shown:?} forges the terminal");
                // What is refused is refused whole: a body is one object, and all of it is known.
                let text = str::from_utf8(data).unwrap().trim();
                assert!(matches!(text.as_bytes(), [b'{', .., b'}'] | [b'[', .., b']']), "{text}");
                feature(what, data.len())
            }
            Err(e) => feature(&format!("{what} {}", kind_of(&e)), data.len()),
        }
    }
    let Some((route, rest)) = data.split_first() else { return feature("nothing", 0) };
    match route % 6 {
        0 => one::<RollbackBody>("rollback", rest),
        1 => one::<TokenBody>("token", rest),
        3 => one::<SwitchBody>("switch", rest),
        4 => one::<PermitBody>("permit", rest),
        5 => one::<HostGrantBody>("grant", rest),
        _ => one::<GcBody>("gc", rest),
    }
}

pub(super) fn control_requests() -> Vec<Vec<u8>> {
    let bodies: [(u8, &str); 11] = [
        (0, "{\"to\":7}"),
        (0, "{\"to\":null,\"undo\":true}"),
        (1, "{\"name\":\"host-8\",\"site\":\"default\",\"ttl_s\":600}"),
        (1, "{\"ttl_s\":18446744073709551615}"),
        (1, "{\"name\":\"\\u001b[31m\",\"ttl_s\":1}"),
        (2, "{\"dry_run\":true}"),
        (1, "{\"ttl_s\":1,\"groups\":[\"web\"],\"labels\":[\"edge\"]}"),
        (2, "{}"),
        (5, "{\"host\":\"h\",\"from\":\"nothing\",\"groups\":[\"web\"],\"labels\":[]}"),
        (3, "{\"now\":true}"),
        (4, "{\"permit\":\"stork-permit1-x\"}"),
    ];
    bodies.map(|(route, body)| [&[route], body.as_bytes()].concat()).to_vec()
}
