//! OpenSSH key files: made, read and never overwritten.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ssh_key::private::{Ed25519Keypair, Ed25519PrivateKey, KeypairData};
use ssh_key::public::{Ed25519PublicKey, KeyData};
use ssh_key::{Cipher, Kdf, LineEnding, PrivateKey};
use stork_wire::ids::PublicKey;
use stork_wire::sign::{SecretKey, is_sound};
use zeroize::Zeroizing;

use super::agent::AgentError;
use super::exec::ExecError;

/// No key file or passphrase is longer.
const FILE_LEN_MAX: u64 = 64 * 1024;
/// Rounds of bcrypt-pbkdf, as ssh-keygen takes by default.
const KDF_ROUNDS: u32 = 24;

/// A key that cannot be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read the key `{path}`")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file with the passphrase cannot be read.
    #[error("cannot read the passphrase in `{path}`")]
    ReadPassphrase {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write the key `{path}`")]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is a file already.
    #[error("`{0}` exists and is not overwritten")]
    Exists(PathBuf),
    /// Others may read the private key.
    #[error("`{path}` is open to others (mode {mode:03o})")]
    TooOpen {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not an OpenSSH key of a kind that is used here.
    #[error("`{path}` is no OpenSSH Ed25519 key: {why}")]
    Format {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The passphrase does not open it.
    #[error("the passphrase does not open `{0}`")]
    WrongPassphrase(PathBuf),
    /// A passphrase is needed, and nobody can be asked.
    #[error("`{0}` needs a passphrase, and there is no terminal to ask at")]
    NoPassphrase(PathBuf),
    /// The two passphrases that were typed differ.
    #[error("the two passphrases differ")]
    Mismatch,
    /// The system gives no random numbers.
    #[error("no random numbers: {0}")]
    Random(String),
    /// The agent failed.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The program that holds the key failed.
    #[error(transparent)]
    Exec(#[from] ExecError),
}

impl KeyError {
    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Read { path, source } => read_help(path, source),
            Self::ReadPassphrase { .. } => {
                "its first line is the passphrase, and this user must be able to read it".into()
            }
            Self::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "make room there, or choose another directory".into()
            }
            Self::Write { .. } => "choose a directory that you may write to".into(),
            Self::Exists(_) => "choose another name by --out, or move the old key away".into(),
            Self::TooOpen { path, .. } => format!("chmod 600 {}", path.display()),
            Self::Format { .. } => {
                "make one by `stork-publish key generate` or `ssh-keygen -t ed25519`".into()
            }
            Self::WrongPassphrase(_) => "try again, or check --passphrase-file".into(),
            Self::NoPassphrase(_) => {
                "give --passphrase-file FILE, set STORK_PASSPHRASE_FILE, use ssh-agent, or \
                 (for a new key) --no-passphrase"
                    .into()
            }
            Self::Mismatch => "type the same passphrase twice".into(),
            Self::Random(_) => "this system is broken".into(),
            Self::Agent(e) => e.help(),
            Self::Exec(e) => e.help(),
        }
    }

    /// The exit code that stands for it.
    #[must_use]
    pub fn exit(&self) -> u8 {
        match self {
            Self::Read { source, .. }
            | Self::ReadPassphrase { source, .. }
            | Self::Write { source, .. } => crate::out::file_exit(source),
            Self::TooOpen { .. } => 77,
            Self::Format { .. } | Self::NoPassphrase(_) => 78,
            Self::Agent(e) => e.exit(),
            Self::Exec(e) => e.exit(),
            _ => 1,
        }
    }
}

/// What to do about a key that cannot be read, whichever option named it.
fn read_help(path: &Path, source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::PermissionDenied => format!(
            "run this as the user who owns {}, or make that file readable to this one alone",
            path.display()
        ),
        io::ErrorKind::NotFound => {
            "correct that name; where none was given, name the key by --key FILE or \
             STORK_PUBLISH_KEY"
                .into()
        }
        _ => "name an OpenSSH key file, whole and of Ed25519".into(),
    }
}

/// Where a passphrase comes from. Never from the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Passphrase {
    /// The first line of a file.
    File(PathBuf),
    /// Asked at the terminal, if there is one.
    Ask,
    /// There is none: a new key is written in the clear.
    None,
}

impl Passphrase {
    fn from_file(path: &Path) -> Result<Zeroizing<String>, KeyError> {
        let failed = |source| KeyError::ReadPassphrase { path: path.into(), source };
        let mut text = Zeroizing::new(String::new());
        let file = File::open(path).map_err(failed)?;
        file.take(FILE_LEN_MAX).read_to_string(&mut text).map_err(failed)?;
        let line = text.lines().next().unwrap_or_default();
        if line.is_empty() {
            return Err(failed(io::Error::other("its first line is empty")));
        }
        Ok(Zeroizing::new(line.to_owned()))
    }

    fn ask(prompt: &str, path: &Path) -> Result<Zeroizing<String>, KeyError> {
        // rpassword would open /dev/tty and wait; in a job nobody answers there.
        if !io::stdin().is_terminal() {
            return Err(KeyError::NoPassphrase(path.into()));
        }
        let text = rpassword::prompt_password(prompt);
        text.map(Zeroizing::new).map_err(|_e| KeyError::NoPassphrase(path.into()))
    }

