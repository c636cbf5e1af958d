//! A program that signs: for keys in a token, an HSM or a service that stork knows nothing of.
//!
//! It is started anew for each question, with a cleared environment, is told what it signs, and
//! must answer with one bounded line in time. Its signature is checked before anybody sees it
//! (`Signer::add_to`), so that a program that errs or lies can only fail.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stork_wire::ids::{FleetId, PublicKey, hex, unhex};
use stork_wire::sign::{SignatureBytes, is_sound};

/// It may have to wait for a finger on a token.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of an answer: a signature is 128 digits.
const ANSWER_LEN_MAX: u64 = 1024;
/// How often a program that has closed its output is looked at.
const POLL: Duration = Duration::from_millis(5);
/// All of the environment that it gets.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A program that does not sign.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// No program is named, or not by its path.
    #[error("`exec:{0}` names no program by its absolute path")]
    NoProgram(String),
    /// It cannot be run.
    #[error("the signer `{program}` cannot be run")]
    Run {
        /// Which program.
        program: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It did not answer in time.
    #[error("the signer `{0}` has not answered within a minute")]
    TimedOut(PathBuf),
    /// It refused.
    #[error("the signer `{program}` failed: {status}")]
    Failed {
        /// Which program.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
    },
    /// Its answer is not understood.
    #[error("the signer `{program}` answers nonsense: {why}")]
    Malformed {
        /// Which program.
        program: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
}

impl ExecError {
    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::NoProgram(_) => "name it so: --key 'exec:/usr/local/bin/signer ARGUMENT'".into(),
            Self::Run { .. } => "check that it exists and may be run (chmod +x)".into(),
            Self::TimedOut(_) => "is the token plugged in, or does it wait for a touch?".into(),
            Self::Failed { .. } => "its own messages stand above".into(),
            Self::Malformed { .. } => {
                "it must answer `key` with 64 hexadecimal digits, `sign` with 128: see \
                 docs/CEREMONY.md"
                    .into()
            }
        }
    }

    /// The exit code that stands for it.
    #[must_use]
    pub fn exit(&self) -> u8 {
        match self {
            Self::NoProgram(_) => 2,
            Self::Run { source, .. } => crate::out::file_exit(source),
            Self::TimedOut(_) => 6,
            Self::Failed { .. } | Self::Malformed { .. } => 1,
        }
    }
}

/// A key that a program holds.
#[derive(Debug)]
pub struct Exec {
    program: PathBuf,
    arguments: Vec<String>,
    key: PublicKey,
    timeout: Duration,
}

impl Exec {
    /// Asks the program of `command` (a path, then arguments, parted by spaces) for its key.
    pub fn open(command: &str) -> Result<Self, ExecError> {
        let mut words = command.split_whitespace();
        let program = words.next().map(PathBuf::from).filter(|p| p.is_absolute());
        let program = program.ok_or_else(|| ExecError::NoProgram(command.to_owned()))?;
        let arguments = words.map(str::to_owned).collect();
        let mut signer = Self { program, arguments, key: PublicKey([0; 32]), timeout: TIMEOUT };
        let answer = signer.ask(&json!({ "schema": "stork.signer/v1", "ask": "key" }))?;
        let bytes = unhex(&answer).and_then(|b| b.try_into().ok()).map(PublicKey);
        let key = bytes.filter(is_sound);
        signer.key = key.ok_or_else(|| signer.malformed("no public key of 64 digits"))?;
        Ok(signer)
    }

    /// The same program with another time for each answer.
    #[cfg(test)]
    pub(super) fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// The public half.
    #[must_use]
    pub const fn public(&self) -> PublicKey {
        self.key
    }

    /// Asks for a signature of `message`, and tells what is in it.
    pub fn sign(
        &self,
        (context, fleet): (&str, FleetId),
        body: &[u8],
        message: &[u8],
    ) -> Result<SignatureBytes, ExecError> {
        let answer = self.ask(&json!({
            "schema": "stork.signer/v1",
            "ask": "sign",
            "context": context,
            "fleet": fleet,
            "public_key": self.key,
            "body": hex(body),
            "message": hex(message),
        }))?;
        let bytes = unhex(&answer).and_then(|b| b.try_into().ok()).map(SignatureBytes);
        bytes.ok_or_else(|| self.malformed("no signature of 128 digits"))
    }

    fn malformed(&self, why: &'static str) -> ExecError {
        ExecError::Malformed { program: self.program.clone(), why }
    }

    /// One question and its one line.
    fn ask(&self, question: &Value) -> Result<String, ExecError> {
        let failed = |source| ExecError::Run { program: self.program.clone(), source };
        let end = Instant::now() + self.timeout;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_clear().env("PATH", PATH);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let answer = self.talk(&mut child, question, end);
        if answer.is_err() {
            // It may have ended already; what it said is of no use any more.
            drop(child.kill());
        }
        let status = self.wait(&mut child, end)?;
        let answer = answer?;
        if !status.success() {
            return Err(ExecError::Failed { program: self.program.clone(), status });
        }
        let text = core::str::from_utf8(&answer).map_err(|_e| self.malformed("no text"))?;
        Ok(text.trim().to_owned())
    }

    /// Writes the question and reads the answer, each by a thread of its own: a program that does
    /// not read, or does not end, holds up nobody but them.
    fn talk(
        &self,
        child: &mut Child,
        question: &Value,
        end: Instant,
    ) -> Result<Vec<u8>, ExecError> {
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let question = format!("{question}\n");
        std::thread::spawn(move || {
            // A program that answers without reading the question is judged by its answer.
            stdin.map(|mut pipe| pipe.write_all(question.as_bytes()))
        });
        let (tell, told) = mpsc::sync_channel(1);
        std::thread::spawn(move || {
            let mut answer = Vec::new();
            let read = stdout.map(|pipe| pipe.take(ANSWER_LEN_MAX + 1).read_to_end(&mut answer));
            tell.send(read.unwrap_or(Ok(0)).map(|_len| answer)).unwrap_or_default();
        });
        let answer = told.recv_timeout(end.saturating_duration_since(Instant::now()));
        let answer = answer.map_err(|_e| ExecError::TimedOut(self.program.clone()))?;
        let answer =
            answer.map_err(|source| ExecError::Run { program: self.program.clone(), source })?;
        if answer.len() as u64 > ANSWER_LEN_MAX {
            return Err(self.malformed("it is too long"));
        }
        Ok(answer)
    }

    /// Waits for its end, and makes one where time is up.
    fn wait(&self, child: &mut Child, end: Instant) -> Result<ExitStatus, ExecError> {
        let failed = |source| ExecError::Run { program: self.program.clone(), source };
        while Instant::now() < end {
            if let Some(status) = child.try_wait().map_err(failed)? {
                return Ok(status);
            }
            std::thread::sleep(POLL);
        }
        drop(child.kill());
        child.wait().map_err(failed)?;
        Err(ExecError::TimedOut(self.program.clone()))
    }
}
