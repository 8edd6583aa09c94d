//! What was decided of the copies is done: those that passed take their places in the staged
//! tree, the others do not.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self, AtFlags, Mode};
use rustix::io::Errno;

use super::files::identity;
use super::look::Candidate;
use super::private;
use super::readers::Usage;
use super::stage::Stage;
use super::verdicts::Verdict;
use crate::local::copy::attributes_may_forbid;
use crate::local::place::{self, look};

/// What becomes of a candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// It passed: it takes its place in the tree.
    Install,
    /// It was rejected; the tree keeps what it has.
    Hold(String),
    /// It was rejected; the tree loses what it has.
    Remove(String),
    /// It was rejected and goes to this directory; source and tree lose it.
    Quarantine(String, Vec<u8>),
    /// Nothing is known of it.
    Wait,
}

/// What came of that.
#[derive(Debug, Default)]
pub struct Settled {
    /// What could not be done, and why.
    pub failures: Vec<(Vec<u8>, String)>,
    /// Where rejected files have gone, by their paths.
    pub quarantined: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Stage {
    /// Does with each candidate what was decided.
    pub fn settle(&mut self, decided: Vec<(Candidate, Disposition)>) -> Settled {
        let mut settled = Settled::default();
        for (candidate, disposition) in decided {
            let done = self.dispose(&candidate, disposition, &mut settled);
            if let Err(error) = done {
                settled.failures.push((candidate.path, error.to_string()));
            }
        }
        self.finish_directories();
        self.room = None;
        // What is left there is emptied before the next look.
        let _ = private::empty(&self.incoming);
        settled
    }

    fn dispose(
        &mut self,
        candidate: &Candidate,
        disposition: Disposition,
        settled: &mut Settled,
    ) -> io::Result<()> {
        let path = &candidate.path;
        let verdict = match disposition {
            Disposition::Wait => return Ok(()),
            Disposition::Install => {
                self.install(candidate)?;
                Verdict::Passed(path.clone())
            }
            Disposition::Hold(reason) => Verdict::Rejected(path.clone(), reason),
            Disposition::Remove(reason) => {
                self.remove(path)?;
                Verdict::Rejected(path.clone(), reason)
            }
            Disposition::Quarantine(_, directory) => {
                let place = self.quarantine(candidate, &directory)?;
                settled.quarantined.push((path.clone(), place));
                return self.remove(path);
            }
        };
        self.verdicts.remember(candidate.known_as(), verdict);
        Ok(())
    }

    /// The copy takes its place in the tree.
    pub(super) fn install(&mut self, candidate: &Candidate) -> io::Result<()> {
        let (from, name) = self.aside(&candidate.copy)?;
        let now = look(&from, name)?;
        if now.is_none_or(|stat| identity(&stat) != candidate.made) {
            return Err(io::Error::other(
                "the copy was changed while it was checked",
            ));
        }
        self.put_in_place(&candidate.path, &candidate.copy)
    }

    /// What was made aside takes its place in the tree, in one step where a transfer that runs
    /// may see the old as well as the new.
    ///
    /// # Errors
    /// A transfer that runs may know something there that it would open or enter.
    pub(super) fn put_in_place(&mut self, path: &[u8], copy: &[u8]) -> io::Result<()> {
        let (from, old) = self.aside(copy)?;
        let made = look(&from, old)?.ok_or(Errno::NOENT)?;
        let usage = Usage::of(&made);
        if let Some(there) = self.tree.look(path)?
            && Usage::of(&there) > usage
        {
            self.remove(path)?;
        }
        if !self.removed.may_become(path, usage) {
            return Err(io::Error::other(
                "a running transfer may know something else of that name",
            ));
        }
        let (directory, name) = self.above(path)?;
        attributes_may_forbid(&directory, || {
            fs::renameat(from.as_fd(), old, directory.as_fd(), name)
        })
    }

    /// Takes a rejected file out of the source. What goes to the directory is what was checked.
    fn quarantine(&self, candidate: &Candidate, directory: &[u8]) -> io::Result<Vec<u8>> {
        // The longest name leaves no room for a number.
        let name = place::split(&candidate.path).1;
        let name = &name[..name.len().min(240)];
        let mut place = [directory, b"/", name].concat();
        for number in 1.. {
            match File::create_new(OsStr::from_bytes(&place)) {
                Ok(file) => {
                    // Nobody shall run it from there.
                    fs::fchmod(&file, Mode::RUSR | Mode::WUSR)?;
                    let mut copy = File::open(OsStr::from_bytes(&candidate.copy))?;
                    io::copy(&mut copy, &mut &file)?;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let suffix = format!(".{number}");
                    place = [directory, b"/", name, suffix.as_bytes()].concat();
                }
                Err(error) => return Err(error),
            }
        }
        match self.take_out(candidate) {
            Ok(()) => Ok(place),
            Err(error) => {
                // It is tried again, with another copy then.
                let _ = std::fs::remove_file(OsStr::from_bytes(&place));
                Err(error)
            }
        }
    }

    fn take_out(&self, candidate: &Candidate) -> io::Result<()> {
        let (above, name) = self.source.parent(&candidate.path)?;
        let now = look(&above, name)?;
        // Another file of that name has not been looked at.
        if now.is_some_and(|stat| identity(&stat) == candidate.identity) {
            fs::unlinkat(above.as_fd(), name, AtFlags::empty())?;
        }
        Ok(())
    }
}
