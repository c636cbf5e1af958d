//! Headers of RPM packages: tags with typed values, as publishers read them and hosts write them
//! again.
//!
//! An RPM package is a lead, a header of signatures, the main header and a payload. Both headers
//! have one form (RPM file format, version 4): an index of entries of 16 bytes, and a store that
//! they point into. Here they become a map, and a map becomes the same bytes on every host. What a
//! header says about names, files and dependencies is in [`info`]. Headers come from publishers:
//! every count is bounded by the bytes that are there.

pub mod info;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;

/// Bytes that every header begins with: magic, version, four that are reserved.
const MAGIC: [u8; 8] = [0x8e, 0xad, 0xe8, 0x01, 0, 0, 0, 0];
const INTRO_LEN: usize = 16;
const ENTRY_LEN: usize = 16;
/// Entries of an index; the largest of a distribution have some 120.
const ENTRIES_MAX: usize = 1_024;

/// The tag of the region that a header is: of signatures, and of everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Region {
    /// The header of signatures and of sums.
    Signatures,
    /// The main header.
    Main,
}

impl Region {
    const fn tag(self) -> u32 {
        match self {
            Self::Signatures => 62,
            Self::Main => 63,
        }
    }
}

/// Tags that something here asks for, by their names in the documentation of RPM.
#[expect(missing_docs, reason = "their names are those of the format")]
pub mod tag {
    pub const NAME: u32 = 1000;
    pub const VERSION: u32 = 1001;
    pub const RELEASE: u32 = 1002;
    pub const EPOCH: u32 = 1003;
    pub const SUMMARY: u32 = 1004;
    pub const DESCRIPTION: u32 = 1005;
    pub const BUILDTIME: u32 = 1006;
    pub const BUILDHOST: u32 = 1007;
    pub const SIZE: u32 = 1009;
    pub const VENDOR: u32 = 1011;
    pub const LICENSE: u32 = 1014;
    pub const PACKAGER: u32 = 1015;
    pub const GROUP: u32 = 1016;
    pub const URL: u32 = 1020;
    pub const ARCH: u32 = 1022;
    pub const FILESIZES: u32 = 1028;
    pub const FILEMODES: u32 = 1030;
    pub const FILERDEVS: u32 = 1033;
    pub const FILEMTIMES: u32 = 1034;
    pub const FILELINKTOS: u32 = 1036;
    pub const FILEFLAGS: u32 = 1037;
    pub const FILEUSERNAME: u32 = 1039;
    pub const FILEGROUPNAME: u32 = 1040;
    pub const SOURCERPM: u32 = 1044;
    pub const PROVIDENAME: u32 = 1047;
    pub const REQUIREFLAGS: u32 = 1048;
    pub const REQUIRENAME: u32 = 1049;
    pub const REQUIREVERSION: u32 = 1050;
    pub const CONFLICTFLAGS: u32 = 1053;
    pub const CONFLICTNAME: u32 = 1054;
    pub const CONFLICTVERSION: u32 = 1055;
    pub const CHANGELOGTIME: u32 = 1080;
    pub const CHANGELOGNAME: u32 = 1081;
    pub const CHANGELOGTEXT: u32 = 1082;
    pub const OBSOLETENAME: u32 = 1090;
    pub const FILEDEVICES: u32 = 1095;
    pub const FILEINODES: u32 = 1096;
    pub const SOURCEPACKAGE: u32 = 1106;
    pub const PROVIDEFLAGS: u32 = 1112;
    pub const PROVIDEVERSION: u32 = 1113;
    pub const OBSOLETEFLAGS: u32 = 1114;
    pub const OBSOLETEVERSION: u32 = 1115;
    pub const DIRINDEXES: u32 = 1116;
    pub const BASENAMES: u32 = 1117;
    pub const DIRNAMES: u32 = 1118;
    pub const PAYLOADFORMAT: u32 = 1124;
    pub const PAYLOADCOMPRESSOR: u32 = 1125;
    pub const PAYLOADFLAGS: u32 = 1126;
    pub const LONGFILESIZES: u32 = 5008;
    pub const FILECAPS: u32 = 5010;
    pub const RECOMMENDNAME: u32 = 5046;
    pub const RECOMMENDVERSION: u32 = 5047;
    pub const RECOMMENDFLAGS: u32 = 5048;
    pub const SUGGESTNAME: u32 = 5049;
    pub const SUGGESTVERSION: u32 = 5050;
    pub const SUGGESTFLAGS: u32 = 5051;
    pub const SUPPLEMENTNAME: u32 = 5052;
    pub const SUPPLEMENTVERSION: u32 = 5053;
    pub const SUPPLEMENTFLAGS: u32 = 5054;
    pub const ENHANCENAME: u32 = 5055;
    pub const ENHANCEVERSION: u32 = 5056;
    pub const ENHANCEFLAGS: u32 = 5057;
    pub const FILESIGNATURES: u32 = 5090;
    pub const FILESIGNATURELENGTH: u32 = 5091;
    pub const PAYLOADDIGEST: u32 = 5092;
    pub const PAYLOADDIGESTALGO: u32 = 5093;
    pub const PAYLOADDIGESTALT: u32 = 5097;
    /// In the header of signatures: bytes of main header and payload.
    pub const SIGSIZE: u32 = 1000;
    /// There: bytes of the payload before it was compressed.
    pub const SIGPAYLOADSIZE: u32 = 1007;
    /// There: SHA-256 of the main header, in hexadecimal digits.
    pub const SIGSHA256: u32 = 273;
}

