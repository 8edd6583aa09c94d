//! `-explain`: the syncs that send a path, and the rule that includes or excludes it.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::PoisonError;

use crate::filter::{OptionRules, Sign};
use crate::log::escape;
use crate::paths;
use crate::script::{Script, SyncHandle};

/// Returns the explanation of a path: one line for each sync of its source, or for each sync if the
/// path is in no source.
pub fn explained(script: &Script, path: &OsString) -> String {
    let absolute = real(Path::new(path));
    let mut text = format!("{}\n", escape(&absolute));
    for handle in concerned(script.syncs(), &absolute) {
        let name = handle.sync.borrow().config.name.clone();
        text.push_str(&format!(
            "{name}: {}\n",
            verdict(script, &handle, &absolute)
        ));
    }
    text
}

/// Returns the syncs whose source contains an absolute path; all if there is none.
pub fn concerned(syncs: Vec<Rc<SyncHandle>>, path: &[u8]) -> Vec<Rc<SyncHandle>> {
    let has_it = |handle: &&Rc<SyncHandle>| path.starts_with(&handle.sync.borrow().config.source);
    let found: Vec<_> = syncs.iter().filter(has_it).cloned().collect();
    if found.is_empty() { syncs } else { found }
}

/// Returns the path as the watcher reports it: absolute, with the parent directories resolved, and
/// with a trailing slash if it is a directory.
fn real(path: &Path) -> Vec<u8> {
    let given = path.as_os_str().as_bytes();
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let parent = absolute
        .parent()
        .and_then(|parent| fs::canonicalize(parent).ok());
    let whole = match (parent, absolute.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => absolute,
    };
    let directory = match fs::symlink_metadata(&whole) {
        Ok(metadata) => metadata.is_dir(),
        Err(_) => given.ends_with(b"/"),
    };
    let mut bytes = whole.as_os_str().as_bytes().to_vec();
    while bytes.len() > 1 && bytes.ends_with(b"/") {
        bytes.pop();
    }
    if directory && bytes != b"/" {
        bytes.push(b'/');
    }
    bytes
}

/// Returns what a sync does with a path as the watcher reports it, and the rule that decides.
pub fn verdict(script: &Script, handle: &Rc<SyncHandle>, absolute: &[u8]) -> String {
    let target = handle.destination();
    let sync = handle.sync.borrow();
    let source = escape(&sync.config.source).into_owned();
    let Some(path) = sync.relative(absolute) else {
        return if absolute.starts_with(&sync.config.source) {
            "not in this sync: below the top directory, and subdirs = false".into()
        } else {
            format!("not in this sync: outside of {source}")
        };
    };
    if script.is_idle(handle) {
        return "not mirrored: the sync does nothing, it has no action, no on… and no default.…"
            .into();
    }
    let kind = script.kind(handle);
    let only = match script.handled_events(handle) {
        Some(keys)
            if !["onCreate", "onModify"]
                .iter()
                .any(|key| keys.contains(key)) =>
        {
            format!("; only {} is handled", keys.join(", "))
        }
        _ => String::new(),
    };
    let options = option_rules(script, handle);
    let own = sync.filter.read().unwrap_or_else(PoisonError::into_inner);
    let all = options.behind(&own);
    let unknown = options.unknown.iter().map(|option| escape(option));
    let unknown = unknown.collect::<Vec<_>>().join(", ");
    // Options that exclude files by something else than the name are not evaluated here.
    let (sent, unless) = if unknown.is_empty() {
        ("mirrored", String::new())
    } else {
        let unless = format!(", unless {unknown} in the options of rsync excludes it");
        ("sent", unless)
    };
    let Some(decision) = all.deciding(path) else {
        return format!(
            "{sent}{}{unless}; no rule matches it{only}",
            goes_to(target, path)
        );
    };
    let is_own = own.deciding(path).is_some_and(|own| {
        (own.level, own.sign) == (decision.level, decision.sign)
            && own.pattern.text() == decision.pattern.text()
    });
    let (sign, what) = match decision.sign {
        Sign::Include => ("+", sent),
        // default.direct calls rsync for full comparisons only.
        Sign::Exclude if !is_own && kind == Some("direct") => ("-", "excluded at startup"),
        Sign::Exclude => ("-", "left out"),
    };
    let whose = if is_own {
        ""
    } else {
        " in the options of rsync"
    };
    let at = if decision.level == paths::bare(path) {
        String::new()
    } else {
        format!(", which matches {} above it", escape(decision.level))
    };
    let to = match decision.sign {
        Sign::Include => goes_to(target, path) + &unless,
        Sign::Exclude => String::new(),
    };
    let pattern = escape(decision.pattern.text());
    let only = match decision.sign {
        Sign::Include => only.as_str(),
        Sign::Exclude => "",
    };
    format!("{what}{to}; the rule is \"{sign} {pattern}\"{whose}{at}{only}")
}

/// Returns true if full comparisons leave out a path relative to the source, as the watcher reports
/// it: a rule of the sync or of its rsync options excludes it.
pub fn is_left_out(script: &Script, handle: &Rc<SyncHandle>, path: &[u8]) -> bool {
    let sync = handle.sync.borrow();
    let own = sync.filter.read().unwrap_or_else(PoisonError::into_inner);
    let all = option_rules(script, handle).behind(&own);
    let decision = all.deciding(path);
    decision.is_some_and(|decision| decision.sign == Sign::Exclude)
}

/// Returns the rules in the rsync options of a sync.
fn option_rules(script: &Script, handle: &Rc<SyncHandle>) -> OptionRules {
    let options = match script.kind(handle) {
        Some("rsync" | "rsyncssh" | "direct") => script.rsync_options(handle),
        _ => Vec::new(),
    };
    OptionRules::of(&options)
}

fn goes_to(target: Option<Vec<u8>>, path: &[u8]) -> String {
    match target {
        None => String::new(),
        Some(target) => {
            format!(" to {}", escape(&paths::join(&target, path)))
        }
    }
}
