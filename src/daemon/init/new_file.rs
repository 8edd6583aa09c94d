//! The file that `-init` writes. A file that exists is not overwritten; one of comments only, as
//! packages install it, gets the configuration at its end.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};

use crate::log::{self, escape};
use crate::safe_path::{self, Location};
use crate::script::has_code;

/// The file of a configuration, before it is written.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    location: Location,
    /// A file of comments, and its contents.
    starter: Option<(File, Vec<u8>)>,
}

impl NewFile {
    /// Looks at the file.
    ///
    /// # Errors
    ///
    /// It exists, and has more than comments; or its directory cannot be used.
    pub fn prepare(path: &Path) -> Result<NewFile, String> {
        let shown = escape(path.as_os_str().as_bytes()).into_owned();
        let failed = |error: io::Error| format!("{shown}: {}", log::reason(&error));
        let location = safe_path::locate(path).map_err(failed)?;
        let mut file = NewFile {
            path: path.to_owned(),
            location,
            starter: None,
        };
        let Some(found) = file.location.found() else {
            return Ok(file);
        };
        let exists = || format!("{shown} exists, and is not overwritten; choose another file");
        if safe_path::kind(found) != FileType::RegularFile {
            return Err(exists());
        }
        let flags = OFlags::RDWR | OFlags::APPEND;
        let mut starter = file.location.open(flags, Mode::empty()).map_err(failed)?;
        let mut text = Vec::new();
        starter.read_to_end(&mut text).map_err(failed)?;
        if has_code(&String::from_utf8_lossy(&text)) {
            return Err(exists());
        }
        if !text.is_empty() {
            text.push(b'\n');
        }
        file.starter = Some((starter, text));
        Ok(file)
    }

    /// Returns the path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path for messages.
    pub fn shown(&self) -> String {
        escape(self.path.as_os_str().as_bytes()).into_owned()
    }

    /// Returns the text before the configuration: the comments, and an empty line.
    pub fn text_before(&self) -> &[u8] {
        self.starter.as_ref().map_or(b"", |(_, text)| text)
    }

    /// Writes the configuration. After a failure the file is as it was.
    ///
    /// # Errors
    ///
    /// The file exists by now, or it cannot be written.
    pub fn write(&mut self, text: &str) -> Result<(), String> {
        let written = match &mut self.starter {
            Some((file, before)) => append(file, before.len() as u64, text),
            None => create(&self.location, text),
        };
        written.map_err(|error| format!("{}: {}", self.shown(), log::reason(&error)))
    }
}

fn append(file: &mut File, before: u64, text: &str) -> io::Result<()> {
    let length = before.saturating_sub(1);
    if file.metadata()?.len() != length {
        return Err(io::Error::other("it has changed in the meantime"));
    }
    let separator = if before > 0 { "\n" } else { "" };
    let text = format!("{separator}{text}");
    file.write_all(text.as_bytes())
        .inspect_err(|_| drop(file.set_len(length)))
}

fn create(location: &Location, text: &str) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let mut file = location.open(flags, Mode::from_raw_mode(0o644))?;
    file.write_all(text.as_bytes())
        .inspect_err(|_| drop(location.unlink()))
}
