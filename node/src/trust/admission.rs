//! Who may take part: host certificates, peer records, join tokens, push certificates.

use stork_wire::charter::{HostCert, JoinToken, PeerRecord, PushCert, UnixSeconds};
use stork_wire::frame::PeerHint;
use stork_wire::ids::{FleetId, NodeId, PublicKey, PublisherId};
use stork_wire::limits::CLOCK_SKEW_S;
use stork_wire::sign::{Envelope, VerifyError};

use super::Trust;

/// Seconds after its end in which a certificate still brings a new one: half a year. Who was away
/// for longer shows a token again, so that a disk forgotten in a drawer is no key for ever.
pub(super) const LATE_MAX_S: u64 = 182 * 86_400;

/// Why a host or publisher is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionError {
    /// This node has no root document yet.
    #[error("this node does not know its fleet's root document yet")]
    NoCharter,
    /// Another fleet.
    #[error("it belongs to the fleet {}", .0.short())]
    OtherFleet(FleetId),
    /// The signature is not good.
    #[error("{what}: {error}")]
    Signature {
        /// Certificate, record or token.
        what: &'static str,
        /// What is wrong.
        #[source]
        error: VerifyError,
    },
    /// It names another key than the connection showed.
    #[error("{0} is for another key than the connection showed")]
    OtherKey(&'static str),
    /// It has run out, or is not valid yet.
    #[error("{0} has run out, or is not valid yet: check the clocks")]
    Time(&'static str),
    /// The token is for another node.
    #[error("the token is for the node {}", .0.short())]
    OtherNode(NodeId),
    /// The publisher is not known here.
    #[error("the publisher is not known here: no group names it")]
    UnknownPublisher,
    /// The host was denied after its certificate was issued.
    #[error("the host is denied: {0}")]
    Denied(String),
    /// The release key has ended itself.
    #[error("the release key {0} has ended itself")]
    DeadKey(String),
}

impl AdmissionError {
    /// All stable words, so that each has a metric before it has happened.
    pub const CODES: &[&str] = &[
        "no_charter",
        "other_fleet",
        "bad_signature",
        "other_key",
        "out_of_time",
        "other_node",
        "unknown_publisher",
        "denied",
        "dead_key",
    ];

    /// The stable word for counters and `--json`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoCharter => "no_charter",
            Self::OtherFleet(_) => "other_fleet",
            Self::Signature { .. } => "bad_signature",
            Self::OtherKey(_) => "other_key",
            Self::Time(_) => "out_of_time",
            Self::OtherNode(_) => "other_node",
            Self::UnknownPublisher => "unknown_publisher",
            Self::Denied(_) => "denied",
            Self::DeadKey(_) => "dead_key",
        }
    }
}

/// A host whose certificate and record were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedPeer {
    /// The certificate.
    pub cert: HostCert,
    /// The record.
    pub record: PeerRecord,
    /// Both, as they came.
    pub hint: PeerHint,
}

pub(super) fn check_time(
    what: &'static str,
    issued: UnixSeconds,
    expires: UnixSeconds,
    now: UnixSeconds,
) -> Result<(), AdmissionError> {
    if issued > now.saturating_add(CLOCK_SKEW_S) || expires <= now {
        Err(AdmissionError::Time(what))
    } else {
        Ok(())
    }
}

impl Trust {
    /// Verifies a certificate by the admission role in force, or by one of an earlier root document
    /// whose keys the newest one still believes. `expires` of what is returned is not later than
    /// the end of that belief, and `scope` is what its host may take part in by now.
    fn verify_cert(
        &self,
        envelope: &Envelope,
        now: UnixSeconds,
    ) -> Result<HostCert, AdmissionError> {
        let root = self.charter.root().ok_or(AdmissionError::NoCharter)?;
        let fleet = self.fleet();
        let by = |keys: &[PublicKey], needed| envelope.verify::<HostCert>(fleet, keys, needed);
        let error = match by(&root.admission.keys, root.admission.needed()) {
            Ok(v) => return Ok(self.as_granted(v.into_body())),
            Err(error) => error,
        };
        let past: Vec<_> = root.admission_before.iter().filter(|p| now < p.until).collect();
        let roles = self.charter.denials.earlier_admissions().iter().filter(|_| !past.is_empty());
        for role in roles {
            let keys = role.keys.iter().filter(|k| past.iter().any(|p| p.key == **k));
            let keys: Vec<PublicKey> = keys.copied().collect();
            let Ok(v) = by(&keys, role.needed()) else { continue };
            let ends = past.iter().filter(|p| v.signers().contains(&p.key)).map(|p| p.until);
            let end = ends.min().unwrap_or_default();
            let mut cert = v.into_body();
            cert.expires = cert.expires.min(end);
            return Ok(self.as_granted(cert));
        }
        Err(AdmissionError::Signature { what: "the certificate", error })
    }

    /// The certificate with what its host may take part in by now.
    fn as_granted(&self, mut cert: HostCert) -> HostCert {
        cert.scope = self.charter.scope_of(cert.node, cert.scope.take());
        cert
    }

    /// Does the admission role in force sign this certificate? One that only earlier keys signed
    /// is to be renewed, whatever its age.
    #[must_use]
    pub fn is_by_newest(&self, envelope: &Envelope) -> bool {
        self.charter.admission().is_some_and(|(keys, needed)| {
            envelope.verify::<HostCert>(self.fleet(), keys, needed).is_ok()
        })
    }

