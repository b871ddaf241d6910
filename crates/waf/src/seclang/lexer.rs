//! Bytes into lines of words: comments, continuations and quotes.

/// A statement's words and the line on which it begins.
pub(super) struct Line {
    pub(super) number: u32,
    pub(super) words: Vec<String>,
}

/// The statements of a file. The error is a line and what is wrong there.
pub(super) fn lines(text: &str) -> Result<Vec<Line>, (u32, String)> {
    let mut found = Vec::new();
    let mut rows = (1u32..).zip(
        text.split('\n')
            .map(|row| row.strip_suffix('\r').unwrap_or(row)),
    );
    while let Some((number, row)) = rows.next() {
        let first = row.trim_start();
        if first.is_empty() || first.starts_with('#') {
            continue;
        }
        let mut joined = first.to_owned();
        while let Some(kept) = joined.strip_suffix('\\') {
            let kept = kept.len();
            let Some((_, next)) = rows.next() else {
                return Err((
                    number,
                    "the file ends in the middle of a continued line".to_owned(),
                ));
            };
            joined.truncate(kept);
            joined.push_str(next.trim_start());
        }
        let words = words(&joined).map_err(|message| (number, message))?;
        found.push(Line { number, words });
    }
    Ok(found)
}

fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        let word;
        (word, rest) = match first {
            '"' | '\'' => quoted(rest, first)?,
            _ => {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                let (word, rest) = rest.split_at(end);
                (word.to_owned(), rest)
            }
        };
        words.push(word);
        rest = rest.trim_start();
    }
    Ok(words)
}

/// A quoted word without its quotes. Only the quote itself is unescaped: every other backslash
/// belongs to the pattern.
fn quoted(text: &str, quote: char) -> Result<(String, &str), String> {
    let mut word = String::new();
    let mut rest = text.strip_prefix(quote).unwrap_or(text);
    while let Some((before, after)) = rest.split_once(['\\', quote]) {
        word.push_str(before);
        if rest
            .get(before.len()..)
            .is_some_and(|at| at.starts_with(quote))
        {
            if after
                .chars()
                .next()
                .is_some_and(|next| !next.is_whitespace())
            {
                return Err(format!(
                    "there is text right after the closing {quote}: leave a space or escape the quote"
                ));
            }
            return Ok((word, after));
        }
        let mut letters = after.chars();
        match letters.next() {
            Some(next) if next == quote => word.push(next),
            next => word.extend(['\\'].into_iter().chain(next)),
        }
        rest = letters.as_str();
    }
    Err(format!("a {quote} is never closed"))
}