/// Why some bytes are no header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the RPM header {0}")]
pub struct BadHeader(pub(crate) String);

pub(crate) fn bad(why: impl Into<String>) -> BadHeader {
    BadHeader(why.into())
}

/// The value of a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Characters (1), bytes as numbers (2), or bytes (7).
    Bytes {
        /// Which of them.
        kind: u32,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Numbers of 16 bits.
    Int16(Vec<u16>),
    /// Numbers of 32 bits.
    Int32(Vec<u32>),
    /// Numbers of 64 bits.
    Int64(Vec<u64>),
    /// One text.
    Text(Vec<u8>),
    /// Several texts.
    Texts {
        /// One for each language, the first without one.
        translated: bool,
        /// How many.
        count: u32,
        /// All of them, each with its closing zero.
        bytes: Vec<u8>,
    },
}

impl Value {
    /// Several texts, none of which may hold a zero.
    #[must_use]
    pub fn texts<T: AsRef<[u8]>>(all: &[T]) -> Self {
        let bytes = all.iter().flat_map(|t| t.as_ref().iter().copied().chain([0])).collect();
        Self::Texts { translated: false, count: u32::try_from(all.len()).unwrap_or(0), bytes }
    }

    const fn kind(&self) -> u32 {
        match self {
            Self::Bytes { kind, .. } => *kind,
            Self::Int16(_) => 3,
            Self::Int32(_) => 4,
            Self::Int64(_) => 5,
            Self::Text(_) => 6,
            Self::Texts { translated: false, .. } => 8,
            Self::Texts { translated: true, .. } => 9,
        }
    }

    fn count(&self) -> usize {
        match self {
            Self::Bytes { bytes, .. } => bytes.len(),
            Self::Int16(n) => n.len(),
            Self::Int32(n) => n.len(),
            Self::Int64(n) => n.len(),
            Self::Text(_) => 1,
            Self::Texts { count, .. } => *count as usize,
        }
    }

    const fn align(&self) -> usize {
        match self {
            Self::Int16(_) => 2,
            Self::Int32(_) => 4,
            Self::Int64(_) => 8,
            _ => 1,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Bytes { bytes, .. } | Self::Texts { bytes, .. } => out.extend(bytes),
            Self::Int16(n) => out.extend(n.iter().flat_map(|n| n.to_be_bytes())),
            Self::Int32(n) => out.extend(n.iter().flat_map(|n| n.to_be_bytes())),
            Self::Int64(n) => out.extend(n.iter().flat_map(|n| n.to_be_bytes())),
            Self::Text(text) => out.extend(text.iter().copied().chain([0])),
        }
    }

