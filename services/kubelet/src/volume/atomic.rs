//! Writes a set of files so that a reader sees all of the old ones or all of the new ones.
//!
//! The files lie in a dated folder; `..data` points at it and is swapped by one rename; the visible names are links
//! through `..data`. Programs that watch such volumes know this layout.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::Path,
};

const DATA: &str = "..data";
const DATA_NEXT: &str = "..data_tmp";

/// One file's content and permissions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub content: Vec<u8>,
    pub mode: u32,
}

/// Makes the folder show exactly these files; true where something changed.
///
/// # Errors
/// Where the file system refuses.
pub fn write(dir: &Path, files: &BTreeMap<String, File>, group: Option<i64>) -> io::Result<bool> {
    let now = fs::read_link(dir.join(DATA)).ok();
    if let Some(now) = &now
        && shows(&dir.join(now), files)
    {
        return Ok(false);
    }
    let group = group.and_then(|group| u32::try_from(group).ok());
    let stamp = jiff::Timestamp::now().as_nanosecond();
    let next = format!("..{stamp}");
    let place = dir.join(&next);
    fs::create_dir(&place)?;
    fs::set_permissions(&place, fs::Permissions::from_mode(0o755))?;
    for (name, file) in files {
        let path = place.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, &file.content)?;
        if group.is_some() {
            chown(&path, None, group)?;
        }
        let shared = if group.is_some() { 0o040 } else { 0 };
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode | shared))?;
    }
    swap(dir, &next)?;
    link_names(dir, files)?;
    if let Some(old) = now {
        fs::remove_dir_all(dir.join(old))?;
    }
    Ok(true)
}

fn shows(place: &Path, files: &BTreeMap<String, File>) -> bool {
    let mut present = BTreeSet::new();
    list(place, place, &mut present);
    present.iter().eq(files.keys())
        && files.iter().all(|(name, file)| fs::read(place.join(name)).is_ok_and(|content| content == file.content))
}

fn list(root: &Path, dir: &Path, into: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            list(root, &path, into);
        } else if let Ok(name) = path.strip_prefix(root) {
            into.insert(name.display().to_string());
        }
    }
}

fn swap(dir: &Path, next: &str) -> io::Result<()> {
    let link = dir.join(DATA_NEXT);
    match fs::remove_file(&link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(next, &link)?;
    fs::rename(link, dir.join(DATA))
}

/// Links the first part of every name through `..data`, and drops links to what is gone.
fn link_names(dir: &Path, files: &BTreeMap<String, File>) -> io::Result<()> {
    let tops: BTreeSet<&str> = files.keys().filter_map(|name| name.split('/').next()).collect();
    for top in &tops {
        if fs::symlink_metadata(dir.join(top)).is_err() {
            symlink(Path::new(DATA).join(top), dir.join(top))?;
        }
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.file_type()?.is_symlink() && !name.starts_with("..") && !tops.contains(name.as_ref()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(pairs: &[(&str, &str)]) -> BTreeMap<String, File> {
        let file = |text: &str| File { content: text.into(), mode: 0o644 };
        pairs.iter().map(|(name, text)| ((*name).to_owned(), file(text))).collect()
    }

    #[test]
    fn a_change_swaps_all_files_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        assert!(write(dir.path(), &files(&[("a", "1"), ("deep/b", "2")]), None).unwrap());
        assert_eq!(fs::read_to_string(dir.path().join("deep/b")).unwrap(), "2");
        assert!(!write(dir.path(), &files(&[("a", "1"), ("deep/b", "2")]), None).unwrap());
        assert!(write(dir.path(), &files(&[("a", "9")]), None).unwrap());
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "9");
        let mut names: Vec<String> =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(names.contains(&"..data".to_owned()) && names.contains(&"a".to_owned()));
    }
}
