//! Segments of the journal: append-only files of chained records, and the reader that walks them.
//! It refuses to misread: a frame counts only if its hash continues the chain; anything else is the torn end.
//!
//! ```text
//! segment  NAME = <first seq, 20 digits>-<epoch>.journal
//!   header: "weirjrn1" · epoch u64 · first seq u64 · previous hash 32 · len(node) u32 · node · SHA-256 of all that
//!   frame*: len(raw) u32 · seq u64 · hash 32 · raw        integers big-endian
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use weir_core::audit::chain::{self, Digest, Head, RECORD_BYTES};
use weir_core::audit::verify::Entry;

/// A segment is closed when the next frame would make it longer: small enough to fold and delete in a second.
pub const SEGMENT_BYTES: u64 = 16 << 20;
/// Bytes in front of the raw record.
pub(super) const FRAME_HEAD: usize = 4 + 8 + 32;
/// Longest node name; a longer length field is damage.
pub(super) const NODE_BYTES: usize = 255;

/// What a segment says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) node: String,
    pub(super) epoch: u64,
    pub(super) first: u64,
    pub(super) prev: Digest,
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_FIXED + self.node.len() + 32);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.epoch.to_be_bytes());
        bytes.extend_from_slice(&self.first.to_be_bytes());
        bytes.extend_from_slice(&self.prev);
        bytes.extend_from_slice(&(self.node.len() as u32).to_be_bytes());
        bytes.extend_from_slice(self.node.as_bytes());
        let sum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&sum);
        bytes
    }

    /// The header at the front of `bytes` and its length; `None` if it is torn or damaged.
    pub(super) fn parse(bytes: &[u8]) -> Option<(Header, usize)> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let (epoch, rest) = rest.split_first_chunk::<8>()?;
        let (first, rest) = rest.split_first_chunk::<8>()?;
        let (prev, rest) = rest.split_first_chunk::<32>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let length = u32::from_be_bytes(*length) as usize;
        let (node, rest) = rest.split_at_checked(length)?;
        let (sum, _) = rest.split_first_chunk::<32>()?;
        let covered = bytes.get(..HEADER_FIXED + length)?;
        if Sha256::digest(covered)[..] != sum[..] {
            return None;
        }
        let node = String::from_utf8(node.to_vec()).ok()?;
        let (epoch, first) = (u64::from_be_bytes(*epoch), u64::from_be_bytes(*first));
        Some((Header { node, epoch, first, prev: *prev }, HEADER_FIXED + length + 32))
    }

    fn path(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{:020}-{}.{EXTENSION}", self.first, self.epoch))
    }
}

/// Appends the frame of a record to `frame`.
pub(super) fn frame(frame: &mut Vec<u8>, seq: u64, hash: &Digest, raw: &[u8]) {
    frame.extend_from_slice(&(raw.len() as u32).to_be_bytes());
    frame.extend_from_slice(&seq.to_be_bytes());
    frame.extend_from_slice(hash);
    frame.extend_from_slice(raw);
}

/// Makes a segment. Returns the file, its path and the offset of its first frame.
pub(super) fn create(dir: &Path, header: &Header) -> io::Result<(File, PathBuf, u64)> {
    let path = header.path(dir);
    let bytes = header.encode();
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
    if let Err(fault) = file.write_all_at(&bytes, 0) {
        let _ = std::fs::remove_file(&path);
        return Err(fault);
    }
    Ok((file, path, bytes.len() as u64))
}

/// The segments of a folder, oldest first.
pub(super) fn segments(dir: &Path) -> io::Result<Vec<PathBuf>> {
    files(dir, EXTENSION)
}

