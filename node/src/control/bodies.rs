//! The JSON bodies of requests to the control socket. A field that is not known is refused, so that
//! a slip in a name is not taken for a wish that was not made.

use serde::Deserialize;
use stork_wire::text::{GroupName, Label};

use crate::driver::Base;

/// `POST /v1/vms/{vm}/rollback`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackBody {
    /// To which generation; `None`: to the one before.
    pub to: Option<u64>,
    /// Takes a rollback back instead.
    #[serde(default)]
    pub undo: bool,
}

/// `POST /v1/vms/{vm}/switch`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchBody {
    /// Do not wait for the time that the VM's file names.
    #[serde(default)]
    pub now: bool,
}

/// `POST /v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenBody {
    /// For which host; `None`: for any.
    pub name: Option<Label>,
    /// Where that host stands.
    pub site: Option<Label>,
    /// For how long the token is good.
    pub ttl_s: u64,
    /// Private groups that the host may take part in; `None`: all.
    pub groups: Option<Vec<GroupName>>,
    /// Labels for its certificate.
    #[serde(default)]
    pub labels: Vec<Label>,
}

/// `POST /v1/host-grants`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostGrantBody {
    /// A host's name or id.
    pub host: String,
    /// With what the change begins; `None`: with what the host has.
    pub from: Option<Base>,
    /// Private groups that it may take part in.
    #[serde(default)]
    pub groups: Vec<GroupName>,
    /// Private groups that it may not.
    #[serde(default)]
    pub no_groups: Vec<GroupName>,
    /// Labels that it gets.
    #[serde(default)]
    pub labels: Vec<Label>,
    /// Labels that it loses.
    #[serde(default)]
    pub no_labels: Vec<Label>,
}

/// `POST /v1/group-keys`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupKeyBody {
    /// The text of a key file.
    pub(super) key: String,
}

/// `POST /v1/store/gc`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GcBody {
    /// Only counts.
    #[serde(default)]
    pub dry_run: bool,
}

/// `POST /v1/permits`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PermitBody {
    /// A signed permit as text.
    pub permit: String,
}
