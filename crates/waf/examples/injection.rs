//! Says of values whether they are injections, for the comparison with the C library (`tests/waf/injection.py`).
//!
//! A value a line in hexadecimal digits on the standard input; for each a line with the fingerprint of SQL injection, or
//! `-`, and 1 for script in HTML, or 0.

use std::io::{self, BufRead, BufWriter, Write};

use vedette_waf::injection::{is_sql_injection, is_xss};

fn main() -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    for line in io::stdin().lock().lines() {
        let value = decoded(&line?)?;
        let found = is_sql_injection(&value);
        let fingerprint = found.as_ref().map_or("-", |found| found.as_str());
        writeln!(out, "{fingerprint} {}", u8::from(is_xss(&value)))?;
    }
    out.flush()
}

fn decoded(line: &str) -> io::Result<Vec<u8>> {
    (0..line.len())
        .step_by(2)
        .map(|at| {
            line.get(at..at + 2)
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
        })
        .collect::<Option<Vec<u8>>>()
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("no hexadecimal digits: {line}"),
            )
        })
}
