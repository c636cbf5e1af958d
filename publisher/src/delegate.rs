//! Delegated keys: a key and a certificate for a build job, good for some packages and hours.
//!
//! The certificate lies beside the key, in a file named after it. `push` finds it there and puts it
//! into the entry that it signs. What hosts will ask of it is asked here first, so that a job hears
//! at once what is wrong.

use std::fs::{DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use stork_wire::charter::{BODY_VERSION, ReleaseKey, UnixSeconds};
use stork_wire::codec::{List, decode, encode};
use stork_wire::delegated::Delegated;
use stork_wire::feed::Entry;
use stork_wire::ids::{KeyId, PublicKey, hex, unhex};
use stork_wire::limits::{CLOCK_SKEW_S, DELEGATED_LEN_MAX, DELEGATED_VALID_MAX_S};
use stork_wire::sign::{Envelope, VerifyError};
use stork_wire::text::Pattern;

use crate::charter::{self, CharterError};
use crate::feed::{Author, FeedError};
use crate::keys::{KeyError, Passphrase, Signer, fingerprint, generate, is_file_spec, write_key};
use crate::out;
use crate::push::PushError;

/// What a certificate's file begins with.
const HEADER: &str = "stork delegated key v1";
/// No such file is longer.
const FILE_LEN_MAX: u64 = 4 * 1024;
/// The key's name in its directory.
const KEY_NAME: &str = "ci";
/// Seconds for which a key may be delegated at the most.
pub const TTL_MAX_S: u64 = DELEGATED_VALID_MAX_S - CLOCK_SKEW_S;

/// A delegated key that cannot do what is asked.
#[derive(Debug, thiserror::Error)]
pub enum DelegateError {
    /// The certificate's file cannot be read.
    #[error("cannot read the certificate `{path}`")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is no certificate.
    #[error("`{path}` is no certificate of a delegated key: {why}")]
    Format {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// It is of another key than the one beside it.
    #[error("the certificate beside the key is of another key, {0}")]
    OtherKey(String),
    /// It is of another publisher, or of another epoch of the feed.
    #[error("the delegated key is of {0}")]
    OtherFeed(String),
    /// No release key of ours that is in use signed it.
    #[error("no release key in use has signed the delegated key's certificate")]
    NotVouched(#[source] VerifyError),
    /// The name is not among its patterns.
    #[error("the delegated key may release {may}, and not `{name}`")]
    Name {
        /// Its patterns.
        may: String,
        /// The name.
        name: String,
    },
    /// It has run out.
    #[error("the delegated key ran out {0} ago")]
    RanOut(String),
    /// It has not begun.
    #[error("the delegated key is good from {0} on: this clock is behind, or the other one ahead")]
    NotYet(String),
    /// The newest entry of the feed is younger than its end.
    #[error("the feed's newest entry was signed after the delegated key ran out")]
    Overtaken,
    /// It is asked for something else than a release.
    #[error("`{0}` is a delegated key: it pushes releases, and does nothing else")]
    OnlyReleases(String),
}

impl DelegateError {
    /// What to do about it.
    #[must_use]
    pub const fn help(&self) -> &'static str {
        match self {
            Self::Read { .. } => "give this user the right to read it",
            Self::Format { .. } | Self::OtherKey(_) => {
                "copy the whole directory that `stork-publish key delegate --out DIR` made"
            }
            Self::OnlyReleases(_) => "name a release key by --key",
            Self::Name { .. } => {
                "delegate a key for this package: stork-publish key delegate --packages NAME"
            }
            Self::NotYet(_) => "set this machine's clock (NTP)",
            Self::OtherFeed(_) | Self::NotVouched(_) | Self::RanOut(_) | Self::Overtaken => {
                "delegate a new key: stork-publish key delegate --packages PATTERN --ttl 1h"
            }
        }
    }

    /// The exit code that stands for it.
    #[must_use]
    pub fn exit(&self) -> u8 {
        match self {
            Self::Read { source, .. } => out::file_exit(source),
            Self::Format { .. } => 78,
            Self::OnlyReleases(_) => 2,
            _ => 4,
        }
    }
}

/// The certificate of a delegated key, as it was read.
#[derive(Debug, Clone)]
pub struct Via {
    /// What it says.
    pub cert: Delegated,
    /// As it was signed.
    pub envelope: Envelope,
}

/// Where the certificate of a key lies, if it is a file and has one.
#[must_use]
pub fn beside(spec: &str) -> Option<PathBuf> {
    let path = PathBuf::from(format!("{spec}.delegated"));
    (is_file_spec(spec) && path.symlink_metadata().is_ok()).then_some(path)
}

fn file_text(envelope: &Envelope) -> String {
    format!("{HEADER}\n{}\n", hex(&encode(envelope)))
}

/// Reads a certificate, and believes nothing of it.
pub fn read(path: &Path) -> Result<Via, DelegateError> {
    let failed = |source| DelegateError::Read { path: path.into(), source };
    let format = |why: String| DelegateError::Format { path: path.into(), why };
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(FILE_LEN_MAX).read_to_string(&mut text).map_err(failed)?;
    let mut lines = text.lines();
    if lines.next() != Some(HEADER) {
        return Err(format(format!("its first line is not `{HEADER}`")));
    }
    let bytes = lines.next().and_then(unhex);
    let bytes = bytes.ok_or_else(|| format("it holds odd characters, or was cut".into()))?;
    let envelope: Envelope =
        decode(&bytes, DELEGATED_LEN_MAX).map_err(|e| format(e.to_string()))?;
    let cert = envelope.claimed().map_err(|e| format(e.to_string()))?;
    Ok(Via { cert, envelope })
}

fn ago(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3_600),
    }
}

