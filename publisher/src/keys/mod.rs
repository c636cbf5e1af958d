//! Keys of people: OpenSSH Ed25519 files, ssh-agent, and programs that sign.
//!
//! A signer only ever signs what `stork_wire::sign::signed_bytes` made, so that a signature for
//! stork is never good for anything else.

mod agent;
mod exec;
#[cfg(test)]
mod exec_tests;
mod file;
#[cfg(test)]
mod tests;

pub use agent::{Agent, AgentError};
pub use exec::{Exec, ExecError};
pub use file::{KeyError, Passphrase, generate, read_public, read_secret, write_key};

use std::path::Path;

use stork_wire::ids::{FleetId, PublicKey};
use stork_wire::sign::{Body, Envelope, SecretKey, SignatureBytes, VerifyError, signed_bytes};

/// What begins the name of a key that an agent holds.
const AGENT_PREFIX: &str = "ssh-agent:";
/// What begins the name of a key that a program holds.
const EXEC_PREFIX: &str = "exec:";

/// Is this the name of a file, and not of a key that something else holds?
pub(crate) fn is_file_spec(spec: &str) -> bool {
    !spec.starts_with(AGENT_PREFIX) && !spec.starts_with(EXEC_PREFIX)
}

/// Something that signs.
#[derive(Debug)]
pub enum Signer {
    /// A key that was read from a file.
    File(SecretKey),
    /// A key that an ssh-agent holds.
    Agent(Agent),
    /// A key that a program holds.
    Exec(Exec),
}

/// A body that could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The agent did not sign.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The program did not sign.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// The body breaks a rule, or the signature is wrong.
    #[error("this cannot be signed")]
    Body(#[from] VerifyError),
}

impl SignError {
    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Agent(e) => e.help(),
            Self::Exec(e) => e.help(),
            Self::Body(_) => "check the key and the values of the document".into(),
        }
    }

    /// The exit code that stands for it.
    #[must_use]
    pub fn exit(&self) -> u8 {
        match self {
            Self::Agent(e) => e.exit(),
            Self::Exec(e) => e.exit(),
            Self::Body(_) => 1,
        }
    }
}

impl Signer {
    /// Opens the key that `spec` names: a file, `ssh-agent:SHA256:…`, `ssh-agent:` or
    /// `exec:PROGRAM ARGUMENT…`.
    pub fn open(spec: &str, passphrase: &Passphrase) -> Result<Self, KeyError> {
        if let Some(fingerprint) = spec.strip_prefix(AGENT_PREFIX) {
            return Ok(Self::Agent(Agent::open(fingerprint)?));
        }
        match spec.strip_prefix(EXEC_PREFIX) {
            Some(command) => Ok(Self::Exec(Exec::open(command)?)),
            None => read_secret(Path::new(spec), passphrase).map(Self::File),
        }
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        match self {
            Self::File(key) => key.public(),
            Self::Agent(agent) => agent.public(),
            Self::Exec(program) => program.public(),
        }
    }

    fn sign_bytes(
        &self,
        context: &str,
        fleet: FleetId,
        body: &[u8],
    ) -> Result<SignatureBytes, SignError> {
        let message = signed_bytes(context, fleet, body);
        match self {
            Self::File(key) => Ok(key.sign(&message)),
            Self::Agent(agent) => Ok(agent.sign(&message)?),
            Self::Exec(program) => Ok(program.sign((context, fleet), body, &message)?),
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
        let key = self.public();
        let mut signed = envelope.clone();
        signed.add(key, self.sign_bytes(T::CONTEXT, fleet, &envelope.body)?)?;
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
