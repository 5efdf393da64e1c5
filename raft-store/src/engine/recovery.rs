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
    "the raft log {} is damaged at byte {offset} and has {after} readable batches after that: acknowledged writes would be lost by opening it. \
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
        let after = batches_after(&bytes, offset);
        let later: usize = files[position + 1..]
            .iter()
            .map(|file| fs::read(file).map(|bytes| batches_after(&bytes, 0)))
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
    Some(Record { len: header_len + payload_len, first: matches!(kind, 1 | 2 | 5 | 6) })
}

/// Skips the unused end of a block.
fn aligned(offset: usize) -> usize {
    let left = BLOCK - offset % BLOCK;
    if left < HEADER { offset + left } else { offset }
}

/// Where the first bad record stands; `None` where all is well.
fn first_bad_record(bytes: &[u8]) -> Option<usize> {
    let mut offset = 0;
    loop {
        offset = aligned(offset);
        if offset >= bytes.len() {
            return None;
        }
        match record(bytes, offset) {
            Some(record) => offset += record.len,
            None => return Some(offset),
        }
    }
}

/// Batches that begin somewhere after the bad record at `offset`.
///
/// A garbled length hides where the next record begins, so every byte is tried; a chance match needs a 32-bit checksum.
fn batches_after(bytes: &[u8], offset: usize) -> usize {
    let mut found = 0;
    let mut at = offset;
    while at + HEADER <= bytes.len() {
        match record(bytes, at) {
            // What is left of the damaged batch does not count: it was one write, and is lost as one.
            Some(record) => {
                found += usize::from(record.first);
                at = aligned(at + record.len);
            }
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
    use crate::engine::{Batch, Durability, Engine, View};

    /// A log of synced batches, one row each, and where each ends in its file.
    struct Written {
        folder: tempfile::TempDir,
        file: PathBuf,
        bytes: Vec<u8>,
        ends: Vec<usize>,
    }

    fn written(sizes: impl Iterator<Item = usize>) -> Written {
        let folder = tempfile::tempdir().unwrap();
        let rocks = open_log(folder.path(), &Tuning::log()).unwrap();
        let mut ends = Vec::new();
        for (number, size) in sizes.enumerate() {
            let mut batch = Batch::default();
            batch.put(vec![number as u8], vec![number as u8; size]);
            rocks.write(batch, Durability::Synced).unwrap();
            let file = write_ahead_files(folder.path()).unwrap().pop().unwrap();
            ends.push(fs::metadata(file).unwrap().len() as usize);
        }
        let file = write_ahead_files(folder.path()).unwrap().pop().unwrap();
        let bytes = fs::read(&file).unwrap();
        let copy = tempfile::tempdir().unwrap();
        copy_files(folder.path(), copy.path());
        rocks.close();
        let file = copy.path().join(file.file_name().unwrap());
        Written { folder: copy, file, bytes, ends }
    }

    fn copy_files(from: &Path, to: &Path) {
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }

    /// Small ones around one that spans blocks.
    fn sizes() -> impl Iterator<Item = usize> {
        (0..10).map(|number| if number == 4 { 50_000 } else { 300 + number * 97 })
    }

    impl Written {
        /// How many rows a log with these bytes has, in a folder of its own.
        fn rows_with(&self, bytes: &[u8]) -> io::Result<usize> {
            let copy = tempfile::tempdir().unwrap();
            copy_files(self.folder.path(), copy.path());
            let file = copy.path().join(self.file.file_name().unwrap());
            fs::write(&file, bytes).unwrap();
            let opened = open_log(copy.path(), &Tuning::log());
            let rocks = match opened {
                Ok(rocks) => rocks,
                Err(refused) => {
                    assert_eq!(fs::read(&file).unwrap(), bytes, "a refused log was changed");
                    return Err(refused);
                }
            };
            let mut rows = 0;
            rocks
                .scan(&[0], &[0xff], &mut |key, _| {
                    assert_eq!(key, [rows as u8], "a row in the middle is missing");
                    rows += 1;
                    Ok(std::ops::ControlFlow::Continue(()))
                })
                .unwrap();
            rocks.close();
            Ok(rows)
        }
    }

    #[test]
    fn crc32c_matches_the_published_check_value() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn no_flip_before_the_last_batch_costs_a_row_in_silence() {
        let log = written(sizes());
        let last = log.ends[log.ends.len() - 2];
        // All of the headers' bytes and those around, and some of every payload.
        let headers = log.ends.iter().flat_map(|end| end.saturating_sub(4)..end + 12);
        let block = BLOCK - 8..BLOCK + 12;
        let places: std::collections::BTreeSet<usize> =
            headers.chain(block).chain((0..last).step_by(997)).filter(|place| *place < last).collect();
        assert!(places.len() > 200);
        for place in places {
            let mut bytes = log.bytes.clone();
            bytes[place] ^= 1 << (place % 8);
            fs::write(&log.file, &bytes).unwrap();
            // What the rule lets pass has to open whole: a byte between records, say.
            if first_damage(log.folder.path()).unwrap().is_none() {
                assert_eq!(log.rows_with(&bytes).unwrap(), log.ends.len(), "a flip at byte {place}");
            }
        }
        // And what it does not let pass is refused by name.
        let mut bytes = log.bytes.clone();
        bytes[last / 2] ^= 1;
        let refused = log.rows_with(&bytes).unwrap_err().to_string();
        assert!(refused.contains("acknowledged writes would be lost by opening it"), "{refused}");
    }

    /// A member once refused to start where the last batch spanned two blocks and was cut off in the second: the part in
    /// the first was taken for a batch that would be lost.
    #[test]
    fn whatever_a_power_cut_makes_of_the_last_batch_the_others_are_there() {
        for last in [2_500, 100_000] {
            let log = written((0..6).map(|number| if number == 5 { last } else { 500 }));
            let (start, count) = (log.ends[4], log.ends.len());
            let written = log.bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
            for from in (start..written).step_by((written - start) / 10).chain([start + 1, start + 6, start + 7]) {
                let filled = |byte: u8| {
                    let mut bytes = log.bytes.clone();
                    bytes[from..written].fill(byte);
                    bytes
                };
                let torn = log.bytes[..from].to_vec();
                let mut flipped = log.bytes.clone();
                flipped[from] ^= 0x10;
                let cuts = [("torn", torn), ("zeroed", filled(0)), ("garbled", filled(0xa5)), ("flipped", flipped)];
                for (how, bytes) in cuts {
                    let rows = log.rows_with(&bytes).unwrap_or_else(|error| panic!("{how} at byte {from}: {error}"));
                    assert_eq!(rows, count - 1, "{how} at byte {from}");
                }
            }
            assert_eq!(log.rows_with(&log.bytes).unwrap(), count);
        }
    }
}
