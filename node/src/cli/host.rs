//! `stork host`: the hosts of the fleet, and what they may take part in.
use clap::Subcommand;
use serde_json::{Value, json};
use stork_wire::text::{GroupName, Label};

use super::show::text;
use crate::control::{Client, ClientError};

#[derive(Debug, Subcommand)]
pub(super) enum HostCommand {
    /// The hosts that this one knows: site, private groups, labels.
    List,
    /// Change what a host may take part in, without another join.
    #[command(after_help = "Examples:
  stork host grant host-7 --group secrets       it may take part in this private group as well
  stork host grant host-7 --no-group secrets    not any more
  stork host grant host-7 --only --group web    in this one and no other; its labels go
  stork host grant NODEID --all-groups          in all, as without any word

On a host that admits others. It reaches every host like news, also while that one is off, and
counts beside any certificate. A host that has lost a group keeps what it had: give the group
another key with `stork-publish charter private GROUP --new-key`.")]
    Grant {
        /// The host's name, or its id.
        #[arg(value_name = "HOST")]
        host: String,
        /// A private group that it may take part in; several times for several.
        #[arg(long, value_name = "GROUP")]
        group: Vec<GroupName>,
        /// A private group that it may not take part in.
        #[arg(long, value_name = "GROUP")]
        no_group: Vec<GroupName>,
        /// What is named is all: groups and labels that it had before go.
        #[arg(long, conflicts_with_all = ["all_groups", "no_group", "no_label"])]
        only: bool,
        /// It may take part in all private groups.
        #[arg(long, conflicts_with_all = ["group", "no_group"])]
        all_groups: bool,
        /// A label that it gets; several times for several.
        #[arg(long, value_name = "LABEL")]
        label: Vec<Label>,
        /// A label that it loses.
        #[arg(long, value_name = "LABEL")]
        no_label: Vec<Label>,
    },
}

/// Asks the daemon; the answer, and its text.
pub(super) async fn answer(
    client: &Client,
    command: HostCommand,
) -> Result<(Value, String), ClientError> {
    match command {
        HostCommand::List => {
            let v = client.get("/v1/hosts").await?;
            let text = list(&v);
            Ok((v, text))
        }
        HostCommand::Grant { host, group, no_group, only, all_groups, label, no_label } => {
            let from = only.then_some("nothing").or_else(|| all_groups.then_some("all"));
            let body = json!({
                "host": host, "from": from, "groups": group, "no_groups": no_group,
                "labels": label, "no_labels": no_label,
            });
            let v = client.post("/v1/host-grants", &body).await?;
            let text = granted(&v);
            Ok((v, text))
        }
    }
}

fn words(v: &Value) -> String {
    let all: Vec<String> = v.as_array().into_iter().flatten().map(text).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

fn groups(v: &Value) -> String {
    if v.is_null() { "all".to_owned() } else { words(v) }
}

fn list(v: &Value) -> String {
    let mut out = String::new();
    for h in v["hosts"].as_array().into_iter().flatten() {
        out += &format!(
            "{} {} site {}: private groups {}, labels {}{}{}{}\n",
            text(&h["name"]),
            text(&h["id"]),
            text(&h["site"]),
            groups(&h["groups"]),
            words(&h["labels"]),
            if h["granted"] == true { " (said since it joined)" } else { "" },
            if h["here"] == true { ", this host" } else { "" },
            if h["online"] == true { "" } else { ", off" },
        );
    }
    let listed = v["hosts"].as_array().map_or(0, Vec::len) as u64;
    let more = v["hosts_in_all"].as_u64().unwrap_or(0).saturating_sub(listed);
    if more > 0 {
        out += &format!("… and {more} more\n");
    }
    out.trim_end().to_owned()
}

fn granted(v: &Value) -> String {
    let name = if v["name"].is_null() { text(&v["id"]) } else { text(&v["name"]) };
    let when = if v["connected"] == true {
        "it counts from now on"
    } else {
        "it counts at every host that hears of it, and there when it connects"
    };
    format!(
        "{name} may take part in private groups: {}; labels: {}\n{when}",
        groups(&v["groups"]),
        words(&v["labels"])
    )
}
