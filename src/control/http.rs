//! The subset of HTTP/1.0 (RFC 1945) for metrics and status page: one request without a body, one
//! response, close.

use serde::Serialize;

use crate::status::metrics;
use crate::status::page;
use crate::status::snapshot::Snapshot;
use crate::status::state::Severity;

/// The maximum size of a request head, in bytes.
const MAX_REQUEST_BYTES: usize = 8 * 1024;

/// The resources that are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// `/metrics`
    Metrics,
    /// `/healthz`
    Health,
    /// `/`
    Status,
    /// `/status.json`
    Json,
    /// `/trends.json`
    Trends,
    /// `/activity.json`
    Activity,
}

/// Parses a request. Returns `None` if it is incomplete.
///
/// # Errors
///
/// The response to a request that is refused.
pub fn parse(bytes: &[u8]) -> Option<Result<Page, Vec<u8>>> {
    let end = bytes.windows(4).position(|part| part == b"\r\n\r\n");
    let end = end.or_else(|| bytes.windows(2).position(|part| part == b"\n\n"));
    let Some(end) = end else {
        return (bytes.len() > MAX_REQUEST_BYTES).then(|| Err(bad()));
    };
    if end > MAX_REQUEST_BYTES {
        return Some(Err(bad()));
    }
    let Ok(head) = std::str::from_utf8(&bytes[..end]) else {
        return Some(Err(bad()));
    };
    Some(read(head))
}

fn read(head: &str) -> Result<Page, Vec<u8>> {
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, path, version) = (words.next(), words.next(), words.next());
    if words.next().is_some() || !version.is_some_and(|version| version.starts_with("HTTP/1.")) {
        return Err(bad());
    }
    if method != Some("GET") {
        return Err(plain("405 Method Not Allowed", "only GET\n"));
    }
    for line in lines {
        // Some servers take a line that begins with a blank as a continuation, so it is refused.
        let Some((name, value)) = line.split_once(':').filter(|_| !line.starts_with(is_blank))
        else {
            return Err(bad());
        };
        let name = name.trim_end_matches(is_blank);
        if name.is_empty() || !name.bytes().all(is_of_token) {
            return Err(bad());
        }
        if name.eq_ignore_ascii_case("host") && !is_own(value.trim_matches(is_blank)) {
            return Err(plain(
                "403 Forbidden",
                "use a loopback address or localhost for this request\n",
            ));
        }
    }
    let path = path.unwrap_or_default();
    match path.split_once('?').map_or(path, |(path, _)| path) {
        "/metrics" => Ok(Page::Metrics),
        "/healthz" => Ok(Page::Health),
        "/" => Ok(Page::Status),
        "/status.json" => Ok(Page::Json),
        "/trends.json" => Ok(Page::Trends),
        "/activity.json" => Ok(Page::Activity),
        _ => Err(plain("404 Not Found", "no such page\n")),
    }
}

/// Linear white space, which may be between the words of a header (RFC 1945, 2.2).
fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t')
}

/// Returns true for the characters of a header's name (RFC 1945, 2.2: token).
fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&byte)
}

