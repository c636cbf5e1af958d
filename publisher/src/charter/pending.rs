//! A change that still lacks signatures, as a text file that goes from hand to hand: by mail, on a
//! stick, or typed off paper if it must be.
//!
//! Its comments are for people and are never believed: whoever signs is shown what the documents
//! themselves say. Nothing in the file is secret, and nothing in it holds before a charter has
//! taken it.

use stork_wire::codec::{Blob, List};
use stork_wire::ids::{FleetId, KeyId, LogId, hex, unhex};
use stork_wire::item::{Item, ItemKind};
use stork_wire::limits::{DOC_LEN_MAX, SIGNATURES_MAX};
use stork_wire::sign::{Envelope, KeySignature, SignatureBytes};

const HEADER: &str = "stork charter pending v1";
const END: &str = "end";
/// Documents of one change.
pub(super) const PENDING_ITEMS_MAX: usize = 64;
/// Bytes of one file: every document in hexadecimal digits with its signatures and comments.
pub(super) const PENDING_LEN_MAX: usize = PENDING_ITEMS_MAX * (3 * DOC_LEN_MAX + 8192);
/// Bytes of a body in one line: short enough for every mail.
const LINE_BYTES: usize = 36;

/// A text that is no pending change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PendingError {
    /// It does not begin as it must.
    #[error("it does not begin with `{HEADER}`")]
    Header,
    /// A line is not understood.
    #[error("line {line}: {why}")]
    Line {
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        why: &'static str,
    },
    /// It was cut off.
    #[error("it is cut off: the line `{END}` lacks")]
    CutOff,
    /// It holds more than it may.
    #[error("it is too long, or has too many documents")]
    TooLong,
}

/// Documents that are to be added to a charter, all or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Of which fleet.
    pub fleet: FleetId,
    /// The documents, those that others need first in front.
    pub items: Vec<Item>,
}

/// What has been read of one document.
struct Part {
    kind: ItemKind,
    log: LogId,
    seq: u64,
    body: Vec<u8>,
    signatures: Vec<KeySignature>,
}

impl Part {
    /// `document KIND LOG NUMBER`.
    fn begin(words: &[&str]) -> Result<Self, &'static str> {
        let [kind, log, number] = words else {
            return Err("a kind, a log and a number are expected");
        };
        let kinds = [ItemKind::Root, ItemKind::Group, ItemKind::Publisher];
        let kind = kinds.into_iter().find(|k| k.name() == *kind).ok_or("no kind of document")?;
        let log = log.parse().map_err(|_e| "the log is no id")?;
        let seq = number.parse().map_err(|_e| "the number is none")?;
        Ok(Self { kind, log, seq, body: Vec::new(), signatures: Vec::new() })
    }

    fn add_body(&mut self, digits: &str) -> Result<(), &'static str> {
        let bytes = unhex(digits).ok_or("hexadecimal digits are expected")?;
        if !self.signatures.is_empty() {
            return Err("the body stands before the signatures");
        }
        if bytes.is_empty() || self.body.len() + bytes.len() > DOC_LEN_MAX {
            return Err("the document is longer than it may be, or the line is empty");
        }
        self.body.extend_from_slice(&bytes);
        Ok(())
    }

    /// `signature KEYID SIGNATURE`.
    fn add_signature(&mut self, words: &[&str]) -> Result<(), &'static str> {
        let [key, signature] = words else { return Err("a key id and a signature are expected") };
        let key: KeyId = key.parse().map_err(|_e| "the key id is none")?;
        let bytes = unhex(signature).and_then(|b| <[u8; 64]>::try_from(b).ok());
        let signature = SignatureBytes(bytes.ok_or("a signature has 128 hexadecimal digits")?);
        if self.signatures.last().is_some_and(|s| s.key >= key) {
            return Err("signatures are sorted by key id, each key once");
        }
        if self.signatures.len() >= SIGNATURES_MAX {
            return Err("there are too many signatures");
        }
        self.signatures.push(KeySignature { key, signature });
        Ok(())
    }

    fn finish(self) -> Result<Item, &'static str> {
        if self.body.is_empty() {
            return Err("the document before it has no body");
        }
        let body = Blob::new(self.body).map_err(|_e| "the document is too long")?;
        let signatures = List::new(self.signatures).map_err(|_e| "too many signatures")?;
        let envelope = Envelope { body, signatures };
        Ok(Item { kind: self.kind, log: self.log, seq: self.seq, envelope })
    }
}

/// What has been read so far.
#[derive(Default)]
struct Reader {
    fleet: Option<FleetId>,
    part: Option<Part>,
    items: Vec<Item>,
    ended: bool,
}

impl Reader {
    fn close(&mut self) -> Result<(), &'static str> {
        if let Some(part) = self.part.take() {
            self.items.push(part.finish()?);
        }
        Ok(())
    }

    fn line(&mut self, line: &str) -> Result<(), &'static str> {
        if self.ended {
            return Err("nothing may follow the end");
        }
        if line.starts_with('#') {
            return Ok(());
        }
        if let Some(digits) = line.strip_prefix("  ") {
            return self.part.as_mut().ok_or("no document has begun")?.add_body(digits);
        }
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["fleet", id] if self.fleet.is_none() => {
                self.fleet = Some(id.parse().map_err(|_e| "the fleet is no id")?);
            }
            ["document", rest @ ..] if self.fleet.is_some() => {
                self.close()?;
                self.part = Some(Part::begin(rest)?);
            }
            ["signature", rest @ ..] => {
                self.part.as_mut().ok_or("no document has begun")?.add_signature(rest)?;
            }
            [END] => {
                self.close()?;
                self.ended = true;
            }
            _ => return Err("this line is not understood"),
        }
        Ok(())
    }
}