fn patterns(cert: &Delegated) -> String {
    let all: Vec<String> = cert.packages.iter().map(|p| format!("`{p}`")).collect();
    all.join(", ")
}

impl Via {
    /// Is it good at this time?
    pub fn check_time(&self, now: UnixSeconds) -> Result<(), DelegateError> {
        let Delegated { from, until, .. } = self.cert;
        if now > until {
            return Err(DelegateError::RanOut(ago(now - until)));
        }
        if now < from { Err(DelegateError::NotYet(out::minute(from))) } else { Ok(()) }
    }

    /// Puts it into an entry that the delegated key will sign.
    pub fn put_into(&self, entry: &mut Entry) -> Result<(), DelegateError> {
        entry.via = Some(Box::new(self.envelope.clone()));
        if entry.signed_at > self.cert.until { Err(DelegateError::Overtaken) } else { Ok(()) }
    }
}

impl Author<'_> {
    /// The release key that vouches for a delegated key, if that may release this package now.
    pub(crate) fn voucher(
        &self,
        via: &Via,
        key: PublicKey,
        (name, now): (&str, UnixSeconds),
    ) -> Result<&ReleaseKey, FeedError> {
        let cert = &via.cert;
        if cert.key != key {
            return Err(DelegateError::OtherKey(fingerprint(&cert.key)).into());
        }
        if cert.publisher != self.publisher {
            return Err(DelegateError::OtherFeed("another publisher".into()).into());
        }
        if cert.epoch != self.doc.epoch {
            let (theirs, ours) = (cert.epoch, self.doc.epoch);
            let feed = format!("epoch {theirs} of the feed, which is in epoch {ours}");
            return Err(DelegateError::OtherFeed(feed).into());
        }
        via.check_time(now)?;
        let keys: Vec<PublicKey> = self.doc.release_keys.iter().map(|k| k.key).collect();
        let good = via.envelope.verify::<Delegated>(self.charter.fleet, &keys, 1);
        let by = good.map_err(DelegateError::NotVouched)?;
        if !cert.packages.iter().any(|p| p.matches(name)) {
            let (may, name) = (patterns(cert), name.to_owned());
            return Err(DelegateError::Name { may, name }.into());
        }
        let by = by.signers().first().copied().unwrap_or(key);
        self.release_key(by, now)
    }

    /// The keys that may have signed this entry, as it says: that of a good certificate in it, or
    /// release keys.
    pub(crate) fn signers_of(
        &self,
        entry: &Entry,
        keys: Vec<PublicKey>,
    ) -> Result<Vec<PublicKey>, VerifyError> {
        let Some(via) = &entry.via else { return Ok(keys) };
        let good = via.verify::<Delegated>(self.charter.fleet, &keys, 1)?;
        Ok(vec![good.body().key])
    }
}

