//! Entries by delegated keys: what the certificate inside of an entry is worth.
//!
//! The certificate is signed by a release key that may sign the entry's place itself, and the
//! entry by the certificate's key: so what the release key may do, what documents say of it later,
//! and its end by suicide decide about the entry as if it had signed itself. What is left is time.
//! A delegated key lies on build machines and may be stolen after it has run out, so its entries
//! are held to what the feed knows of time: none claims to be older than the entry before it, and
//! none is taken that a beacon of a later time does not know of.

use stork_wire::charter::{PushCert, UnixSeconds};
use stork_wire::delegated::Delegated;
use stork_wire::feed::Entry;
use stork_wire::ids::{LogId, PublicKey};
use stork_wire::limits::CLOCK_SKEW_S;
use stork_wire::sign::{Claimed, Envelope, ReadyKey, Verified, VerifyError};

use super::admission::{AdmissionError, check_time};
use super::beacon::Beacons;
use super::{Charter, PublisherState, Refusal, Trust};

const CERTIFICATE: &str = "the delegated key's certificate";

/// A good certificate, with the release keys that vouch for it.
pub(super) struct Vouched {
    pub(super) cert: Delegated,
    pub(super) by: Vec<PublicKey>,
}

impl Vouched {
    /// May the delegated key release this package, whatever its release key may?
    pub(super) fn check_scope(&self, entry: &Entry) -> Result<(), Refusal> {
        if entry.sealed().is_some_and(|s| s.opened().is_none()) {
            // Judged by whoever reads it.
            return Ok(());
        }
        let Some(release) = entry.release() else {
            return Err(Refusal::OutOfScope("a delegated key only releases".into()));
        };
        let name = release.package.as_str();
        if self.cert.packages.iter().any(|p| p.matches(name)) {
            return Ok(());
        }
        Err(Refusal::OutOfScope(format!("the delegated key may not release `{name}`")))
    }

    /// Does the entry follow one that was signed at this time?
    pub(super) fn check_order(&self, entry: &Entry, before: UnixSeconds) -> Result<(), Refusal> {
        if entry.signed_at >= before {
            return Ok(());
        }
        let late = before - entry.signed_at;
        Err(Refusal::Delegated(format!("it claims to be {late} s older than the entry before it")))
    }
}

/// Is the certificate one for this entry, signed by one of these keys?
fn certificate(
    charter: &Charter,
    via: &Envelope,
    entry: &Entry,
    keys: &[PublicKey],
) -> Result<Vouched, Refusal> {
    let good = via.verify::<Delegated>(charter.fleet(), keys, 1)?;
    let by = good.signers().to_vec();
    let cert = good.into_body();
    if (cert.publisher, cert.epoch) != (entry.publisher, entry.epoch) {
        return Err(Refusal::Delegated(format!("{CERTIFICATE} is of another feed or epoch")));
    }
    if !cert.covers(entry.signed_at) {
        let Delegated { from, until, .. } = cert;
        let why = format!("signed at {}, and {CERTIFICATE} is from {from} to {until}", {
            entry.signed_at
        });
        return Err(Refusal::Delegated(why));
    }
    Ok(Vouched { cert, by })
}

impl Charter {
    /// Checks the certificate inside of an entry against release keys that live.
    pub(super) fn vouched(
        &self,
        publisher: &PublisherState,
        via: &Envelope,
        entry: &Entry,
    ) -> Result<Vouched, Refusal> {
        let living = self.living(publisher, entry);
        certificate(self, via, entry, &living).map_err(|why| {
            let mut dead = publisher.keys_for(entry);
            dead.retain(|k| !living.contains(k));
            let by_dead = certificate(self, via, entry, &dead).ok();
            let key = by_dead.and_then(|v| v.by.first().copied());
            key.map_or(why, |k| Refusal::RevokedKey(k.short()))
        })
    }

    /// Checks an entry that has a certificate, by itself.
    pub(super) fn verify_delegated(
        &self,
        publisher: &PublisherState,
        envelope: &Envelope,
        read: Claimed<Entry>,
    ) -> Result<(Verified<Entry>, Vouched), Refusal> {
        let Some(via) = &read.body().via else { return Err(Refusal::UnauthorisedKey) };
        let vouched = self.vouched(publisher, via, read.body())?;
        let key = [ReadyKey::new(vouched.cert.key)];
        Ok((envelope.verify_read(read, self.fleet(), &key, 1)?, vouched))
    }
}

impl Beacons {
    /// Was this entry not there when its certificate had run out, by the publisher's own beacons?
    /// One that waits for its head may know it, and then says nothing against it.
    pub(super) fn refute(&self, entry: &Entry) -> Result<(), Refusal> {
        let Some(via) = &entry.via else { return Ok(()) };
        let until = via.claimed::<Delegated>()?.until.saturating_add(CLOCK_SKEW_S);
        let log = LogId::feed_epoch(entry.publisher, entry.epoch);
        let (mut head, mut time) = (0, 0);
        for beacon in self.heard(entry.publisher, log).filter(|b| b.epoch == entry.epoch) {
            head = head.max(beacon.head.map_or(0, |h| h.seq));
            time = time.max(beacon.time);
        }
        if head >= entry.seq || time <= until {
            return Ok(());
        }
        let why = format!("a beacon that is newer than {CERTIFICATE} does not know the entry");
        Err(Refusal::Delegated(why))
    }
}

impl Trust {
    /// Checks the certificate of a TLS key that a delegated key signed, and its own.
    pub fn check_delegated_push(
        &self,
        envelope: &Envelope,
        via: &Envelope,
        tls_key: PublicKey,
        now: UnixSeconds,
    ) -> Result<PushCert, AdmissionError> {
        let signature = |what| move |error| AdmissionError::Signature { what, error };
        let what = "the push certificate";
        let claimed: PushCert = envelope.claimed().map_err(signature(what))?;
        let keys = self.push_keys(claimed.publisher, now)?;
        let good =
            via.verify::<Delegated>(self.fleet(), &keys, 1).map_err(signature(CERTIFICATE))?;
        self.check_alive(good.signers())?;
        let cert = good.into_body();
        let open = self.charter.publisher(claimed.publisher).map(|p| p.doc().epoch);
        if cert.publisher != claimed.publisher || Some(cert.epoch) != open {
            let error = VerifyError::Invalid("it is of another publisher or epoch".into());
            return Err(AdmissionError::Signature { what: CERTIFICATE, error });
        }
        check_time(CERTIFICATE, cert.from, cert.until.saturating_add(CLOCK_SKEW_S), now)?;
        let push = envelope.verify::<PushCert>(self.fleet(), &[cert.key], 1);
        let push = push.map_err(signature(what))?.into_body();
        if push.tls_key != tls_key {
            return Err(AdmissionError::OtherKey(what));
        }
        check_time(what, push.issued, push.expires, now)?;
        Ok(push)
    }

    /// Is the certificate inside of an entry still good at the door, where entries are new?
    pub fn check_door(&self, entry: &Entry, now: UnixSeconds) -> Result<(), Refusal> {
        let Some(via) = &entry.via else { return Ok(()) };
        let until = via.claimed::<Delegated>()?.until;
        if now <= until.saturating_add(CLOCK_SKEW_S) {
            return Ok(());
        }
        Err(Refusal::Delegated(format!("{CERTIFICATE} ran out {} s ago", now - until)))
    }
}