    /// Reads `count` values of a kind from the beginning of `rest`.
    fn read(kind: u32, count: usize, rest: &[u8]) -> Result<Self, BadHeader> {
        let numbers = |len: usize| -> Result<&[u8], BadHeader> {
            let end = count.checked_mul(len).ok_or_else(|| bad("has a count that is too large"))?;
            rest.get(..end).ok_or_else(|| bad("has a value beyond its end"))
        };
        Ok(match kind {
            1 | 2 | 7 => Self::Bytes { kind, bytes: numbers(1)?.to_vec() },
            3 => Self::Int16(of_bytes(numbers(2)?, u16::from_be_bytes)),
            4 => Self::Int32(of_bytes(numbers(4)?, u32::from_be_bytes)),
            5 => Self::Int64(of_bytes(numbers(8)?, u64::from_be_bytes)),
            6 if count == 1 => {
                let bytes = texts(rest, 1)?;
                Self::Text(bytes.strip_suffix(&[0]).unwrap_or(bytes).to_vec())
            }
            8 | 9 => {
                let short = u32::try_from(count).map_err(|_e| bad("has too many texts"))?;
                let bytes = texts(rest, count)?.to_vec();
                Self::Texts { translated: kind == 9, count: short, bytes }
            }
            _ => return Err(bad(format!("has a value of type {kind}"))),
        })
    }
}

fn of_bytes<const N: usize, T>(bytes: &[u8], one: fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| one(*chunk)).collect()
}

/// The bytes of so many texts, with their closing zeros.
fn texts(rest: &[u8], count: usize) -> Result<&[u8], BadHeader> {
    let mut end = 0;
    for _ in 0..count {
        let tail = rest.get(end..).unwrap_or_default();
        let len = tail.iter().position(|b| *b == 0).ok_or_else(|| bad("has a text without end"))?;
        end += len + 1;
    }
    Ok(rest.get(..end).unwrap_or_default())
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|four| u32::from_be_bytes(*four))
}

/// A header as a map; without its region tag, which follows from the rest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Header {
    values: BTreeMap<u32, Value>,
}

impl Header {
    /// How long the header is that begins with these 16 bytes, all of it.
    pub fn len_of(intro: &[u8; 16]) -> Result<u64, BadHeader> {
        let count = u32_at(intro, 8).map_or(0, u64::from);
        let store = u32_at(intro, 12).map_or(0, u64::from);
        if !intro.starts_with(&MAGIC) {
            return Err(bad("does not begin with its magic number"));
        }
        if count == 0 || count > ENTRIES_MAX as u64 {
            return Err(bad(format!("has {count} entries; 1 to {ENTRIES_MAX} are taken")));
        }
        Ok(INTRO_LEN as u64 + count * ENTRY_LEN as u64 + store)
    }

