//! A snapshot on its way to another member: files one after the other, each with its size and checksum.
//!
//! What arrives is kept apart from the state until all of it is there and right; [`Home::install`] then replaces the
//! state at once. A transfer that breaks off leaves nothing behind.
//!
//! [`Home::install`]: super::Home::install

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read, Write},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use crc32fast::Hasher;
use proto::forestay::raft::v1::SnapshotFile;

use super::{Checkpoint, Folder};

/// The one file of a copy that was never on disk.
const ROWS: &str = "ROWS";

/// Names, sizes and checksums of what a copy consists of, in the order in which it is sent.
///
/// # Errors
/// A file cannot be read.
pub fn manifest(checkpoint: &Checkpoint) -> io::Result<Vec<SnapshotFile>> {
    let folder = match checkpoint {
        Checkpoint::Rows(rows) => {
            let bytes = encode(rows);
            let crc32 = crc32fast::hash(&bytes);
            return Ok(vec![SnapshotFile { name: ROWS.to_owned(), size: bytes.len() as u64, crc32 }]);
        }
        Checkpoint::Files(folder) => folder,
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder.path)? {
        let entry = entry?;
        let mut hasher = Hasher::new();
        let size = io::copy(&mut fs::File::open(entry.path())?, &mut HashOnly(&mut hasher))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        files.push(SnapshotFile { name, size, crc32: hasher.finalize() });
    }
    files.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(files)
}

/// Hands out the bytes of a copy, piece by piece, until `send` wants no more.
///
/// # Errors
/// A file cannot be read.
pub fn unpack(
    checkpoint: &Checkpoint,
    files: &[SnapshotFile],
    piece_bytes: usize,
    send: &mut dyn FnMut(Bytes) -> bool,
) -> io::Result<()> {
    match checkpoint {
        Checkpoint::Rows(rows) => {
            let mut bytes = encode(rows);
            while !bytes.is_empty() {
                if !send(bytes.split_to(piece_bytes.min(bytes.len()))) {
                    return Ok(());
                }
            }
        }
        Checkpoint::Files(folder) => {
            for file in files {
                let mut open = fs::File::open(folder.path.join(&file.name))?.take(file.size);
                loop {
                    let mut piece = Vec::with_capacity(piece_bytes);
                    (&mut open).take(piece_bytes as u64).read_to_end(&mut piece)?;
                    if piece.is_empty() {
                        break;
                    }
                    if !send(piece.into()) {
                        return Ok(());
                    }
                }
            }
        }
    }
    Ok(())
}

/// Where what arrives is put together.
#[derive(Debug)]
pub enum Inbox {
    /// A folder that does not exist yet.
    Folder(PathBuf),
    Memory,
}

/// A snapshot that is arriving.
#[derive(Debug)]
pub struct Arriving {
    files: std::vec::IntoIter<SnapshotFile>,
    /// The file that is being filled, with what is missing of it.
    open: Option<(SnapshotFile, u64, Hasher)>,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Folder { folder: Folder, file: Option<fs::File> },
    Memory(BytesMut),
}

impl Arriving {
    /// # Errors
    /// A name is not that of a plain file; the folder cannot be made.
    pub fn begin(inbox: Inbox, files: Vec<SnapshotFile>) -> io::Result<Arriving> {
        if let Some(odd) = files.iter().find(|file| !is_plain(&file.name)) {
            return Err(invalid(format!("the snapshot has a file named {:?}, which is not a plain name", odd.name)));
        }
        let place = match inbox {
            Inbox::Folder(path) => {
                fs::create_dir(&path)?;
                Place::Folder { folder: Folder { path }, file: None }
            }
            Inbox::Memory => Place::Memory(BytesMut::new()),
        };
        let mut arriving = Arriving { files: files.into_iter(), open: None, place };
        arriving.next_file()?;
        Ok(arriving)
    }

    /// Takes the next bytes; they may end one file and begin others.
    ///
    /// # Errors
    /// More came than was announced, a checksum differs, or the disk fails.
    pub fn write(&mut self, mut bytes: Bytes) -> io::Result<()> {
        while !bytes.is_empty() {
            let Some((_, missing, hasher)) = &mut self.open else {
                return Err(invalid(format!("the snapshot goes on for {} bytes after its last file", bytes.len())));
            };
            let part = bytes.split_to(bytes.len().min(usize::try_from(*missing).unwrap_or(usize::MAX)));
            *missing -= part.len() as u64;
            hasher.update(&part);
            match &mut self.place {
                Place::Folder { file: Some(file), .. } => file.write_all(&part)?,
                Place::Folder { file: None, .. } => return Err(invalid("no file of the snapshot is open".to_owned())),
                Place::Memory(rows) => rows.extend_from_slice(&part),
            }
            if *missing == 0 {
                self.next_file()?;
            }
        }
        Ok(())
    }

    /// The whole snapshot, once all of it is there.
    ///
    /// # Errors
    /// Something is missing.
    pub fn finish(self) -> io::Result<Checkpoint> {
        if let Some((file, missing, _)) = self.open {
            return Err(invalid(format!("the snapshot ended {missing} bytes before the end of {}", file.name)));
        }
        Ok(match self.place {
            Place::Folder { folder, .. } => {
                if folder.path.join(ROWS).exists() {
                    let rows = fs::read(folder.path.join(ROWS))?;
                    return Ok(Checkpoint::Rows(Arc::new(decode(rows.into())?)));
                }
                Checkpoint::Files(Arc::new(folder))
            }
            Place::Memory(rows) => Checkpoint::Rows(Arc::new(decode(rows.freeze())?)),
        })
    }

