//! `[quota]`: how much content publishers and groups may bring to this host, and each VM may have
//! (attack A10).
//!
//! What counts is what the host's VMs want: the bytes of their files once unpacked, each release
//! once. A release that would pass a quota is not fetched, and is tried again: others go on.

use std::collections::BTreeMap;

use serde::Deserialize;

/// What one VM may have: all that its packages unpack to, whether or not other VMs share it. So a
/// VM's room does not depend on others, and tells nothing about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VmQuota {
    /// Bytes of files; 0: no limit.
    pub bytes: u64,
    /// Files, folders and links; 0: no limit.
    pub files: u64,
}

/// The quotas of this node, in bytes; 0: no limit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuotaConfig {
    /// Of each publisher that is not named below.
    pub publisher_bytes: u64,
    /// Of each group that is not named below.
    pub group_bytes: u64,
    /// By the name that a group gives a publisher, or its id.
    pub publishers: BTreeMap<String, u64>,
    /// By the name of a group.
    pub groups: BTreeMap<String, u64>,
    /// Of each VM that is not named below.
    pub vm: VmQuota,
    /// By the name of a VM.
    pub vms: BTreeMap<String, VmQuota>,
}

fn of(named: &BTreeMap<String, u64>, names: &[&str], else_bytes: u64) -> Option<u64> {
    let found = names.iter().find_map(|n| named.get(*n).copied());
    Some(found.unwrap_or(else_bytes)).filter(|bytes| *bytes > 0)
}

impl QuotaConfig {
    /// Is there any quota at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What a publisher with one of these names may bring; `None` for no limit.
    #[must_use]
    pub fn publisher(&self, names: &[&str]) -> Option<u64> {
        of(&self.publishers, names, self.publisher_bytes)
    }

    /// What a VM may have.
    #[must_use]
    pub fn of_vm(&self, name: &str) -> VmQuota {
        self.vms.get(name).copied().unwrap_or(self.vm)
    }

    /// What a group may bring; `None` for no limit.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<u64> {
        of(&self.groups, &[name], self.group_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names come before the rest, and 0 is no limit, also for one name.
    #[test]
    fn names_come_first() {
        let text = "publisher_bytes = 10\npublishers = { acme = 20, big = 0 }\ngroups.web = 5\n";
        let quota: QuotaConfig = toml::from_str(text).unwrap();
        assert_eq!(quota.publisher(&["acme"]), Some(20));
        assert_eq!(quota.publisher(&["other"]), Some(10));
        assert_eq!(quota.publisher(&["big"]), None);
        assert_eq!((quota.group("web"), quota.group("db")), (Some(5), None));
        assert!(!quota.is_empty() && QuotaConfig::default().is_empty());
        assert!(toml::from_str::<QuotaConfig>("publisher = 1").is_err());
        let text = "vm = { bytes = 10 }\nvms.web-1 = { files = 3 }\n";
        let quota: QuotaConfig = toml::from_str(text).unwrap();
        assert_eq!(quota.of_vm("web-2"), VmQuota { bytes: 10, files: 0 });
        assert_eq!(quota.of_vm("web-1"), VmQuota { bytes: 0, files: 3 });
    }
}
