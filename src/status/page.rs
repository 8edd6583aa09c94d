//! The status page: one self-contained HTML file that requests the daemon's
//! [`Snapshot`](crate::status::snapshot::Snapshot) every two seconds.

/// The HTML text.
pub const HTML: &str = include_str!("page.html");

/// The content security policy: a browser may run the page's own script and query its origin,
/// nothing else.
pub const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; \
    script-src 'unsafe-inline'; connect-src 'self'; img-src data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[cfg(test)]
mod tests {
    use super::HTML;

    #[test]
    fn it_needs_nothing_from_elsewhere() {
        for word in ["http:", "https:", "src=", "@import", "url("] {
            assert!(!HTML.contains(word), "{word}");
        }
    }

    /// Names of files are inserted as text, as any user who may write to a source chooses them.
    #[test]
    fn names_are_set_as_text() {
        for word in [
            "innerHTML",
            "outerHTML",
            "document.write",
            "insertAdjacentHTML",
            "eval(",
        ] {
            assert!(!HTML.contains(word), "{word}");
        }
    }
}
