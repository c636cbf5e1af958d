//! What a test lets the server do wrong.

use std::time::Duration;

use axum::http::{Method, Uri};

/// One way to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Says so, with this status.
    Status(u16),
    /// Sends half of what it promised and hangs up.
    Truncate,
    /// Sends other bytes than it has.
    Lie,
    /// Takes its time.
    Slow(Duration),
    /// Sends the whole object whatever was asked for.
    IgnoreRange,
}

/// Which requests fail, how, and how often.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    kind: Option<(Fault, String)>,
    left: usize,
    skip: usize,
}

impl Faults {
    /// The next `times` requests fail whose method, path and query hold `text`.
    #[must_use]
    pub fn of(fault: Fault, text: &str, times: usize) -> Self {
        Self { kind: Some((fault, text.to_owned())), left: times, skip: 0 }
    }

    /// But not the first few of them.
    #[must_use]
    pub const fn after(mut self, skip: usize) -> Self {
        self.skip = skip;
        self
    }

    pub(super) fn next(&mut self, method: &Method, uri: &Uri) -> Option<Fault> {
        let (fault, text) = self.kind.as_ref()?;
        if self.left == 0 || !format!("{method} {uri}").contains(text.as_str()) {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        self.left -= 1;
        Some(*fault)
    }
}
