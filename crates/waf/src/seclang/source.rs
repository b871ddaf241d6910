//! Where rule files come from: a disk, or a map for snapshots, tests and fuzzing.

use std::collections::BTreeMap;
use std::path::Path;

/// What a load may cost at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one file.
    pub file_bytes: usize,
    /// Bytes of one pattern or list of phrases on a line.
    pub pattern_bytes: usize,
    /// How deep `Include` may nest.
    pub include_depth: usize,
    /// Rules in the set, links of chains included.
    pub rules: usize,
    /// Bytes that one compiled pattern may take.
    pub compiled_pattern_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes: 8 << 20,
            pattern_bytes: 64 << 10,
            include_depth: 16,
            rules: 20_000,
            compiled_pattern_bytes: 16 << 20,
        }
    }
}

/// Files by path. Paths are joined with `/`.
pub trait Sources {
    /// The bytes of a file of at most `limit` bytes, or why not.
    fn read(&self, path: &str, limit: usize) -> Result<Vec<u8>, String>;
    /// The files that `pattern` (whose last part may hold `*` and `?`) names, sorted.
    fn matching(&self, pattern: &str) -> Result<Vec<String>, String>;
}

/// The file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Sources for Disk {
    fn read(&self, path: &str, limit: usize) -> Result<Vec<u8>, String> {
        let size = std::fs::metadata(path)
            .map_err(|error| format!("cannot read {path}: {error}"))?
            .len();
        if size > limit as u64 {
            return Err(format!(
                "{path} has {size} bytes, at most {limit} are allowed"
            ));
        }
        std::fs::read(path).map_err(|error| format!("cannot read {path}: {error}"))
    }

    fn matching(&self, pattern: &str) -> Result<Vec<String>, String> {
        let (folder, name) = split(pattern);
        if !has_wildcard(name) {
            return Ok(vec![pattern.to_owned()]);
        }
        let place = if folder.is_empty() { "." } else { folder };
        let entries = std::fs::read_dir(Path::new(place))
            .map_err(|error| format!("cannot list {place}: {error}"))?;
        let mut found: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|entry| wildcard_matches(name.as_bytes(), entry.as_bytes()))
            .map(|entry| join(folder, &entry))
            .collect();
        found.sort();
        Ok(found)
    }
}

/// Files held in memory by name.
#[derive(Clone, Debug, Default)]
pub struct Memory(
    /// The files.
    pub BTreeMap<String, Vec<u8>>,
);

impl Sources for Memory {
    fn read(&self, path: &str, limit: usize) -> Result<Vec<u8>, String> {
        let bytes = self
            .0
            .get(path)
            .ok_or_else(|| format!("there is no file {path}"))?;
        if bytes.len() > limit {
            return Err(format!(
                "{path} has {} bytes, at most {limit} are allowed",
                bytes.len()
            ));
        }
        Ok(bytes.clone())
    }

    fn matching(&self, pattern: &str) -> Result<Vec<String>, String> {
        if !has_wildcard(split(pattern).1) {
            return Ok(vec![pattern.to_owned()]);
        }
        Ok(self
            .0
            .keys()
            .filter(|key| wildcard_matches(pattern.as_bytes(), key.as_bytes()))
            .cloned()
            .collect())
    }
}

/// `name` as the file at `from` means it.
pub(crate) fn relative(from: &str, name: &str) -> String {
    if name.starts_with('/') {
        name.to_owned()
    } else {
        join(split(from).0, name)
    }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() {
        name.to_owned()
    } else {
        format!("{folder}/{name}")
    }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

fn has_wildcard(name: &str) -> bool {
    name.contains(['*', '?'])
}

/// Whether `text` fits `pattern`, in time linear in their product.
fn wildcard_matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(&byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&expected) if expected == b'?' || expected == byte => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                p = at + 1;
                t = from + 1;
            }
        }
    }
    pattern
        .get(p..)
        .is_some_and(|rest| rest.iter().all(|&byte| byte == b'*'))
}
