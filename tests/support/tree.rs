//! What a directory tree looks like, and how two of them differ.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Everything below a directory, by path relative to it (bytes, without a leading `/`).
pub type Tree = BTreeMap<Vec<u8>, Node>;

/// One entry of a tree. The mode of a link is 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub kind: Kind,
    pub mode: u32,
    /// Whole seconds, for files only: the time of a directory changes with its entries.
    pub mtime: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    File(Vec<u8>),
    Dir,
    Link(Vec<u8>),
    Other,
}

/// Reads a whole tree. Entries that vanish meanwhile are omitted.
pub fn read(root: &Path) -> Tree {
    let mut tree = Tree::new();
    descend(root, &mut Vec::new(), &mut tree);
    tree
}

/// Returns the tree without the attributes that only `archive` transfers.
pub fn without_attributes(mut tree: Tree) -> Tree {
    for node in tree.values_mut() {
        node.mode = 0;
        node.mtime = 0;
    }
    tree
}

/// Returns a line for each path that differs, at most 30, or an empty text.
pub fn difference(source: &Tree, target: &Tree) -> String {
    let mut lines = Vec::new();
    for (path, node) in source {
        match target.get(path) {
            None => lines.push(format!("missing   {}", show(path, node))),
            Some(other) if other != node => lines.push(format!(
                "different {}\n     here {}",
                show(path, node),
                show(path, other)
            )),
            Some(_) => {}
        }
    }
    for (path, node) in target {
        if !source.contains_key(path) {
            lines.push(format!("left over {}", show(path, node)));
        }
    }
    let more = lines.len().saturating_sub(30);
    lines.truncate(30);
    let mut text = lines.join("\n");
    if more > 0 {
        let _ = write!(text, "\nand {more} more");
    }
    text
}

/// Reads a file, without waiting for a writer if a pipe has replaced it.
fn contents(path: &Path) -> io::Result<Vec<u8>> {
    let mut contents = Vec::new();
    File::options()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path)?
        .read_to_end(&mut contents)?;
    Ok(contents)
}

fn descend(dir: &Path, prefix: &mut Vec<u8>, tree: &mut Tree) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(meta) = fs::symlink_metadata(&path) else {
            continue;
        };
        let Some(node) = node(&path, &meta) else {
            continue;
        };
        let length = prefix.len();
        if length > 0 {
            prefix.push(b'/');
        }
        prefix.extend_from_slice(entry.file_name().as_bytes());
        let is_dir = node.kind == Kind::Dir;
        tree.insert(prefix.clone(), node);
        if is_dir {
            descend(&path, prefix, tree);
        }
        prefix.truncate(length);
    }
}

fn node(path: &Path, meta: &Metadata) -> Option<Node> {
    let kind = if meta.is_file() {
        Kind::File(contents(path).ok()?)
    } else if meta.is_dir() {
        Kind::Dir
    } else if meta.is_symlink() {
        Kind::Link(fs::read_link(path).ok()?.into_os_string().into_vec())
    } else {
        Kind::Other
    };
    let mode = if meta.is_symlink() {
        0
    } else {
        meta.mode() & 0o7777
    };
    let mtime = if meta.is_file() { meta.mtime() } else { 0 };
    Some(Node { kind, mode, mtime })
}

fn show(path: &[u8], node: &Node) -> String {
    let kind = match &node.kind {
        Kind::File(content) if content.len() > 40 => format!("file of {} bytes", content.len()),
        Kind::File(content) => format!("file \"{}\"", content.escape_ascii()),
        Kind::Dir => "directory".into(),
        Kind::Link(to) => format!("link to \"{}\"", to.escape_ascii()),
        Kind::Other => "something else".into(),
    };
    format!(
        "{:<30} {kind} mode {:o} mtime {}",
        path.escape_ascii().to_string(),
        node.mode,
        node.mtime
    )
}
