//! Credentials for a bucket: a file of `NAME=value` lines with the usual names, which its owner
//! alone may read. They are never shown, and taken out of every text that comes from a server.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use object_store::aws::AmazonS3ConfigKey;

use crate::error::OriginError;

/// Bytes of the file at the most: a session token may have some thousands.
const FILE_LEN_MAX: u64 = 64 * 1024;
/// A shorter value is no secret, and could be a part of any word.
const SECRET_LEN_MIN: usize = 6;
/// Variables whose values are secret, or say whose account it is.
const SECRETS: [&str; 3] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];

/// What was read from a file.
#[derive(Clone, Default)]
pub(crate) struct Credentials {
    pub(crate) pairs: Vec<(AmazonS3ConfigKey, String)>,
    secrets: Vec<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({} values)", self.pairs.len())
    }
}

fn parse(text: &str) -> Result<Credentials, String> {
    let mut found = Credentials::default();
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // The line itself is not repeated: it may be the secret.
        let (name, value) =
            line.split_once('=').ok_or_else(|| format!("line {number} is not NAME=value"))?;
        let (name, value) = (name.trim(), value.trim().trim_matches('"'));
        let key = name.starts_with("AWS_").then(|| name.to_ascii_lowercase().parse());
        let Some(Ok(key)) = key else {
            return Err(format!("line {number} has a name that means nothing here"));
        };
        if SECRETS.contains(&name) {
            found.secrets.push(value.to_owned());
        }
        found.pairs.push((key, value.to_owned()));
    }
    Ok(found)
}

impl Credentials {
    /// Reads a file, which only its owner may be able to read.
    pub(crate) fn read(path: &Path) -> Result<Self, OriginError> {
        let wrong =
            |why: String| OriginError::Credentials { path: path.to_owned(), why, source: None };
        let failed = |source| OriginError::Credentials {
            path: path.to_owned(),
            why: "it cannot be read".to_owned(),
            source: Some(source),
        };
        let file = File::open(path).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        if meta.mode() & 0o077 != 0 {
            let mode = meta.mode() & 0o777;
            return Err(wrong(format!("others than its owner may read it (mode {mode:03o})")));
        }
        let mut text = String::new();
        file.take(FILE_LEN_MAX).read_to_string(&mut text).map_err(failed)?;
        parse(&text).map_err(wrong)
    }

    /// Adds what the environment holds to what must not be shown.
    pub(crate) fn with_environment(mut self) -> Self {
        self.secrets.extend(SECRETS.iter().filter_map(|name| std::env::var(name).ok()));
        self
    }

    /// A server's words, without secrets, control characters, and whatever comes after the first
    /// few hundred characters.
    pub(crate) fn clean(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in self.secrets.iter().filter(|s| s.len() >= SECRET_LEN_MIN) {
            text = text.replace(secret.as_str(), "***");
        }
        let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        plain.take(240).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn file(text: &str, mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    /// The usual names are taken, and no secret is shown, neither by us nor by a server.
    #[test]
    fn a_good_file() {
        let text = "# ours\nAWS_ACCESS_KEY_ID=AKIAEXAMPLE\nAWS_SECRET_ACCESS_KEY=\"hush-hush\"\n\
                    AWS_ENDPOINT_URL=http://127.0.0.1:9\n";
        let found = Credentials::read(file(text, 0o600).path()).unwrap();
        assert_eq!(found.pairs.len(), 3);
        assert!(!format!("{found:?}").contains("hush"));
        let said = found.clean("bad key AKIAEXAMPLE\nwith hush-hush");
        assert_eq!(said, "bad key *** with ***");
    }

    /// A file that others may read, that is missing, or that has something else in it is refused,
    /// and its lines are not repeated.
    #[test]
    fn bad_files() {
        let open = Credentials::read(file("", 0o640).path()).unwrap_err();
        assert!(open.to_string().contains("mode 640"), "{open}");
        assert!(open.help().contains("chmod 600"), "{}", open.help());
        assert!(Credentials::read(Path::new("/nowhere/x")).is_err());
        for text in ["hush-hush", "HUSH=x", "AWS_HUSH=x", "aws_secret_access_key=hush"] {
            let e = Credentials::read(file(text, 0o400).path()).unwrap_err().to_string();
            assert!(e.contains("line 1") && !e.to_lowercase().contains("hush"), "{e}");
        }
    }
}
