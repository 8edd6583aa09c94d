//! `init = "changed"`: the syncs that have it, and the settings of their starts.

use std::rc::Rc;
use std::time::Duration;

use mlua::{Function, Lua, Result, Table, Value};

use super::sync_checks;
use crate::batch;
use crate::batch::probe::Binary;
use crate::batch::rsync_options::{self, ListSupport};
use crate::config::keys::Kinds;
use crate::config::{SyncConfig, WarmStartConfig, config_error_about, number_of, text_of, truthy};
use crate::script::context::ScriptContext;
use crate::script::kinds;

/// The field of a prepared configuration that marks `init = "changed"`.
const FIELD: &str = "_changed";
/// The value of `init`.
const CHANGED: &[u8] = b"changed";
/// The default of `verifyEvery` in seconds: a week.
const VERIFY_SECONDS: f64 = 7.0 * 24.0 * 60.0 * 60.0;

/// Replaces `init = "changed"`, of the sync or of the settings, by the startup of the sync's kind,
/// and marks the configuration.
///
/// # Errors
///
/// The sync has it, but its startup is not a built-in comparison.
pub fn resolve(lua: &Lua, context: &Rc<ScriptContext>, config: &Table) -> Result<()> {
    let is_changed = |value: &Value| text_of(value).as_deref() == Some(CHANGED);
    let own: Value = config.get("init")?;
    let asks = is_changed(&own);
    if !asks && !is_changed(&context.settings.value("init")?) {
        return Ok(());
    }
    let built_in = comparison(lua, config)?;
    let has_check = truthy(&config.get("check")?);
    match built_in {
        Some(_) if asks && has_check => Err(config_error_about(
            "init",
            "init = \"changed\" cannot be combined with check",
        )),
        Some(init) if asks || (!has_check && own == Value::Function(init.clone())) => {
            config.set("init", init)?;
            config.set(FIELD, true)
        }
        None if asks => Err(config_error_about(
            "init",
            "init = \"changed\" is for default.rsync, default.rsyncssh and default.direct; not \
             for syncs with their own functions",
        )),
        _ => Ok(()),
    }
}

/// Returns the startup function of the built-in kind whose action the sync has; `None` if that
/// compares nothing that an index could shorten.
fn comparison(lua: &Lua, config: &Table) -> Result<Option<Function>> {
    let default: Table = lua.globals().raw_get("default")?;
    let action: Value = config.get("action")?;
    for (kind, startup) in [
        ("rsync", "rsync"),
        ("rsyncssh", "rsync"),
        ("direct", "direct"),
    ] {
        let theirs: Table = default.raw_get(kind)?;
        if theirs.raw_get::<Value>("action")? == action {
            let of: Table = default.raw_get(startup)?;
            return Ok(of.raw_get::<Value>("init")?.as_function().cloned());
        }
    }
    Ok(None)
}

/// Returns what the starts of a sync need to know, if it is marked.
///
/// # Errors
///
/// Errors of Lua only.
pub fn config(
    lua: &Lua,
    context: &Rc<ScriptContext>,
    config: &Table,
    typed: &SyncConfig,
) -> Result<Option<WarmStartConfig>> {
    if !truthy(&config.get(FIELD)?) || !sync_checks::is_built_in(lua, config, "init")? {
        return Ok(None);
    }
    let default: Table = lua.globals().raw_get("default")?;
    let direct: Table = default.raw_get("direct")?;
    let is_direct = direct.raw_get::<Value>("init")? == config.get::<Value>("init")?;
    let rsync: Table = config.get("rsync")?;
    let runs_rsync = !is_direct || truthy(&config.get("_wants_rsync")?);
    let words = kinds::whole_words(config)?;
    let target = kinds::rsync_target(lua, config)?;
    let binary = text_of(&rsync.get("binary")?).unwrap_or_default();
    let is_plain = Binary::plain(&binary).is_some()
        && text_of(&rsync.get("list")?).as_deref() != Some(b"filter")
        && rsync_options::list_support(&words) == ListSupport::Any
        && !rsync_options::follows_links(&words);
    let mut conditions = vec![
        env!("CARGO_PKG_VERSION").as_bytes().to_vec(),
        Kinds::BUILT_IN.len().to_string().into_bytes(),
        typed.source.clone(),
        target.clone(),
        binary,
        format!("{is_direct} {:?} {}", typed.delete, typed.subdirs).into_bytes(),
        format!("{:?}", rsync.get::<Value>("delete_excluded")?).into_bytes(),
    ];
    conditions.extend(rsync_options::essential(&words));
    let seconds = match config.get("verifyEvery")? {
        Value::Nil => context.settings.value("verifyEvery")?,
        value => value,
    };
    let seconds = number_of(&seconds).unwrap_or(VERIFY_SECONDS);
    Ok(Some(WarmStartConfig {
        conditions,
        verify_every: (seconds > 0.0).then(|| Duration::from_secs_f64(seconds.min(4e9))),
        by_directory: (!runs_rsync || is_plain) && typed.guard.max_delete.is_none(),
        hard_links: is_direct || truthy(&rsync.get("hard_links")?),
        by_name: runs_rsync,
        local_target: (!batch::is_remote(&target)).then_some(target),
    }))
}
