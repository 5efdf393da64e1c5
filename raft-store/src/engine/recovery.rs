//! Opening a log that was cut off by a power failure, without ever dropping a synced entry in silence.
//!
//! A power cut leaves the last batch of the write-ahead log torn, zeroed or garbled. RocksDB's tolerant mode drops a
//! torn record only; its point-in-time mode drops everything after the first bad byte, wherever that is. The rule:
//! open tolerant; where that refuses, find the first bad record, and go on only if nothing but that last batch is
//! lost - otherwise say what is damaged, and leave the folder as it is.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{Recovery, Rocks, Tuning};

const BLOCK: usize = 32 * 1024;
const HEADER: usize = 7;
const RECYCLABLE_HEADER: usize = 11;

/// Damage inside a log that no power cut explains.
#[derive(Debug, thiserror::Error)]
#[error(
    "the raft log {} is damaged at byte {offset} and has {after} readable records after that: acknowledged writes would be lost by opening it. \
     Put the file back from a copy, or remove this member and let it fill again from its peers", file.display()
)]
pub struct Damage {
    pub file: PathBuf,
    pub offset: u64,
    pub after: usize,
}

/// Opens the log instance by the rule of this module.
pub fn open_log(folder: &Path, tuning: &Tuning) -> io::Result<Rocks> {
    // Tolerant mode would also take a zeroed or garbled middle of an older file for its end: look before opening.
    if let Some(damage) = first_damage(folder)? {
        return Err(io::Error::new(io::ErrorKind::InvalidData, damage));
    }
    match Rocks::open(folder, tuning, Recovery::Tolerant) {
        Ok(rocks) => Ok(rocks),
        Err(refused) => {
            tracing::warn!(folder = %folder.display(), %refused, "the last batch of the raft log is damaged as by a power cut, and dropped");
            Rocks::open(folder, tuning, Recovery::PointInTime)
                .map_err(|error| io::Error::other(format!("open the raft log {}: {error}", folder.display())))
        }
    }
}

/// Damage that is not confined to the end of the newest file.
fn first_damage(folder: &Path) -> io::Result<Option<Damage>> {
    let files = write_ahead_files(folder)?;
    for (position, file) in files.iter().enumerate() {
        let bytes = fs::read(file)?;
        let Some(offset) = first_bad_record(&bytes) else { continue };
        let after = records_after(&bytes, offset);
        let later: usize = files[position + 1..]
            .iter()
            .map(|file| fs::read(file).map(|bytes| records_after(&bytes, 0)))
            .sum::<io::Result<usize>>()?;
        if after + later > 0 {
            return Ok(Some(Damage { file: file.clone(), offset: offset as u64, after: after + later }));
        }
    }
    Ok(None)
}

fn write_ahead_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// One physical record of RocksDB's log format: crc32c, length, type, payload.
struct Record {
    len: usize,
    /// Begins a batch.
    first: bool,
    /// Ends a batch.
    last: bool,
}

fn record(bytes: &[u8], offset: usize) -> Option<Record> {
    let header = bytes.get(offset..offset + HEADER)?;
    let payload_len = u16::from_le_bytes([header[4], header[5]]) as usize;
    let kind = header[6];
    let header_len = match kind {
        1..=4 => HEADER,
        5..=8 => RECYCLABLE_HEADER,
        _ => return None,
    };
    let end = offset + header_len + payload_len;
    if end > bytes.len() || end > (offset / BLOCK + 1) * BLOCK {
        return None;
    }
    let stored = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    if unmask(stored) != crc32c(&bytes[offset + 6..end]) {
        return None;
    }
    Some(Record {
        len: header_len + payload_len,
        first: matches!(kind, 1 | 2 | 5 | 6),
        last: matches!(kind, 1 | 4 | 5 | 8),
    })
}

/// Skips the unused end of a block.
fn aligned(offset: usize) -> usize {
    let left = BLOCK - offset % BLOCK;
    if left < HEADER { offset + left } else { offset }
}

/// Where the batch begins that holds the first bad record; `None` where all is well.
fn first_bad_record(bytes: &[u8]) -> Option<usize> {
    let mut offset = 0;
    let mut batch_start = 0;
    loop {
        offset = aligned(offset);
        if offset >= bytes.len() {
            return None;
        }
        match record(bytes, offset) {
            Some(record) => {
                if record.first {
                    batch_start = offset;
                }
                offset += record.len;
                if record.last {
                    batch_start = offset;
                }
            }
            None => return Some(batch_start),
        }
    }
}

/// Whole batches that can be read somewhere after `offset`, past the batch that stands there.
///
/// A garbled length hides where the next record begins, so every byte is tried; a chance match needs a 32-bit checksum.
fn records_after(bytes: &[u8], offset: usize) -> usize {
    let mut found = 0;
    let mut at = offset;
    while at + HEADER <= bytes.len() {
        match record(bytes, at) {
            // The rest of the damaged batch itself does not count: it was one write, and is lost as one.
            Some(record) if record.first => {
                found += 1;
                at = aligned(at + record.len);
            }
            Some(record) => at = aligned(at + record.len),
            None => at += 1,
        }
    }
    found
}

fn unmask(masked: u32) -> u32 {
    masked.wrapping_sub(0xa282_ead8).rotate_left(15)
}

/// CRC-32C (Castagnoli), table driven; RocksDB's checksum.
fn crc32c(bytes: &[u8]) -> u32 {
    static TABLE: std::sync::OnceLock<[u32; 256]> = std::sync::OnceLock::new();
    let table = TABLE.get_or_init(|| {
        std::array::from_fn(|index| {
            (0..8).fold(index as u32, |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 })
        })
    });
    !bytes.iter().fold(!0u32, |crc, byte| (crc >> 8) ^ table[((crc ^ u32::from(*byte)) & 0xff) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_matches_the_published_check_value() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}
