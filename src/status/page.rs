//! The status page: one HTML file without anything from elsewhere, that asks the daemon for
//! its [`Snapshot`](crate::status::snapshot::Snapshot) every two seconds.

/// The page.
pub const HTML: &str = include_str!("page.html");

/// What a browser may do with it: run what is in it and ask where it came from, nothing else.
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

    /// Names of files come from whoever may write into a source.
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
