//! `stork store verify`: a bar on a terminal while the daemon hashes its store.
//!
//! The bar is on standard error, without colours. There is none with `--json`, and none where
//! standard error is no terminal: a log has no use for it.

use std::io::IsTerminal;

use serde_json::Value;
use stork_publisher::progress::Progress;

use crate::control::{Client, ClientError};

/// Verifies the store; the answer is the report.
pub(super) async fn verify(client: &Client, json: bool) -> Result<Value, ClientError> {
    let shown = !json && std::io::stderr().is_terminal();
    let bar = if shown { Progress::for_stderr() } else { Progress::Silent };
    let mut at = None;
    let mut step = |step: &Value| follow(&bar, &mut at, step);
    let report = client.post_lines("/v1/store/verify", &mut step).await;
    bar.done();
    report
}

/// Moves the bar to where the daemon is; the first step says how far it has to go.
fn follow(bar: &Progress, at: &mut Option<u64>, step: &Value) {
    let number = |key: &str| step.get(key).and_then(Value::as_u64).unwrap_or(0);
    let before = at.unwrap_or_else(|| {
        bar.phase("hashing the store", number("total"));
        0
    });
    let now = number("bytes");
    bar.advance(now.saturating_sub(before));
    *at = Some(now.max(before));
}
