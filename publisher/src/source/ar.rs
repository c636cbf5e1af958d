//! The outer container of a `.deb`: the common `ar` format, as deb(5) restricts it.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Take};
use std::path::Path;

use super::error::{SourceError, shown};

const MAGIC: &[u8] = b"!<arch>\n";
const HEADER_LEN: u64 = 60;
/// dpkg writes three members; some tools add a signature.
const MEMBERS_MAX: usize = 32;

/// One member of the container.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// Does the file begin like an `ar` archive?
pub(super) fn is_ar(file: &mut File) -> io::Result<bool> {
    let mut magic = [0; 8];
    file.seek(SeekFrom::Start(0))?;
    let n = file.read(&mut magic)?;
    Ok(magic.get(..n) == Some(MAGIC))
}

/// The members, each of them whole: one that the file is too short for is an error.
pub(super) fn members(file: &mut File, path: &Path) -> Result<Vec<Member>, SourceError> {
    let read = |source| SourceError::Read { path: path.into(), source };
    let not = |why: &str| SourceError::NotADeb { path: path.into(), why: why.into() };
    if !is_ar(file).map_err(read)? {
        return Err(not("it does not begin with `!<arch>`"));
    }
    let end = file.metadata().map_err(read)?.len();
    let mut at = MAGIC.len() as u64;
    let mut out = Vec::new();
    while at < end {
        if out.len() == MEMBERS_MAX {
            return Err(not("it has more than 32 members"));
        }
        if end - at < HEADER_LEN {
            let member = "header of the next member".to_owned();
            let (need, have) = (HEADER_LEN, end - at);
            return Err(SourceError::TruncatedDeb { path: path.into(), member, need, have });
        }
        let mut header = [0; 60];
        file.seek(SeekFrom::Start(at)).map_err(read)?;
        file.read_exact(&mut header).map_err(read)?;
        let field = |from: usize, to: usize| header.get(from..to).unwrap_or_default();
        if field(58, 60) != b"`\n" {
            return Err(not("a member's header is broken"));
        }
        let name = shown(field(0, 16)).trim_end().trim_end_matches('/').to_owned();
        let size = std::str::from_utf8(field(48, 58))
            .ok()
            .and_then(|s| s.trim_end().parse::<u64>().ok())
            .ok_or_else(|| not("the size of a member is no number"))?;
        let (offset, have) = (at + HEADER_LEN, end - at - HEADER_LEN);
        if size > have {
            let path = path.into();
            return Err(SourceError::TruncatedDeb { path, member: name, need: size, have });
        }
        out.push(Member { name, offset, size });
        at = offset + size + size % 2;
    }
    Ok(out)
}

/// The bytes of one member.
pub(super) fn open(file: &File, member: &Member) -> io::Result<BufReader<Take<File>>> {
    let mut file = file.try_clone()?;
    file.seek(SeekFrom::Start(member.offset))?;
    Ok(BufReader::with_capacity(64 * 1024, file.take(member.size)))
}
