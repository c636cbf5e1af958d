//! How far a long step is: a bar on a terminal, plain lines elsewhere, nothing in tests.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::out;

/// Where progress is shown. It goes to stderr: stdout holds results only.
#[derive(Debug, Clone)]
pub enum Progress {
    /// A bar that is redrawn.
    Bar(ProgressBar),
    /// One line a phase.
    Lines,
    /// Nothing.
    Silent,
}

impl Progress {
    /// A bar if stderr is a terminal, lines if not.
    #[must_use]
    pub fn for_stderr() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Lines;
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.enable_steady_tick(Duration::from_millis(200));
        Self::Bar(bar)
    }

    /// A new phase of `total` bytes, or of unknown length when that is 0.
    pub fn phase(&self, what: &str, total: u64) {
        match self {
            Self::Bar(bar) => {
                let template = if total == 0 {
                    "{msg} {spinner}"
                } else {
                    "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}"
                };
                if let Ok(style) = ProgressStyle::with_template(template) {
                    bar.set_style(style.progress_chars("=> "));
                }
                bar.reset();
                if total > 0 {
                    bar.set_length(total);
                }
                bar.set_message(what.to_owned());
            }
            Self::Lines if total > 0 => out::chat(&format!("{what} ({})", out::bytes(total))),
            Self::Lines => out::chat(what),
            Self::Silent => {}
        }
    }

    /// So many bytes more are done.
    pub fn advance(&self, bytes: u64) {
        if let Self::Bar(bar) = self {
            bar.inc(bytes);
        }
    }

    /// A line for people.
    pub fn note(&self, text: &str) {
        match self {
            Self::Bar(bar) => bar.suspend(|| out::chat(text)),
            Self::Lines => out::chat(text),
            Self::Silent => {}
        }
    }

    /// Nothing more comes: the bar goes away.
    pub fn done(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}
