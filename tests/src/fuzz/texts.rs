//! Texts of operators: join tokens and configuration files. A mistake in one is told, with help,
//! and in words that can be shown on a terminal.

use stork_node::catalog::VmFile;
use stork_node::config::NodeConfig;
use stork_wire::charter::JoinToken;

use super::{feature, kind_of};

pub(super) fn token(data: &[u8]) -> String {
    let text = String::from_utf8_lossy(data);
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
