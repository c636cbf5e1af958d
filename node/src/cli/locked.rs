//! What the daemon took away from itself, in `stork status`.

use serde_json::Value;

use super::show::joined;

/// The line of the status; empty for a daemon that says nothing about it.
pub(super) fn line(v: &Value) -> String {
    let s = &v["sandbox"];
    let is = |name: &str| s[name] == Value::Bool(true);
    if s.is_null() {
        return String::new();
    }
    if !is("enabled") {
        return "\nSANDBOX OFF: the daemon keeps all rights of its user\n  \
                help: take `enabled = false` out of [sandbox] in node.toml and restart it"
            .to_owned();
    }
    let closed = match (is("files"), is("calls")) {
        (true, true) => "files and system calls",
        (true, false) => "files",
        (false, true) => "system calls, but not files",
        (false, false) => "nothing",
    };
    let who = if s["uid"] == 0 { "root".to_owned() } else { format!("user {}", s["uid"]) };
    let rights = match s["capabilities"].as_array().is_none_or(Vec::is_empty) {
        true => "no capability".to_owned(),
        false => joined(&s["capabilities"]).replace(", ", " "),
    };
    let views = match (is("view_helper"), is("files"), is("mounts")) {
        (true, ..) => "; a process without network mounts views".to_owned(),
        (false, true, _) => format!("; views in {}", joined(&s["views"])),
        (false, false, true) => "; may mount views".to_owned(),
        (false, false, false) => String::new(),
    };
    format!("\nsandbox: {closed} closed; {who} with {rights}{views}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What is closed is said, and loudly that nothing is.
    #[test]
    fn lines() {
        let locked = json!({ "sandbox": { "enabled": true, "files": true, "calls": true,
            "mounts": false, "uid": 998, "capabilities": [], "views": ["/srv/views"] } });
        assert_eq!(
            line(&locked),
            "\nsandbox: files and system calls closed; user 998 with no capability; views in \
             /srv/views"
        );
        let root = json!({ "sandbox": { "enabled": true, "files": false, "calls": true,
            "mounts": true, "uid": 0, "capabilities": ["CHOWN", "SYS_ADMIN"], "views": [] } });
        assert_eq!(
            line(&root),
            "\nsandbox: system calls, but not files closed; root with CHOWN SYS_ADMIN; may mount \
             views"
        );
        let helped = json!({ "sandbox": { "enabled": true, "files": true, "calls": true,
            "mounts": true, "view_helper": true, "uid": 998, "capabilities": [], "views": [] } });
        assert_eq!(
            line(&helped),
            "\nsandbox: files and system calls closed; user 998 with no capability; a process \
             without network mounts views"
        );
        assert!(line(&json!({ "sandbox": { "enabled": false } })).contains("SANDBOX OFF"));
        assert_eq!(line(&json!({})), "");
    }
}
