//! Permits of operators to go back: kept in the store, checked again at each start.

use serde_json::{Value, json};
use stork_wire::codec::{decode, encode};
use stork_wire::permit::{DowngradePermit, PermitText};
use stork_wire::sign::Envelope;

use super::{CallError, Driver};
use crate::trust::PermitError;

/// Bytes of a kept permit at the most.
const ROW_LEN_MAX: usize = 4_096;
/// What the names of their rows begin with.
const ROWS: &str = "permit:";

fn row(envelope: &Envelope) -> String {
    format!("{ROWS}{}", envelope.hash())
}

impl Driver {
    /// Reads the permits that were kept. What is worth nothing any more is dropped, also where the
    /// node's file names its operator no longer.
    pub(super) fn load_permits(&mut self) {
        let rows = self.store.list_state(ROWS).unwrap_or_else(|e| {
            tracing::error!("permits cannot be read: {e}");
            Vec::new()
        });
        for (name, bytes) in rows {
            let envelope = decode::<Envelope>(&bytes, ROW_LEN_MAX).ok();
            let taken = envelope.and_then(|e| self.check_permit(&e).ok());
            if taken.is_none()
                && let Err(e) = self.store.remove_state(&name)
            {
                tracing::warn!("an old permit stays on disk: {e}");
            }
        }
    }

    fn check_permit(&mut self, envelope: &Envelope) -> Result<DowngradePermit, PermitError> {
        let (fleet, now) = (self.trust.fleet(), self.clock.unix());
        self.permits.add(envelope, fleet, &self.config.operator_keys, now)
    }

    /// Takes a permit that an operator brings: on disk first, then in force.
    pub(super) fn take_permit(&mut self, text: &str) -> Result<Value, CallError> {
        let refused = |why: &dyn core::fmt::Display, help: &str| {
            CallError::Refused(format!("the permit is not taken: {why}"), help.to_owned())
        };
        let PermitText(envelope) = text
            .parse::<PermitText>()
            .map_err(|e| refused(&e, "give the whole text that `stork permit create` printed"))?;
        let claimed = envelope.claimed::<DowngradePermit>().ok();
        if let Some(vm) = claimed.map(|p| p.vm).filter(|vm| !self.vms.contains_key(vm)) {
            return Err(refused(&PermitError::OtherVm(vm), "`stork vm` lists those that it has"));
        }
        let before = self.permits.clone();
        let permit = self.check_permit(&envelope).map_err(|e| {
            let help = match e {
                PermitError::NoOperator => {
                    "name the operator's public key in node.toml: `operators = [\"FILE.pub\"]`"
                }
                PermitError::Signature(_) => "`operators` in node.toml says whose permits count",
                PermitError::Expired(_) | PermitError::FutureDated(_) => {
                    "make a new one, and look at the clocks"
                }
                PermitError::OtherVm(_) => "`stork vm` lists those that it has",
                PermitError::TooMany => "wait until some have run out",
            };
            refused(&e, help)
        })?;
        if let Err(e) = self.store.put_state(&row(&envelope), &encode(&envelope)) {
            self.permits = before;
            return Err(refused(&e, e.help()));
        }
        let DowngradePermit { vm, package, release, until, .. } = &permit;
        let text = format!("{vm} may go back to release {release} of {package} until {until}");
        self.event("permit_taken", text);
        self.replan_soon();
        Ok(json!({ "schema": "stork.permit/v1", "permit": self.permit_json(&permit) }))
    }

    fn permit_json(&self, p: &DowngradePermit) -> Value {
        json!({
            "vm": p.vm, "package": p.package, "release": p.release,
            "publisher": self.trust.charter().publisher_name(p.publisher),
            "publisher_id": p.publisher, "issued": p.issued, "until": p.until,
            "good": p.until > self.clock.unix(),
        })
    }

    /// All permits that are kept.
    pub(super) fn permits_json(&self) -> Value {
        let all: Vec<Value> = self.permits.all().iter().map(|p| self.permit_json(p)).collect();
        let operators: Vec<Value> =
            self.config.operator_keys.iter().map(|k| json!({ "public_key": k })).collect();
        json!({
            "schema": "stork.permits/v1", "fleet": self.trust.fleet(),
            "operators": operators, "permits": all,
        })
    }
}
