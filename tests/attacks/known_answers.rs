//! Known answers that nobody here wrote, from source archives of the Python package index: the
//! 1 024 of Ed25519's authors, and those of BLAKE3's. The archives are kept in a cache outside of
//! the repository, checked by their published hashes.

use std::path::PathBuf;
use std::process::Command;

use stork_wire::ids::{PublicKey, hex, unhex};
use stork_wire::sign::{ReadyKey, SecretKey, SignatureBytes};

/// An archive: its name, where it lies below the index's host for files, and its SHA-256.
struct Archive {
    name: &'static str,
    path: &'static str,
    sha256: &'static str,
}

const ED25519: Archive = Archive {
    name: "ed25519-1.5",
    path: "58/38/72ec85c953b90552fb015f31248256ef19e89a164a40ff8fef680259a608",
    sha256: "02053ee019ceef0df97294be2d4d5a8fc120fc86e81e08bec1245fc0f9403358",
};
const BLAKE3: Archive = Archive {
    name: "blake3-1.0.5",
    path: "e7/08/22b6326dbe002ca77c92082b37b14a935003897b0e3eed025da92c700751",
    sha256: "7bac73f393a67ea6d5ac32e4a45d39c184487c89c712ab3ed839c1a51ed82259",
};

fn run(command: &mut Command) -> Result<Vec<u8>, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let out = command.output().map_err(|e| format!("{name} cannot be run: {e}"))?;
    if out.status.success() {
        Ok(out.stdout)
    } else {
        Err(format!("{name}: {}", String::from_utf8_lossy(&out.stderr).trim()))
    }
}

impl Archive {
    fn sum_of(path: &PathBuf) -> Option<String> {
        let out = run(Command::new("sha256sum").arg(path)).ok()?;
        String::from_utf8_lossy(&out).split(' ').next().map(str::to_owned)
    }

    /// The archive in the cache, fetched where it is not there.
    fn file(&self) -> Result<PathBuf, String> {
        let user = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let folder = user.unwrap_or_else(|| "/var/tmp".into()).join("stork-tests/answers");
        std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let file = folder.join(format!("{}.tar.gz", self.name));
        if !file.exists() {
            let url = format!("https://files.pythonhosted.org/packages/{}", self.path);
            let new = folder.join(format!("{}.{}", self.name, std::process::id()));
            let mut curl = Command::new("curl");
            curl.args(["--fail", "--silent", "--show-error", "--max-time", "60", "--output"]);
            run(curl.arg(&new).arg(format!("{url}/{}.tar.gz", self.name)))?;
            std::fs::rename(&new, &file).map_err(|e| format!("{}: {e}", file.display()))?;
        }
        let sum = Self::sum_of(&file);
        if sum.as_deref() == Some(self.sha256) {
            return Ok(file);
        }
        // Half of one, or another: the next run fetches it anew.
        drop(std::fs::remove_file(&file));
        Err(format!("{} is {sum:?}, not what was published", file.display()))
    }

    /// A file of the archive; none, with a printed reason, where there is neither cache nor
    /// network.
    fn text(&self, path: &str) -> Option<String> {
        let member = format!("{}/{path}", self.name);
        let read = |file| run(Command::new("tar").arg("-xzOf").arg(file).arg(&member));
        match self.file().and_then(read) {
            Ok(bytes) => Some(String::from_utf8(bytes).unwrap()),
            Err(why) => {
                eprintln!("skipped: the known answers of {} are not here: {why}", self.name);
                None
            }
        }
    }
}

/// T052: the 1 024 known answers of Ed25519's authors: keys, signatures made and signatures
/// verified; with one bit of the message or of the signature changed none of them holds.
#[test]
fn t052_ed25519_answers() {
    let Some(text) = ED25519.text("kat-ed25519.txt") else { return };
    let bytes = |text: &str| unhex(text).unwrap();
    let mut count = 0;
    for line in text.lines() {
        let [secret, public, message, signed, ..] = *line.split(':').collect::<Vec<_>>() else {
            panic!("{line}")
        };
        let seed: [u8; 32] = bytes(secret)[..32].try_into().unwrap();
        let (public, message) = (PublicKey(bytes(public).try_into().unwrap()), bytes(message));
        let signature: [u8; 64] = bytes(signed)[..64].try_into().unwrap();
        let key = SecretKey::from_seed(&seed);
        assert_eq!(key.public(), public, "{count}");
        assert_eq!(key.sign(&message).0, signature, "{count}");
        let ready = ReadyKey::new(public);
        assert!(ready.verifies(&message, &SignatureBytes(signature)), "{count}");
        let mut other = signature;
        other[count % 64] ^= 1 << (count % 8);
        assert!(!ready.verifies(&message, &SignatureBytes(other)), "{count}");
        let longer = [message.as_slice(), b"x"].concat();
        assert!(!ready.verifies(&longer, &SignatureBytes(signature)), "{count}");
        count += 1;
    }
    assert_eq!(count, 1_024);
}

/// The value of a key in one case, in the plain way in which that file is written.
fn field<'a>(case: &'a str, name: &str) -> &'a str {
    let (_, rest) = case.split_once(&format!("\"{name}\": ")).unwrap();
    rest.split([',', '\n']).next().unwrap().trim_matches(['"', ' ', '}'])
}

/// T052: BLAKE3's own answers in its three modes, with the length of hashes and with long output,
/// at once and by pieces as content comes.
#[test]
fn t052_blake3_answers() {
    let Some(text) = BLAKE3.text("tests/test_vectors.json") else { return };
    let key: [u8; 32] = field(&text, "key").as_bytes().try_into().unwrap();
    let context = "BLAKE3 2019-12-27 16:29:52 test vectors context";
    let mut count = 0;
    for case in text.split("\"input_len\"").skip(1) {
        let case = format!("\"input_len\"{case}");
        let len: usize = field(&case, "input_len").parse().unwrap();
        let input: Vec<u8> = (0..=250).cycle().take(len).collect();
        for (mode, hasher) in [
            ("hash", blake3::Hasher::new()),
            ("keyed_hash", blake3::Hasher::new_keyed(&key)),
            ("derive_key", blake3::Hasher::new_derive_key(context)),
        ] {
            let answer = field(&case, mode);
            let mut out = vec![0; answer.len() / 2];
            hasher.clone().update(&input).finalize_xof().fill(&mut out);
            assert_eq!(hex(&out), answer, "{mode} of {len}");
            let mut pieces = hasher;
            for piece in input.chunks(1_000) {
                pieces.update(piece);
            }
            assert_eq!(hex(pieces.finalize().as_bytes()), answer[..64], "{mode} of {len}");
        }
        count += 1;
    }
    assert_eq!(count, 22);
}
