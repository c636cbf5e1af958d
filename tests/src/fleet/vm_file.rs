//! A VM's file, written part by part.

use std::fmt::Write;
use std::path::Path;

/// The text of a VM's file.
#[derive(Debug, Clone)]
pub struct VmFile {
    head: String,
    view: String,
    rest: String,
}

impl VmFile {
    /// A VM of these groups that is shown a tree of hard links at `target`.
    #[must_use]
    pub fn new(groups: &[&str], target: &Path) -> Self {
        let view = format!("target = {target:?}\n");
        let view = format!("[view]\nbackend = \"hardlink\"\nisolation = \"none\"\n{view}");
        Self { head: format!("[vm]\ngroups = {groups:?}\n"), view, rest: String::new() }
    }

    /// The usual VM: everything of its groups, from `acme`.
    #[must_use]
    pub fn usual(groups: &[&str], target: &Path) -> Self {
        Self::new(groups, target).subscribe("*").trust("allow = \"acme\"")
    }

    /// Shows a read-only mount instead of hard links.
    #[must_use]
    pub fn mounted(mut self) -> Self {
        self.view =
            self.view.replace("\"hardlink\"", "\"tree\"").replace("isolation = \"none\"\n", "");
        self
    }

    /// Shows what a backend of that name makes, mounted.
    #[must_use]
    pub fn shown_as(self, backend: &str) -> Self {
        let mut file = self.mounted();
        file.view = file.view.replace("\"tree\"", &format!("{backend:?}"));
        file
    }

    /// A line of `[vm]`, for example `arch = "arm64"`.
    #[must_use]
    pub fn vm(mut self, line: &str) -> Self {
        writeln!(self.head, "{line}").unwrap();
        self
    }

    /// A line of `[view]`.
    #[must_use]
    pub fn view(mut self, line: &str) -> Self {
        writeln!(self.view, "{line}").unwrap();
        self
    }

    fn table(mut self, name: &str, lines: &str) -> Self {
        writeln!(self.rest, "[[{name}]]\n{lines}").unwrap();
        self
    }

    /// Subscribes to packages by name or pattern.
    #[must_use]
    pub fn subscribe(self, package: &str) -> Self {
        self.table("subscribe", &format!("package = \"{package}\""))
    }

    /// Subscribes to versions of packages.
    #[must_use]
    pub fn subscribe_to(self, package: &str, version: &str) -> Self {
        let lines = format!("package = \"{package}\"\nversion = \"{version}\"");
        self.table("subscribe", &lines)
    }

    /// Subscribes to packages of one group only.
    #[must_use]
    pub fn subscribe_in(self, package: &str, group: &str) -> Self {
        self.table("subscribe", &format!("package = \"{package}\"\ngroup = \"{group}\""))
    }

    /// Pins a package.
    #[must_use]
    pub fn pin(self, package: &str, version: &str) -> Self {
        self.table("pin", &format!("package = \"{package}\"\nversion = \"{version}\""))
    }

    /// Holds a package.
    #[must_use]
    pub fn hold(self, package: &str, reason: &str) -> Self {
        self.table("hold", &format!("package = \"{package}\"\nreason = \"{reason}\""))
    }

    /// A trust rule, for example `allow = "acme"`.
    #[must_use]
    pub fn trust(self, lines: &str) -> Self {
        self.table("trust", lines)
    }

    /// A hook.
    #[must_use]
    pub fn hook(mut self, command: &Path, on_failure: &str) -> Self {
        let lines = format!("command = {command:?}\non_failure = \"{on_failure}\"");
        writeln!(self.rest, "[hook]\n{lines}").unwrap();
        self
    }

    /// The whole text.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}", self.head, self.rest, self.view)
    }
}
