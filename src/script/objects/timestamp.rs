//! Timestamps of user code: points on a monotonic clock of arbitrary origin, printed in 100 ticks a
//! second.

use mlua::{MetaMethod, Result, UserData, UserDataMethods, UserDataRef, Value};

use crate::config::config_error;
use crate::queue::Time;

/// A point in time, in microseconds of the daemon's clock.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Timestamp(pub Time);

impl Timestamp {
    /// Returns a timestamp this number of seconds after the origin.
    pub fn from_seconds(seconds: i64) -> Timestamp {
        Timestamp(0).shifted(seconds as f64)
    }

    /// Returns the whole seconds.
    pub fn seconds(self) -> i64 {
        (self.0 / 1_000_000) as i64
    }

    fn shifted(self, seconds: f64) -> Timestamp {
        let micros = self.0 as f64 + seconds * 1e6;
        Timestamp(micros.clamp(0.0, Time::MAX as f64 / 4.0) as Time)
    }

    fn ticks(self) -> String {
        format!("{:.6}", self.0 as f64 / 1e4)
    }
}

impl UserData for Timestamp {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_meta_function(MetaMethod::Add, |_, (a, b): (Value, Value)| {
            match (stamp(&a), stamp(&b)) {
                (Some(_), Some(_)) => Err(config_error("Cannot add two timestamps!")),
                (Some(stamp), None) => Ok(stamp.shifted(seconds(&b)?)),
                (None, Some(stamp)) => Ok(stamp.shifted(seconds(&a)?)),
                (None, None) => Err(config_error("no timestamp")),
            }
        });
        methods.add_meta_function(MetaMethod::Sub, |lua, (a, b): (Value, Value)| {
            let Some(a) = stamp(&a) else {
                return Err(config_error("Cannot subtract a timestamp from a number!"));
            };
            match stamp(&b) {
                Some(b) => Ok(Value::Number((a.0 as f64 - b.0 as f64) / 1e6)),
                None => Ok(Value::UserData(
                    lua.create_userdata(a.shifted(-seconds(&b)?))?,
                )),
            }
        });
        methods.add_meta_function(
            MetaMethod::Lt,
            |_, (a, b): (UserDataRef<Timestamp>, UserDataRef<Timestamp>)| Ok(a.0 < b.0),
        );
        methods.add_meta_function(
            MetaMethod::Le,
            |_, (a, b): (UserDataRef<Timestamp>, UserDataRef<Timestamp>)| Ok(a.0 <= b.0),
        );
        methods.add_meta_function(MetaMethod::Eq, |_, (a, b): (Value, Value)| {
            Ok(stamp(&a).is_some() && stamp(&a) == stamp(&b))
        });
        methods.add_meta_function(MetaMethod::Concat, |_, (a, b): (Value, Value)| {
            let mut text = Vec::new();
            for value in [a, b] {
                match stamp(&value) {
                    Some(stamp) => text.extend(stamp.ticks().into_bytes()),
                    None => text.extend(
                        crate::config::text_of(&value)
                            .ok_or_else(|| config_error("attempt to concatenate a timestamp"))?,
                    ),
                }
            }
            Ok(mlua::BString::from(text))
        });
        methods.add_meta_method(MetaMethod::Index, |lua, this, key: String| {
            Ok(match key.as_str() {
                "seconds" => Value::Integer(this.seconds()),
                "string" => Value::String(lua.create_string(this.seconds().to_string())?),
                _ => Value::Nil,
            })
        });
    }
}

/// Returns the timestamp in a value, if it is one.
pub fn stamp(value: &Value) -> Option<Timestamp> {
    value
        .as_userdata()
        .and_then(|data| data.borrow::<Timestamp>().ok())
        .map(|stamp| *stamp)
}

fn seconds(value: &Value) -> Result<f64> {
    crate::config::number_of(value)
        .ok_or_else(|| config_error("a timestamp is moved by a number of seconds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic() {
        let lua = crate::sys::lua();
        let globals = lua.globals();
        globals.set("t", Timestamp(2_500_000)).unwrap();
        globals.set("u", Timestamp(4_000_000)).unwrap();
        lua.load(
            "assert(u - t == 1.5)
             assert(t + 1.5 == u and 1.5 + t == u and u - 1.5 == t)
             assert(t < u and t <= u and t ~= u and not (t == 2.5))
             assert(not (t < t) and t <= t and not (u < t) and not (u <= t))
             assert(t - 9 < t and t + 1e300 > u and t + 1e300 + 1e300 == t + 1e300)
             assert((t + 1e300).seconds > 0)
             assert(t.seconds == 2 and t.string == '2' and t.foo == nil)
             assert('at ' .. t == 'at 250.000000')
             assert(not pcall(function() return t + u end))
             assert(not pcall(function() return t < 1 end))",
        )
        .exec()
        .unwrap();
        // A timer may still add to it.
        assert!(Timestamp(0).shifted(1e300).0 <= Time::MAX / 2);
        assert_eq!(Timestamp(1).shifted(-1.0).0, 0);
    }
}