    /// May this key sign certificates and tokens alone?
    #[must_use]
    pub fn admits_by(&self, key: &PublicKey) -> bool {
        self.charter.admission().is_some_and(|(keys, needed)| needed == 1 && keys.contains(key))
    }

    /// Until when a certificate is good by its own end and its signers; 0 where no key signed it
    /// that is believed.
    #[must_use]
    pub fn cert_until(&self, envelope: &Envelope, now: UnixSeconds) -> UnixSeconds {
        self.verify_cert(envelope, now).map_or(0, |c| c.expires)
    }

    /// Checks a certificate that has run out, of a host that asks for a new one: everything but its
    /// end, which is not longer ago than half a year.
    pub fn check_late(
        &self,
        envelope: &Envelope,
        now: UnixSeconds,
    ) -> Result<HostCert, AdmissionError> {
        let cert = self.verify_cert(envelope, now)?;
        let what = "the certificate";
        check_time(what, cert.issued, cert.expires.saturating_add(LATE_MAX_S), now)?;
        match self.charter.denied_cert(&cert) {
            Some(why) => Err(AdmissionError::Denied(why.to_string())),
            None => Ok(cert),
        }
    }

    /// Checks a certificate against the admission keys in force, and earlier ones that are still
    /// believed.
    pub fn check_cert(
        &self,
        envelope: &Envelope,
        now: UnixSeconds,
    ) -> Result<HostCert, AdmissionError> {
        let cert = self.verify_cert(envelope, now)?;
        check_time("the certificate", cert.issued, cert.expires, now)?;
        match self.charter.denied_cert(&cert) {
            Some(why) => Err(AdmissionError::Denied(why.to_string())),
            None => Ok(cert),
        }
    }

    /// Checks certificate and record of a host together.
    pub fn check_peer(
        &self,
        hint: &PeerHint,
        now: UnixSeconds,
    ) -> Result<CheckedPeer, AdmissionError> {
        let cert = self.check_cert(&hint.cert, now)?;
        let record = hint
            .record
            .verify::<PeerRecord>(self.fleet(), &[PublicKey(cert.node.0)], 1)
            .map_err(|error| AdmissionError::Signature { what: "the peer record", error })?
            .into_body();
        if record.node != cert.node {
            return Err(AdmissionError::OtherKey("the peer record"));
        }
        if record.site != cert.site {
            return Err(AdmissionError::OtherKey("the peer record's site"));
        }
        check_time("the peer record", record.issued, record.expires, now)?;
        Ok(CheckedPeer { cert, record, hint: hint.clone() })
    }

    /// Checks a join token that was shown to the node `me`.
    pub fn check_token(
        &self,
        envelope: &Envelope,
        me: NodeId,
        now: UnixSeconds,
    ) -> Result<JoinToken, AdmissionError> {
        let (keys, needed) = self.charter.admission().ok_or(AdmissionError::NoCharter)?;
        let token = envelope
            .verify::<JoinToken>(self.fleet(), keys, needed)
            .map_err(|error| AdmissionError::Signature { what: "the join token", error })?
            .into_body();
        if token.fleet != self.fleet() {
            return Err(AdmissionError::OtherFleet(token.fleet));
        }
        if token.admitter != me {
            return Err(AdmissionError::OtherNode(token.admitter));
        }
        check_time("the join token", token.issued, token.expires, now)?;
        Ok(token)
    }

    /// The release keys of a publisher that are in use.
    pub(super) fn push_keys(
        &self,
        publisher: PublisherId,
        now: UnixSeconds,
    ) -> Result<Vec<PublicKey>, AdmissionError> {
        let publisher = self.charter.publisher(publisher);
        let publisher = publisher.ok_or(AdmissionError::UnknownPublisher)?;
        let in_use = publisher.doc().release_keys.iter();
        let in_use = in_use.filter(|k| k.valid_through.is_none() && k.not_after > now);
        Ok(in_use.map(|k| k.key).collect())
    }

    /// Is one of these keys alive?
    pub(super) fn check_alive(&self, keys: &[PublicKey]) -> Result<(), AdmissionError> {
        if !keys.iter().all(|k| self.charter.is_dead(k)) {
            return Ok(());
        }
        let key = keys.first().map(|k| k.short());
        Err(AdmissionError::DeadKey(key.unwrap_or_default()))
    }

    /// Checks the certificate of a publisher's TLS key.
    pub fn check_push(
        &self,
        envelope: &Envelope,
        tls_key: PublicKey,
        now: UnixSeconds,
    ) -> Result<PushCert, AdmissionError> {
        let what = "the push certificate";
        let signature = |error| AdmissionError::Signature { what, error };
        let claimed: PushCert = envelope.claimed().map_err(signature)?;
        let keys = self.push_keys(claimed.publisher, now)?;
        let verified = envelope.verify::<PushCert>(self.fleet(), &keys, 1).map_err(signature)?;
        self.check_alive(verified.signers())?;
        let cert = verified.into_body();
        if cert.tls_key != tls_key {
            return Err(AdmissionError::OtherKey(what));
        }
        check_time(what, cert.issued, cert.expires, now)?;
        Ok(cert)
    }
}