impl Pending {
    /// Reads a file. What its documents say is not believed yet.
    pub fn parse(bytes: &[u8]) -> Result<Self, PendingError> {
        if bytes.len() > PENDING_LEN_MAX {
            return Err(PendingError::TooLong);
        }
        let text = core::str::from_utf8(bytes).map_err(|_e| PendingError::Header)?;
        let mut lines = text.lines().zip(1usize..);
        if lines.next().map(|(l, _)| l) != Some(HEADER) {
            return Err(PendingError::Header);
        }
        let mut reader = Reader::default();
        for (text, line) in lines {
            reader.line(text).map_err(|why| PendingError::Line { line, why })?;
            if reader.items.len() > PENDING_ITEMS_MAX {
                return Err(PendingError::TooLong);
            }
        }
        match reader {
            Reader { fleet: Some(fleet), items, ended: true, .. } if !items.is_empty() => {
                Ok(Self { fleet, items })
            }
            _ => Err(PendingError::CutOff),
        }
    }

    /// The file's text, with comments for people.
    pub fn text(&self, comments: &[String]) -> Result<String, PendingError> {
        if self.items.len() > PENDING_ITEMS_MAX {
            return Err(PendingError::TooLong);
        }
        let mut lines = vec![HEADER.to_owned()];
        lines.extend(comments.iter().map(|c| format!("# {c}")));
        lines.push(format!("fleet {}", self.fleet));
        for item in &self.items {
            lines.push(format!("document {} {} {}", item.kind.name(), item.log, item.seq));
            let body: &[u8] = &item.envelope.body;
            lines.extend(body.chunks(LINE_BYTES).map(|part| format!("  {}", hex(part))));
            let signatures = item.envelope.signatures.iter();
            lines
                .extend(signatures.map(|s| format!("signature {} {}", s.key, hex(&s.signature.0))));
        }
        lines.push(END.to_owned());
        Ok(lines.join("\n") + "\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Pending {
        let key = |n: u8| KeyId([n; 32]);
        let signature = SignatureBytes([7; 64]);
        let signatures = [1, 2].map(|n| KeySignature { key: key(n), signature });
        let envelope = Envelope {
            body: Blob::new(vec![9; 100]).unwrap(),
            signatures: List::new(signatures.to_vec()).unwrap(),
        };
        let one = Item { kind: ItemKind::Root, log: LogId([3; 32]), seq: 2, envelope };
        let mut other = Item { kind: ItemKind::Group, seq: 1, ..one.clone() };
        other.envelope.signatures = List::empty();
        Pending { fleet: FleetId([4; 32]), items: vec![one, other] }
    }

    /// What is written is read back, whatever the comments say; Windows line ends do no harm.
    #[test]
    fn round_trip() {
        let text = sample().text(&["end".into(), "document 2".into()]).unwrap();
        assert!(text.lines().all(|l| l.len() < 250), "{text}");
        assert_eq!(Pending::parse(text.as_bytes()), Ok(sample()));
        assert_eq!(Pending::parse(text.replace('\n', "\r\n").as_bytes()), Ok(sample()));
    }

    /// Each kind of damage is refused, and the line is named.
    #[test]
    fn damaged_files() {
        let text = sample().text(&[]).unwrap();
        let refused = |text: String| Pending::parse(text.as_bytes()).unwrap_err();
        assert_eq!(refused(text.replace("v1", "v2")), PendingError::Header);
        assert_eq!(refused(text.replace("end\n", "")), PendingError::CutOff);
        assert_eq!(refused(format!("{HEADER}\nend\n")), PendingError::CutOff);
        let at = |text: String, part: &str| {
            let e = refused(text);
            assert!(matches!(&e, PendingError::Line { why, .. } if why.contains(part)), "{e}");
        };
        at(text.clone() + "more\n", "nothing may follow");
        at(text.replace("  09", "  0x"), "hexadecimal");
        at(text.replace("document root", "document entry"), "kind");
        at(text.replace("  09", "09"), "not understood");
        at(text.replace(&format!("signature {}", KeyId([2; 32])), "signature 2"), "key id");
        let twice = format!("signature {} {}\n", KeyId([2; 32]), "07".repeat(64));
        at(text.replace(&twice, &twice.repeat(2)), "each key once");
        let long = format!("  {}\n", "09".repeat(LINE_BYTES)).repeat(DOC_LEN_MAX / LINE_BYTES);
        at(text.replacen("  09", &format!("{long}  09"), 1), "longer");
        let part = "document root ".to_owned() + &LogId([3; 32]).to_string() + " 2\n  09\n";
        let many = format!("{HEADER}\nfleet {}\n{}end\n", FleetId([4; 32]), part.repeat(66));
        assert_eq!(refused(many), PendingError::TooLong);
        assert_eq!(refused(" ".repeat(PENDING_LEN_MAX + 1)), PendingError::TooLong);
    }

    proptest! {
        /// Whatever the bytes, and wherever a good file is changed: a result, no crash; and what is
        /// read can be written.
        #[test]
        fn any_bytes(at in 0usize..1500, byte in any::<u8>(), junk in any::<Vec<u8>>()) {
            drop(Pending::parse(&junk));
            let mut bytes = sample().text(&[]).unwrap().into_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(read) = Pending::parse(&bytes) {
                let again = read.text(&[]).unwrap();
                prop_assert_eq!(Pending::parse(again.as_bytes()), Ok(read));
            }
        }
    }
}