/// Returns true if the Host header names this server. A foreign page whose name resolves to a
/// loopback address (DNS rebinding) sends its own name.
fn is_own(host: &str) -> bool {
    let without_port = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = without_port
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(without_port);
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Returns the response to a request for a page that is made of the snapshot.
pub fn answer(page: Page, snapshot: &Snapshot) -> Vec<u8> {
    match page {
        Page::Trends | Page::Activity => bad(),
        Page::Metrics => response("200 OK", metrics::CONTENT_TYPE, metrics::text(snapshot)),
        Page::Health => health(snapshot),
        Page::Status => response("200 OK", "text/html; charset=utf-8", page::HTML.into()),
        Page::Json => json(snapshot),
    }
}

/// Returns a response with a value in JSON.
pub fn json(value: &impl Serialize) -> Vec<u8> {
    let json = serde_json::to_string(value).unwrap_or_default();
    response("200 OK", "application/json", json)
}

/// Returns the response to a malformed request.
pub fn bad() -> Vec<u8> {
    plain("400 Bad Request", "not a request\n")
}

/// Returns status 200 unless a sync has a problem. A backlog is no problem.
fn health(snapshot: &Snapshot) -> Vec<u8> {
    let lines = snapshot.syncs.iter();
    let lines = lines.map(|sync| format!("{}: {}\n", sync.name, sync.detail));
    let status = match snapshot.severity {
        Severity::Trouble => "503 Service Unavailable",
        _ => "200 OK",
    };
    plain(status, &lines.collect::<String>())
}

fn plain(status: &str, text: &str) -> Vec<u8> {
    response(status, "text/plain; charset=utf-8", text.to_owned())
}

fn response(status: &str, kind: &str, body: String) -> Vec<u8> {
    let length = body.len();
    let policy = page::POLICY;
    format!(
        "HTTP/1.0 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
         Connection: close\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
         Referrer-Policy: no-referrer\r\nContent-Security-Policy: {policy}\r\n\r\n{body}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn status(answer: &[u8]) -> String {
        String::from_utf8_lossy(&answer[9..12]).into_owned()
    }

    fn refused(request: &str) -> String {
        status(&parse(request.as_bytes()).unwrap().unwrap_err())
    }

    #[test]
    fn requests() {
        let get = |head: &str| parse(head.as_bytes());
        assert_eq!(get("GET / HTTP/1.1\r\n"), None);
        assert_eq!(get("GET / HTTP/1.1\r\n\r\n"), Some(Ok(Page::Status)));
        let with_host = "GET /metrics?a=b HTTP/1.1\r\nHost: 127.0.0.1:9180\r\n\r\n";
        assert_eq!(get(with_host), Some(Ok(Page::Metrics)));
        let v6 = "GET /healthz HTTP/1.0\nhost: [::1]:9180\n\n";
        assert_eq!(get(v6), Some(Ok(Page::Health)));
    }

    #[test]
    fn refusals() {
        assert_eq!(refused("POST / HTTP/1.1\r\n\r\n"), "405");
        assert_eq!(refused("GET /etc/passwd HTTP/1.1\r\n\r\n"), "404");
        assert_eq!(
            refused("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
            "403"
        );
        assert_eq!(
            refused("GET / HTTP/1.1\r\nHost: 10.0.0.1:80\r\n\r\n"),
            "403"
        );
        assert_eq!(refused("hello\r\n\r\n"), "400");
        assert_eq!(refused(&"x".repeat(MAX_REQUEST_BYTES + 1)), "400");
    }

    #[test]
    fn the_host_is_found_however_it_is_written() {
        for (own, other) in [
            ("Host: 127.0.0.1:80", "Host: evil.example"),
            ("Host:localhost", "Host:evil.example"),
            ("Host : localhost:9180 ", "Host : evil.example"),
            ("hOST\t:\t[::1]:80\t", "hOST\t:\tevil.example\t"),
            ("HOST \t : \t 127.1.2.3", "HOST \t : \t 10.1.2.3"),
        ] {
            let ask = |line: &str| {
                let text = format!("GET / HTTP/1.1\r\nA: b\r\n{line}\r\nC: d\r\n\r\n");
                parse(text.as_bytes()).unwrap()
            };
            assert_eq!(ask(own), Ok(Page::Status), "{own}");
            assert_eq!(status(&ask(other).unwrap_err()), "403", "{other}");
            let both = format!("{own}\r\n{other}");
            assert_eq!(status(&ask(&both).unwrap_err()), "403", "{both}");
        }
        for line in [
            " Host: evil.example",
            "\tHost: evil.example",
            "Host: localhost\r\n evil.example",
            "Host evil.example",
            "Ho st: evil.example",
            "Host\u{a0}: evil.example",
            "Host\u{b}: evil.example",
            "Host\r: evil.example",
            ": evil.example",
        ] {
            let text = format!("GET / HTTP/1.1\r\n{line}\r\n\r\n");
            let answer = parse(text.as_bytes()).unwrap().unwrap_err();
            assert_eq!(status(&answer), "400", "{line:?}");
        }
    }

    #[test]
    fn trouble_is_unhealthy() {
        let mut snapshot = Snapshot::default();
        assert_eq!(status(&answer(Page::Health, &snapshot)), "200");
        snapshot.severity = Severity::Trouble;
        assert_eq!(status(&answer(Page::Health, &snapshot)), "503");
    }

    proptest! {
        #[test]
        fn garbage_gets_an_answer_or_waits(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            if let Some(Err(answer)) = parse(&bytes) {
                prop_assert!(answer.starts_with(b"HTTP/1.0 4"));
            }
        }
    }
}