/// What to delegate.
#[derive(Debug, Clone)]
pub struct DelegateOptions {
    /// The publisher's directory.
    pub charter: PathBuf,
    /// The release key that vouches, as `Signer::open` takes it; the profile's if not given.
    pub key: Option<String>,
    /// How to open it.
    pub passphrase: Passphrase,
    /// The packages.
    pub packages: Vec<Pattern>,
    /// For so many seconds, [`TTL_MAX_S`] at the most.
    pub ttl_s: u64,
    /// The directory that is made, with all that a job needs.
    pub out: PathBuf,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DelegateReport {
    /// `stork.delegate/v1`.
    pub schema: &'static str,
    /// The directory.
    pub dir: PathBuf,
    /// The certificate's file.
    pub certificate: PathBuf,
    /// The delegated key.
    pub key_id: KeyId,
    /// The same as `ssh-keygen -l` prints it.
    pub fingerprint: String,
    /// The publisher's name.
    pub publisher: String,
    /// What it may release.
    pub packages: Vec<String>,
    /// The release key that vouches for it.
    pub by: String,
    /// From then on it is good, in seconds since 1970.
    pub from: UnixSeconds,
    /// Until then.
    pub until: UnixSeconds,
}

impl DelegateReport {
    /// For people.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let dir = self.dir.display();
        vec![
            format!("delegated key {} of {}", self.fingerprint, self.publisher),
            format!("  releases  {}", self.packages.join(", ")),
            format!("  until     {}", out::minute(self.until)),
            format!("  vouched   by release key {}", self.by),
            format!(
                "  give the job {dir}, then: stork-publish push FILE --charter {dir} --to NODE"
            ),
        ]
    }
}

/// Makes a key, its certificate, and beside them the charter and a profile: a directory that is all
/// that a build job needs.
pub fn delegate(options: &DelegateOptions, now: UnixSeconds) -> Result<DelegateReport, PushError> {
    let (charter, profile) = charter::open(&options.charter)?;
    let missing = || CharterError::Usage("the charter lacks this publisher".into());
    let doc = charter.publishers.get(&profile.publisher).ok_or_else(missing)?;
    let author = Author { charter: &charter, publisher: profile.publisher, doc };
    let signer = crate::push::release_signer(options.key.as_ref(), &profile, &options.passphrase)?;
    let rule = author.release_key(signer.public(), now)?;
    // A pattern may reach beyond those of the release key, which decide; a plain name can not.
    for name in options.packages.iter().map(|p| p.as_str()).filter(|p| !p.contains('*')) {
        if !rule.packages.iter().any(|p| p.matches(name)) {
            let (who, name) = ("the release key".into(), name.to_owned());
            return Err(FeedError::Name { who, name }.into());
        }
    }
    let path = options.out.join(KEY_NAME);
    let key = generate()?;
    let cert = Delegated {
        version: BODY_VERSION,
        publisher: author.publisher,
        epoch: doc.epoch,
        key: key.public(),
        packages: List::new(options.packages.clone()).map_err(FeedError::from)?,
        from: now.saturating_sub(CLOCK_SKEW_S),
        until: now.saturating_add(options.ttl_s.min(TTL_MAX_S)),
    };
    let envelope = signer.sign(&cert, charter.fleet)?;
    let failed = |source| KeyError::Write { path: options.out.clone(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(&options.out).map_err(failed)?;
    write_key(&path, &key, "stork delegated key", None)?;
    let certificate = PathBuf::from(format!("{}.delegated", path.display()));
    charter::write_job(&options.out, &charter, &profile, KEY_NAME)?;
    charter::write_new(&certificate, file_text(&envelope).as_bytes())?;
    Ok(report(options, &author, &signer, (&cert, certificate)))
}

fn report(
    options: &DelegateOptions,
    author: &Author<'_>,
    signer: &Signer,
    (cert, certificate): (&Delegated, PathBuf),
) -> DelegateReport {
    DelegateReport {
        schema: "stork.delegate/v1",
        dir: options.out.clone(),
        certificate,
        key_id: cert.key.key_id(),
        fingerprint: fingerprint(&cert.key),
        publisher: author.doc.name.to_string(),
        packages: cert.packages.iter().map(ToString::to_string).collect(),
        by: fingerprint(&signer.public()),
        from: cert.from,
        until: cert.until,
    }
}
