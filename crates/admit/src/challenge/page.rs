//! The page that asks for the work: one document, nothing loaded from elsewhere.
//!
//! Its script and style never change, so its policy names them by their hashes. What differs stands
//! in attributes. Without a script, the page goes on by itself once the wait is over.

use std::fmt::Write as _;
use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// What a page is made of.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// The token.
    pub token: &'a str,
    /// Its difficulty.
    pub difficulty: u8,
    /// How long who has no script waits, in seconds.
    pub wait: u64,
    /// The path that takes answers.
    pub answer_path: &'a str,
    /// Path and query that the client asked for, where it goes on.
    pub target: &'a str,
    /// The request's id.
    pub request_id: &'a str,
}

/// The `content-security-policy` of every page.
pub fn content_security_policy() -> &'static str {
    static POLICY: LazyLock<String> = LazyLock::new(|| {
        let hash = |text: &str| STANDARD.encode(digest(&SHA256, text.as_bytes()));
        format!(
            "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'",
            hash(SCRIPT),
            hash(STYLE)
        )
    });
    &POLICY
}

/// The document.
pub fn page(page: &Page) -> String {
    let answer = format!(
        "{}?t={}&to={}",
        page.answer_path,
        page.token,
        escaped_query(page.target)
    );
    let answer = escaped(&answer);
    let (wait, bits) = (page.wait, page.difficulty);
    let (token, id) = (escaped(page.token), escaped(page.request_id));
    // A second more than the wait: the clock of the page is not the node's.
    let refresh = wait.saturating_add(1);
    format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="robots" content="noindex">
<title>One moment, please</title>
<style>{STYLE}</style>
<noscript><meta http-equiv="refresh" content="{refresh};url={answer}"></noscript>
</head>
<body>
<main data-token="{token}" data-bits="{bits}" data-answer="{answer}" data-done="Done. Opening the page.">
<h1>One moment, please</h1>
<p>This site is checking that a person is visiting. There is nothing to do; your browser works for a moment.</p>
<progress max="1" value="0" aria-label="Progress of the check" hidden></progress>
<p id="state" role="status"></p>
<noscript><p>Without JavaScript this takes {refresh} seconds. If nothing happens then, <a href="{answer}">go on</a>.</p></noscript>
<p><small>Request {id}</small></p>
</main>
<script>{SCRIPT}</script>
</body>
</html>
"#
    )
}

/// Text for an attribute or an element.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// A value of a query: everything but unreserved characters is escaped (RFC 3986 §2.3).
fn escaped_query(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            safe.push(char::from(byte));
        } else {
            let _ = write!(safe, "%{byte:02X}");
        }
    }
    safe
}

/// Where an answered client goes on: a path of this site, never another site or scheme.
pub fn is_local(target: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'\\';
    target.starts_with('/') && !target.starts_with("//") && target.bytes().all(is_plain)
}
