//! Keys of people: OpenSSH Ed25519 files and ssh-agent.
//!
//! A signer only ever signs what `stork_wire::sign::signed_bytes` made, so that a signature for
//! stork is never good for anything else.

mod agent;
mod file;
#[cfg(test)]
mod tests;

pub use agent::{Agent, AgentError};
pub use file::{KeyError, Passphrase, generate, read_public, read_secret, write_key};

use std::path::Path;

use stork_wire::ids::{FleetId, PublicKey};
use stork_wire::sign::{Body, Envelope, SecretKey, SignatureBytes, VerifyError, signed_bytes};

/// What begins the name of a key that an agent holds.
const AGENT_PREFIX: &str = "ssh-agent:";

/// Something that signs.
#[derive(Debug)]
pub enum Signer {
    /// A key that was read from a file.
    File(SecretKey),
    /// A key that an ssh-agent holds.
    Agent(Agent),
}

/// A body that could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The agent did not sign.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The body breaks a rule, or the signature is wrong.
    #[error("this cannot be signed")]
    Body(#[from] VerifyError),
}

impl Signer {
    /// Opens the key that `spec` names: a file, `ssh-agent:SHA256:…` or `ssh-agent:`.
    pub fn open(spec: &str, passphrase: &Passphrase) -> Result<Self, KeyError> {
        match spec.strip_prefix(AGENT_PREFIX) {
            Some(fingerprint) => Ok(Self::Agent(Agent::open(fingerprint)?)),
            None => read_secret(Path::new(spec), passphrase).map(Self::File),
        }
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        match self {
            Self::File(key) => key.public(),
            Self::Agent(agent) => agent.public(),
        }
    }

    fn sign_bytes(&self, message: &[u8]) -> Result<SignatureBytes, AgentError> {
        match self {
            Self::File(key) => Ok(key.sign(message)),
            Self::Agent(agent) => agent.sign(message),
        }
    }

    /// Signs a body, and checks the signature before anybody sees it.
    pub fn sign<T: Body>(&self, body: &T, fleet: FleetId) -> Result<Envelope, SignError> {
        let mut envelope = Envelope::unsigned(body)?;
        self.add_to::<T>(&mut envelope, fleet)?;
        Ok(envelope)
    }

    /// Adds a signature to those that a body has, likewise.
    pub fn add_to<T: Body>(
        &self,
        envelope: &mut Envelope,
        fleet: FleetId,
    ) -> Result<(), SignError> {
        let message = signed_bytes(T::CONTEXT, fleet, &envelope.body);
        let key = self.public();
        let mut signed = envelope.clone();
        signed.add(key, self.sign_bytes(&message)?)?;
        signed.verify::<T>(fleet, &[key], 1)?;
        *envelope = signed;
        Ok(())
    }
}

/// The fingerprint that `ssh-keygen -l` prints.
#[must_use]
pub fn fingerprint(key: &PublicKey) -> String {
    let data = ssh_key::public::KeyData::Ed25519(ssh_key::public::Ed25519PublicKey(key.0));
    data.fingerprint(ssh_key::HashAlg::Sha256).to_string()
}
