//! The facilities of syslog(3).

use std::fmt;

/// The syslog facility of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facility(i32);

/// An unknown facility, with the configured value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownFacility(pub String);

impl fmt::Display for UnknownFacility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Logging facility '{}' unknown.", self.0)
    }
}

impl std::error::Error for UnknownFacility {}

/// The names of syslog.conf(5).
const NAMES: [(&str, i32); 21] = [
    ("auth", libc::LOG_AUTH),
    ("authpriv", libc::LOG_AUTHPRIV),
    ("cron", libc::LOG_CRON),
    ("daemon", libc::LOG_DAEMON),
    ("ftp", libc::LOG_FTP),
    ("kern", libc::LOG_KERN),
    ("lpr", libc::LOG_LPR),
    ("mail", libc::LOG_MAIL),
    ("news", libc::LOG_NEWS),
    ("security", libc::LOG_AUTH),
    ("syslog", libc::LOG_SYSLOG),
    ("user", libc::LOG_USER),
    ("uucp", libc::LOG_UUCP),
    ("local0", libc::LOG_LOCAL0),
    ("local1", libc::LOG_LOCAL1),
    ("local2", libc::LOG_LOCAL2),
    ("local3", libc::LOG_LOCAL3),
    ("local4", libc::LOG_LOCAL4),
    ("local5", libc::LOG_LOCAL5),
    ("local6", libc::LOG_LOCAL6),
    ("local7", libc::LOG_LOCAL7),
];

impl Facility {
    /// The facility if the configuration names none.
    pub const USER: Self = Self(libc::LOG_USER);

    /// Returns the facility of that name, in upper or lower case.
    ///
    /// # Errors
    /// There is no such facility.
    pub fn from_name(name: &str) -> Result<Self, UnknownFacility> {
        NAMES
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|&(_, value)| Self(value))
            .ok_or_else(|| UnknownFacility(name.to_owned()))
    }

    /// Returns the facility with that number, 0 (kern) to 23 (local7), as in RFC 5424.
    ///
    /// # Errors
    /// There is no such facility.
    pub fn from_number(number: i64) -> Result<Self, UnknownFacility> {
        match i32::try_from(number) {
            Ok(code @ 0..=23) => Ok(Self(code << 3)),
            _ => Err(UnknownFacility(number.to_string())),
        }
    }

    /// Returns the value for openlog(3).
    pub(super) fn value(self) -> i32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        assert_eq!(Facility::from_name("Daemon"), Facility::from_number(3));
        assert_eq!(Facility::from_name("LOCAL7"), Facility::from_number(23));
        assert_eq!(Facility::from_name("user"), Ok(Facility::USER));
        assert_eq!(Facility::USER.value(), 8);
        for bad in [-1, 24, i64::MAX] {
            assert!(Facility::from_number(bad).is_err());
        }
        let unknown = Facility::from_name("nope").unwrap_err();
        assert_eq!(unknown.to_string(), "Logging facility 'nope' unknown.");
    }
}