    /// To open an existing key.
    fn existing(&self, path: &Path) -> Result<Zeroizing<String>, KeyError> {
        match self {
            Self::File(file) => Self::from_file(file),
            Self::Ask => Self::ask(&format!("Passphrase for {}: ", path.display()), path),
            Self::None => Err(KeyError::NoPassphrase(path.into())),
        }
    }

    /// For new keys, asked once for all of them; `None` is no passphrase.
    pub fn chosen(&self, path: &Path) -> Result<Option<Zeroizing<String>>, KeyError> {
        match self {
            Self::File(file) => Self::from_file(file).map(Some),
            Self::None => Ok(None),
            Self::Ask => {
                let first = Self::ask("New passphrase (empty for none): ", path)?;
                if *first != *Self::ask("The same again: ", path)? {
                    return Err(KeyError::Mismatch);
                }
                Ok((!first.is_empty()).then_some(first))
            }
        }
    }
}

/// A new random key.
pub fn generate() -> Result<SecretKey, KeyError> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut()).map_err(|e| KeyError::Random(e.to_string()))?;
    Ok(SecretKey::from_seed(&seed))
}

/// The path of the public half.
fn public_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

/// Creates a file that was not there.
fn create(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), KeyError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => KeyError::Exists(path.into()),
        _ => KeyError::Write { path: path.into(), source },
    };
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|e| {
        // Half a key would be in the way of the next try.
        drop(fs::remove_file(path));
        failed(e)
    })
}

/// Writes a key as an OpenSSH file (mode 600) with its public half beside it. Neither is ever
/// overwritten.
pub fn write_key(
    path: &Path,
    key: &SecretKey,
    comment: &str,
    passphrase: Option<&str>,
) -> Result<(), KeyError> {
    let format = |e: ssh_key::Error| KeyError::Format { path: path.into(), why: e.to_string() };
    let seed = key.seed();
    let pair = Ed25519Keypair {
        public: Ed25519PublicKey(key.public().0),
        private: Ed25519PrivateKey::from_bytes(&seed),
    };
    let plain = PrivateKey::new(KeypairData::Ed25519(pair), comment).map_err(format)?;
    let public = plain.public_key().to_openssh().map_err(format)?;
    let file = match passphrase {
        None => plain,
        Some(text) => {
            let mut random = [0; 20];
            getrandom::fill(&mut random).map_err(|e| KeyError::Random(e.to_string()))?;
            let (salt, check) = random.split_at(16);
            let check = check.iter().fold(0, |acc, b| (acc << 8) | u32::from(*b));
            let kdf = Kdf::Bcrypt { salt: salt.to_vec(), rounds: KDF_ROUNDS };
            plain.encrypt_with(Cipher::Aes256Ctr, kdf, check, text).map_err(format)?
        }
    };
    let public_path = public_path(path);
    if fs::symlink_metadata(&public_path).is_ok() {
        return Err(KeyError::Exists(public_path));
    }
    create(path, 0o600, file.to_openssh(LineEnding::LF).map_err(format)?.as_bytes())?;
    create(&public_path, 0o644, format!("{public}\n").as_bytes())
}

fn read_bounded(path: &Path) -> io::Result<(Zeroizing<String>, u32)> {
    let file = File::open(path)?;
    let mode = file.metadata()?.mode() & 0o777;
    let mut text = Zeroizing::new(String::new());
    file.take(FILE_LEN_MAX).read_to_string(&mut text)?;
    Ok((text, mode))
}

/// Reads a private key; asks for its passphrase only if it has one.
pub fn read_secret(path: &Path, passphrase: &Passphrase) -> Result<SecretKey, KeyError> {
    let (text, mode) =
        read_bounded(path).map_err(|source| KeyError::Read { path: path.into(), source })?;
    if mode & 0o077 != 0 {
        return Err(KeyError::TooOpen { path: path.into(), mode });
    }
    let format = |why: &str| KeyError::Format { path: path.into(), why: why.into() };
    let mut key = PrivateKey::from_openssh(text.as_bytes()).map_err(|e| format(&e.to_string()))?;
    if key.is_encrypted() {
        let secret = passphrase.existing(path)?;
        key = key.decrypt(&*secret).map_err(|_e| KeyError::WrongPassphrase(path.into()))?;
    }
    let pair = key.key_data().ed25519().ok_or_else(|| format("it is of another kind"))?;
    let secret = SecretKey::from_seed(&Zeroizing::new(pair.private.to_bytes()));
    if secret.public().0 != pair.public.0 {
        return Err(format("its two halves do not belong together"));
    }
    Ok(secret)
}

/// Reads a public key: a `.pub` file, or the public half inside a private key file, for which no
/// passphrase is needed.
pub fn read_public(path: &Path) -> Result<(PublicKey, String), KeyError> {
    let (text, _) =
        read_bounded(path).map_err(|source| KeyError::Read { path: path.into(), source })?;
    let format = |why: String| KeyError::Format { path: path.into(), why };
    let key = if text.starts_with("-----BEGIN") {
        let key = PrivateKey::from_openssh(text.as_bytes()).map_err(|e| format(e.to_string()))?;
        key.public_key().clone()
    } else {
        ssh_key::PublicKey::from_openssh(text.trim()).map_err(|e| format(e.to_string()))?
    };
    let KeyData::Ed25519(raw) = key.key_data() else {
        return Err(format("it is of another kind".into()));
    };
    let public = PublicKey(raw.0);
    if !is_sound(&public) {
        return Err(format("the key is weak".into()));
    }
    Ok((public, key.comment().to_owned()))
}
