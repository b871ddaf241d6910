//! Judges requests, one JSON object a line, by the rule files named on the command line.
//!
//! In: `{"client":"192.0.2.1","method":"GET","uri":"/a?b=c","version":"HTTP/1.1",
//! "headers":[["Host","x"]],"body_base64":"","response":{"status":200,"headers":[],"body_base64":""}}`.
//! `uri` is the raw request target; `request_line` in place of method, uri and version gives the line as it was sent;
//! `body_base64` and `response` may be absent.
//!
//! Out, a line for each: `{"matched":[{"id":942100,"phase":2,"message":"…","variable":"ARGS:a","value":"…",
//! "data":"…","severity":2,"values":1}],"interruption":{"id":949110,"phase":2,"action":"deny","status":403,"message":"…"},
//! "tx":{"blocking_inbound_anomaly_score":"5"}}`. Rules with `nolog` are not told. A chain is told once, under the id of
//! its first rule, with the variable of that rule. `{"error":"…"}` where a line could not be read.
//!
//! `--paranoia N` leaves out what only a higher level reaches. A rule set that cannot be loaded ends the program with
//! status 1.

use std::error::Error;
use std::io::{BufRead, Write};
use std::net::IpAddr;

use base64::Engine;
use serde_json::{Value, json};
use vedette_waf::{
    Answer, Disk, Ends, Interruption, Matched, Options, RuleSet, Transaction, Workbench,
};

type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    let mut options = Options::default();
    let mut files: Vec<String> = std::env::args().skip(1).collect();
    if files.first().is_some_and(|first| first == "--paranoia") {
        let level = files.drain(..2).next_back().unwrap_or_default();
        options.paranoia_ceiling = Some(level.parse()?);
    }
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let set = match RuleSet::load(&Disk, &files, &options) {
        Ok(set) => set,
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    };
    for warning in set.warnings() {
        eprintln!("warning: {warning}");
    }
    let mut bench = Workbench::new(&set);
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let answer = judge(&set, &mut bench, &line?)
            .unwrap_or_else(|error| json!({"error": error.to_string()}));
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

fn judge(set: &RuleSet, bench: &mut Workbench, line: &str) -> Result<Value, Failure> {
    let request: Value = serde_json::from_str(line)?;
    let client: IpAddr = text(&request, "client").unwrap_or("127.0.0.1").parse()?;
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)?
        .as_micros();
    let mut tx = Transaction::begin(set, bench, u64::try_from(now)?, &format!("{now:032x}"));
    tx.connection(&Ends {
        client: (client, 40_000),
        server: (IpAddr::from([127, 0, 0, 1]), 80),
    });
    let line = text(&request, "request_line").map(|line| line.splitn(3, ' ').collect::<Vec<_>>());
    if let Some([method, target, protocol]) = line.as_deref() {
        tx.request_line(method.as_bytes(), target.as_bytes(), protocol.as_bytes());
    } else {
        let part = |name| text(&request, name).unwrap_or_default().as_bytes();
        tx.request_line(part("method"), part("uri"), part("version"));
    }
    for (name, value) in headers(&request) {
        tx.header(name, value);
    }
    run(&mut tx, bench, &request)?;
    let tx_values: serde_json::Map<String, Value> = tx
        .all_tx()
        .into_iter()
        .map(|(name, value)| (lossy(&name), Value::String(lossy(&value))))
        .collect();
    let verdict = tx.end(bench);
    Ok(json!({
        "matched": verdict.matched.iter().map(matched).collect::<Vec<_>>(),
        "interruption": verdict.interruption.as_ref().map(interruption),
        "tx": tx_values,
    }))
}

/// The phases, until one of them interrupts.
fn run(tx: &mut Transaction<'_>, bench: &mut Workbench, request: &Value) -> Result<(), Failure> {
    if tx.end_of_request_headers(bench).is_some() {
        return Ok(());
    }
    tx.body(&bytes(request, "body_base64")?);
    if tx.end_of_request_body(bench).is_some() {
        return Ok(());
    }
    let Some(response) = request
        .get("response")
        .filter(|response| response.is_object())
    else {
        return Ok(());
    };
    let status = response
        .get("status")
        .and_then(Value::as_u64)
        .unwrap_or(200);
    tx.response_line(b"HTTP/1.1", u16::try_from(status)?);
    for (name, value) in headers(response) {
        tx.response_header(name, value);
    }
    if tx.end_of_response_headers(bench).is_none() && tx.wants_response_body() {
        tx.response_body(&bytes(response, "body_base64")?);
        tx.end_of_response_body(bench);
    }
    Ok(())
}

fn text<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
    value.get(name).and_then(Value::as_str)
}

fn bytes(value: &Value, name: &str) -> Result<Vec<u8>, Failure> {
    Ok(base64::engine::general_purpose::STANDARD.decode(text(value, name).unwrap_or_default())?)
}

fn headers(value: &Value) -> Vec<(&[u8], &[u8])> {
    let pairs = value
        .get("headers")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    pairs
        .iter()
        .map(|pair| {
            let at = |index: usize| {
                pair.get(index)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .as_bytes()
            };
            (at(0), at(1))
        })
        .collect()
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// As logs have it: bytes that are not printable ASCII in hexadecimal.
fn escaped(bytes: &[u8]) -> String {
    let one = |&byte: &u8| match byte {
        b' '..=b'~' => char::from(byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    };
    bytes.iter().map(one).collect()
}

fn matched(matched: &Matched) -> Value {
    let first = matched.found.first();
    json!({
        "id": matched.rule,
        "phase": matched.phase,
        "message": matched.message,
        "variable": first.map(|found| found.variable.clone()),
        "value": first.map(|found| lossy(&found.bytes)),
        "data": escaped(&matched.data),
        "severity": matched.severity,
        "values": matched.values,
    })
}

fn interruption(interruption: &Interruption) -> Value {
    let action = match &interruption.answer {
        Answer::Deny => "deny",
        Answer::Drop => "drop",
        Answer::Redirect(_) => "redirect",
    };
    json!({
        "id": interruption.rule,
        "phase": interruption.phase,
        "action": action,
        "status": interruption.status,
        "message": interruption.message,
    })
}
