//! Lines of Rust per crate, those of tests beside the others.

use std::{
    fs,
    path::{Path, PathBuf},
};

pub fn print() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut crates = Vec::new();
    find_crates(&root, &mut crates);
    crates.sort();
    let (mut code, mut tests) = (0, 0);
    println!("{:36} {:>8} {:>8}", "lines of Rust", "code", "tests");
    for folder in &crates {
        let mut lines = Lines::default();
        lines.count(folder, folder);
        println!("{:36} {:>8} {:>8}", folder.strip_prefix(&root).unwrap().display(), lines.code, lines.tests);
        (code, tests) = (code + lines.code, tests + lines.tests);
    }
    println!("{:36} {code:>8} {tests:>8}", "all");
}

/// Folders with a manifest, but for that of the workspace.
fn find_crates(folder: &Path, crates: &mut Vec<PathBuf>) {
    for path in entries(folder).filter(|path| path.is_dir()) {
        if path.join("Cargo.toml").exists() {
            crates.push(path.clone());
        }
        find_crates(&path, crates);
    }
}

/// What belongs to the repository: nothing hidden, nothing built.
fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            !name.starts_with('.') && !["target", "node_modules"].contains(&name.as_str())
        })
        .map(|entry| entry.path())
        .filter(|path| !path.is_symlink())
}

#[derive(Default)]
struct Lines {
    code: usize,
    tests: usize,
}

impl Lines {
    /// Counts what stands in `folder` of the crate `root`, without crates inside it.
    fn count(&mut self, root: &Path, folder: &Path) {
        for path in entries(folder) {
            if path.is_dir() {
                if !path.join("Cargo.toml").exists() {
                    self.count(root, &path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                self.add(path.strip_prefix(root).unwrap(), &fs::read_to_string(&path).unwrap());
            }
        }
    }

    fn add(&mut self, path: &Path, text: &str) {
        let names: Vec<_> = path.iter().map(|name| name.to_string_lossy()).collect();
        let is_test = names.iter().any(|name| ["tests", "tests.rs"].contains(&name.as_ref()));
        // A module of tests stands at the end of its file.
        let code = if is_test { 0 } else { text.lines().take_while(|line| *line != "#[cfg(test)]").count() };
        let lines = text.lines().count();
        let has_inline = text.lines().skip(code + 1).any(|line| line.starts_with("mod tests {"));
        let code = if is_test || has_inline { code } else { lines };
        self.code += code;
        self.tests += lines - code;
    }
}