/// The files of a folder with this extension, by the two numbers of their names.
pub(super) fn files(dir: &Path, extension: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|its| its == extension) {
            found.push((order(&path), path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

fn order(path: &Path) -> (u64, u64) {
    let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    let (first, epoch) = name.split_once('-').unwrap_or((name, "0"));
    (first.parse().unwrap_or(u64::MAX), epoch.parse().unwrap_or(u64::MAX))
}

/// Keeps what is torn in a file beside it, put there by `act`. Returns that one's name.
pub(super) fn set_aside(path: &Path, act: impl FnOnce(&Path, &Path) -> io::Result<()>) -> io::Result<String> {
    let aside = path.with_extension(format!("torn-{}", super::wall_ns()));
    act(path, &aside)?;
    Ok(aside.file_name().unwrap_or_default().to_string_lossy().into_owned())
}

/// The header of a segment, or of an intake, and its length; `None` if it is torn or damaged.
pub(super) fn header(file: &File) -> io::Result<Option<(Header, usize)>> {
    let mut bytes = [0; HEADER_FIXED + NODE_BYTES + 32];
    let length = read_at_most(file, &mut bytes, 0)?;
    Ok(bytes.get(..length).and_then(Header::parse))
}

/// Walks one segment, checking hashes as it goes.
#[derive(Debug)]
pub(super) struct Cursor {
    file: File,
    pub(super) header: Header,
    /// The newest record passed; before the first one, what the header says came before.
    pub(super) head: Head,
    /// Offset in the file of the next frame.
    pub(super) offset: u64,
    buffer: Vec<u8>,
    /// Offset in the file of the buffer's first byte.
    buffered: u64,
}

/// One step of a [`Cursor`].
#[derive(Debug)]
pub(super) enum Step<'a> {
    Entry(Entry<'a>),
    /// Exactly at the end of what may be read.
    End,
    /// What follows is no record that continues the chain.
    Torn,
}

impl Cursor {
    /// Opens a segment; `None` if its header is torn or damaged.
    pub(super) fn open(path: &Path) -> io::Result<Option<Cursor>> {
        let file = File::open(path)?;
        let Some((header, offset)) = self::header(&file)? else { return Ok(None) };
        let head = Head { epoch: header.epoch, seq: header.first.saturating_sub(1), hash: header.prev };
        let offset = offset as u64;
        Ok(Some(Cursor { file, header, head, offset, buffer: Vec::new(), buffered: offset }))
    }

    /// Bytes of the file now.
    pub(super) fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// The next record that ends at or before `limit`, an offset in the file.
    pub(super) fn step(&mut self, limit: u64) -> io::Result<Step<'_>> {
        if self.offset >= limit {
            return Ok(Step::End);
        }
        let Some(head) = self.window(FRAME_HEAD, limit)? else { return Ok(Step::Torn) };
        let Some((length, seq, hash)) = frame_head(head) else { return Ok(Step::Torn) };
        if length > RECORD_BYTES || seq != self.head.seq.saturating_add(1) {
            return Ok(Step::Torn);
        }
        let (epoch, prev, node) = (self.header.epoch, self.head.hash, self.header.node.clone());
        let Some(bytes) = self.window(FRAME_HEAD + length, limit)? else { return Ok(Step::Torn) };
        let raw = bytes.get(FRAME_HEAD..).unwrap_or_default();
        if chain::link(&node, epoch, seq, &prev, raw) != hash {
            return Ok(Step::Torn);
        }
        let start = (self.offset - self.buffered) as usize + FRAME_HEAD;
        self.offset += (FRAME_HEAD + length) as u64;
        self.head = Head { epoch, seq, hash };
        let raw = self.buffer.get(start..start + length).unwrap_or_default();
        Ok(Step::Entry(Entry { node: &self.header.node, epoch, seq, prev, hash, raw }))
    }

    /// `length` bytes from the offset on; `None` if they go beyond `limit`.
    fn window(&mut self, length: usize, limit: u64) -> io::Result<Option<&[u8]>> {
        if self.offset + length as u64 > limit {
            return Ok(None);
        }
        let start = (self.offset - self.buffered) as usize;
        if start + length > self.buffer.len() {
            let room = usize::try_from(limit - self.offset).unwrap_or(usize::MAX);
            self.buffer.resize(length.max(READ_AHEAD).min(room), 0);
            let got = read_at_most(&self.file, &mut self.buffer, self.offset)?;
            self.buffer.truncate(got);
            self.buffered = self.offset;
        }
        let start = (self.offset - self.buffered) as usize;
        Ok(self.buffer.get(start..start + length))
    }
}

fn frame_head(bytes: &[u8]) -> Option<(usize, u64, Digest)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (seq, rest) = rest.split_first_chunk::<8>()?;
    let (hash, _) = rest.split_first_chunk::<32>()?;
    Some((u32::from_be_bytes(*length) as usize, u64::from_be_bytes(*seq), *hash))
}

pub(super) fn read_at_most(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(filled)
}

const MAGIC: &[u8; 8] = b"weirjrn1";
const HEADER_FIXED: usize = 8 + 8 + 8 + 32 + 4;
const EXTENSION: &str = "journal";
/// One read of the reader: large enough that a system call costs nothing beside the hashing.
const READ_AHEAD: usize = 256 * 1024;

#[cfg(test)]
mod tests;