    /// Ends the open file and opens the next one that has something in it.
    fn next_file(&mut self) -> io::Result<()> {
        loop {
            if let Some((file, _, hasher)) = self.open.take() {
                let found = hasher.finalize();
                if found != file.crc32 {
                    return Err(invalid(format!(
                        "{} of the snapshot arrived damaged: its checksum is {found:08x}, announced was {:08x}",
                        file.name, file.crc32
                    )));
                }
            }
            let Some(next) = self.files.next() else { return Ok(()) };
            if let Place::Folder { folder, file } = &mut self.place {
                *file = Some(fs::OpenOptions::new().write(true).create_new(true).open(folder.path.join(&next.name))?);
            }
            let size = next.size;
            self.open = Some((next, size, Hasher::new()));
            if size > 0 {
                return Ok(());
            }
        }
    }
}

struct HashOnly<'a>(&'a mut Hasher);

impl Write for HashOnly<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Nothing that leads out of the folder, or deeper into it.
fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!(parts.next(), Some(Component::Normal(_))) && parts.next().is_none() && !name.contains('/')
}

fn encode(rows: &BTreeMap<Bytes, Bytes>) -> Bytes {
    let size = rows.iter().map(|(key, value)| 8 + key.len() + value.len()).sum();
    let mut bytes = BytesMut::with_capacity(size);
    for part in rows.iter().flat_map(|(key, value)| [key, value]) {
        bytes.put_u32(part.len() as u32);
        bytes.put_slice(part);
    }
    bytes.freeze()
}

fn decode(mut bytes: Bytes) -> io::Result<BTreeMap<Bytes, Bytes>> {
    let mut part = || -> io::Result<Option<Bytes>> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let len = bytes.try_get_u32().map_err(|_| invalid("the rows of a snapshot end in a length".to_owned()))?;
        if bytes.len() < len as usize {
            return Err(invalid("the rows of a snapshot end in a row".to_owned()));
        }
        Ok(Some(bytes.split_to(len as usize)))
    };
    let mut rows = BTreeMap::new();
    while let Some(key) = part()? {
        let value = part()?.ok_or_else(|| invalid("the last row of a snapshot has no value".to_owned()))?;
        rows.insert(key, value);
    }
    Ok(rows)
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path) -> Checkpoint {
        let path = folder.join("source");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("1.sst"), vec![7; 5_000]).unwrap();
        fs::write(path.join("CURRENT"), b"MANIFEST-1").unwrap();
        fs::write(path.join("EMPTY"), b"").unwrap();
        Checkpoint::Files(Arc::new(Folder { path }))
    }

    fn sent(checkpoint: &Checkpoint) -> (Vec<SnapshotFile>, Vec<Bytes>) {
        let announced = manifest(checkpoint).unwrap();
        let mut pieces = Vec::new();
        unpack(checkpoint, &announced, 999, &mut |piece| {
            pieces.push(piece);
            true
        })
        .unwrap();
        (announced, pieces)
    }

    #[test]
    fn files_arrive_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let (announced, pieces) = sent(&files(folder.path()));
        let mut arriving = Arriving::begin(Inbox::Folder(folder.path().join("in")), announced.clone()).unwrap();
        for piece in pieces {
            arriving.write(piece).unwrap();
        }
        assert_eq!(manifest(&arriving.finish().unwrap()).unwrap(), announced);
    }

    #[test]
    fn rows_arrive_as_they_were() {
        let rows: BTreeMap<Bytes, Bytes> = [("a".into(), "1".into()), ("b".into(), Bytes::new())].into();
        let (announced, pieces) = sent(&Checkpoint::Rows(Arc::new(rows.clone())));
        let mut arriving = Arriving::begin(Inbox::Memory, announced).unwrap();
        for piece in pieces {
            arriving.write(piece).unwrap();
        }
        let Checkpoint::Rows(arrived) = arriving.finish().unwrap() else { panic!("rows were sent") };
        assert_eq!(*arrived, rows);
    }

    #[test]
    fn a_damaged_or_short_snapshot_is_refused_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let inbox = folder.path().join("in");
        let (announced, mut pieces) = sent(&files(folder.path()));
        let mut short = Arriving::begin(Inbox::Folder(inbox.clone()), announced.clone()).unwrap();
        short.write(pieces[0].clone()).unwrap();
        assert!(short.finish().unwrap_err().to_string().contains("before the end of 1.sst"));
        assert!(!inbox.exists());
        pieces[2] = vec![8; pieces[2].len()].into();
        let mut damaged = Arriving::begin(Inbox::Folder(inbox.clone()), announced).unwrap();
        let error = pieces.into_iter().find_map(|piece| damaged.write(piece).err()).unwrap();
        assert!(error.to_string().contains("1.sst of the snapshot arrived damaged"), "{error}");
        drop(damaged);
        assert!(!inbox.exists());
    }

    #[test]
    fn a_name_that_leads_out_of_the_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["../evil", "/evil", "a/b", "..", ""] {
            let file = SnapshotFile { name: name.to_owned(), size: 1, crc32: 0 };
            assert!(Arriving::begin(Inbox::Folder(folder.path().join("in")), vec![file]).is_err(), "{name:?}");
        }
    }
}