    /// Reads a header: these bytes and no others. It takes no more memory than they do, some times
    /// over.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadHeader> {
        let intro = bytes.first_chunk().ok_or_else(|| bad("is cut off"))?;
        if Self::len_of(intro)? != bytes.len() as u64 {
            return Err(bad("is cut off, or something follows it"));
        }
        let count = u32_at(intro, 8).map_or(0, |n| n as usize);
        let (index, store) = bytes.get(INTRO_LEN..).unwrap_or_default().split_at(count * ENTRY_LEN);
        let mut values = BTreeMap::new();
        // Entries may not share bytes, or a short header would become a long one.
        let mut left = store.len();
        for entry in index.as_chunks::<ENTRY_LEN>().0 {
            let field = |i: usize| u32_at(entry, i * 4).unwrap_or(0);
            let (tag, kind, at, count) = (field(0), field(1), field(2), field(3));
            if matches!(tag, 61..=63) {
                continue;
            }
            let rest = store.get(at as usize..).ok_or_else(|| bad("points beyond its end"))?;
            let value = Value::read(kind, count as usize, rest)?;
            let mut written = Vec::new();
            value.write(&mut written);
            left = left.checked_sub(written.len()).ok_or_else(|| bad("has values that overlap"))?;
            if values.insert(tag, value).is_some() {
                return Err(bad(format!("has the tag {tag} twice")));
            }
        }
        Ok(Self { values })
    }

    /// The bytes of the header, the same for the same values.
    #[must_use]
    pub fn encode(&self, region: Region) -> Vec<u8> {
        let (mut index, mut store) = (Vec::new(), Vec::new());
        for (tag, value) in &self.values {
            store.resize(store.len().next_multiple_of(value.align()), 0);
            entry(&mut index, [*tag, value.kind(), short(store.len()), short(value.count())]);
            value.write(&mut store);
        }
        let count = self.values.len() + 1;
        let back = short(count * ENTRY_LEN).wrapping_neg();
        let at = short(store.len());
        entry(&mut store, [region.tag(), 7, back, short(ENTRY_LEN)]);
        let mut out = MAGIC.to_vec();
        out.extend(short(count).to_be_bytes());
        out.extend(short(store.len()).to_be_bytes());
        entry(&mut out, [region.tag(), 7, at, short(ENTRY_LEN)]);
        out.extend(index);
        out.extend(store);
        out
    }

    /// The value of a tag.
    #[must_use]
    pub fn get(&self, tag: u32) -> Option<&Value> {
        self.values.get(&tag)
    }

    /// Gives a tag this value.
    pub fn set(&mut self, tag: u32, value: Value) {
        self.values.insert(tag, value);
    }

    /// Takes a tag away.
    pub fn remove(&mut self, tag: u32) {
        self.values.remove(&tag);
    }

    /// The text of a tag, the one without a language; empty where there is none.
    #[must_use]
    pub fn text(&self, tag: u32) -> Cow<'_, str> {
        match self.values.get(&tag) {
            Some(Value::Text(text)) => String::from_utf8_lossy(text),
            Some(Value::Texts { bytes, .. }) => {
                String::from_utf8_lossy(bytes.split(|b| *b == 0).next().unwrap_or_default())
            }
            _ => Cow::Borrowed(""),
        }
    }

    /// All texts of a tag.
    pub fn texts(&self, tag: u32) -> impl ExactSizeIterator<Item = &[u8]> + use<'_> {
        let (count, bytes) = match self.values.get(&tag) {
            Some(Value::Texts { count, bytes, .. }) => (*count as usize, &**bytes),
            _ => (0, &[][..]),
        };
        let mut parts = bytes.split(|b| *b == 0);
        (0..count).map(move |_| parts.next().unwrap_or_default())
    }

    /// The numbers of 32 bits of a tag.
    #[must_use]
    pub fn numbers(&self, tag: u32) -> &[u32] {
        match self.values.get(&tag) {
            Some(Value::Int32(numbers)) => numbers,
            _ => &[],
        }
    }

    /// The numbers of 16 bits of a tag.
    #[must_use]
    pub fn short_numbers(&self, tag: u32) -> &[u16] {
        match self.values.get(&tag) {
            Some(Value::Int16(numbers)) => numbers,
            _ => &[],
        }
    }

    /// The numbers of 64 bits of a tag.
    #[must_use]
    pub fn long_numbers(&self, tag: u32) -> &[u64] {
        match self.values.get(&tag) {
            Some(Value::Int64(numbers)) => numbers,
            _ => &[],
        }
    }
}

fn short(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn entry(out: &mut Vec<u8>, fields: [u32; 4]) {
    out.extend(fields.iter().flat_map(|f| f.to_be_bytes()));
}
