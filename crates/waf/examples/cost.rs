//! What judging costs: CPU time of four kinds of requests at each paranoia level, hot, on one thread.
//! A client's headers stay the same from request to request; arguments, the session and bodies do not.
//!
//! `cost RULES…` with the rule files in load order (the level and the engine's mode are set by this program, so the files
//! must not). `--only=GET` and `--level=1` for one request or level. Prints the time to load, the set's memory, and the
//! median of rounds of each request in microseconds. `cost --requests` prints the requests instead, one JSON object a
//! line, for other engines to be asked the same. `--runs=N` has `counted` judge at most so many requests of each kind
//! after as many others, for a profiler that counts instructions: that is steady on a machine that others share.
//! `--analysis=FILE` loads with the analysis in FILE, which is written first where there is none: the load from a cache.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use serde_json::json;
use vedette_waf::{
    Analysis, Disk, Ends, Memory, Options, RuleSet, Sources, Transaction, Workbench,
};

const ROUNDS: usize = 41;
const ROUND: Duration = Duration::from_millis(25);
const SETTINGS: &str = "cost.conf";

/// The files of the disk, and one that says the mode and the level.
struct WithSettings(Memory);

impl Sources for WithSettings {
    fn read(&self, path: &str, limit: usize) -> Result<Vec<u8>, String> {
        if path == SETTINGS {
            self.0.read(path, limit)
        } else {
            Disk.read(path, limit)
        }
    }

    fn matching(&self, pattern: &str) -> Result<Vec<String>, String> {
        Disk.matching(pattern)
    }
}

struct Request {
    name: &'static str,
    method: &'static str,
    target: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let (flags, rules): (Vec<String>, Vec<String>) = std::env::args()
        .skip(1)
        .partition(|word| word.starts_with("--"));
    if flags.iter().any(|flag| flag == "--requests") {
        print_requests();
        return Ok(());
    }
    let flag = |name: &str| flags.iter().find_map(|flag| flag.strip_prefix(name));
    let (only, wanted) = (
        flag("--only="),
        flag("--level=").and_then(|level| level.parse::<u8>().ok()),
    );
    let runs = flag("--runs=").and_then(|runs| runs.parse::<usize>().ok());
    println!(
        "{:<12}{:>8}{:>10}{:>12}",
        "request", "level", "µs", "matched"
    );
    for level in (1..=4u8).filter(|level| wanted.is_none_or(|wanted| wanted == *level)) {
        let analysis = flag("--analysis=")
            .map(|file| analysis(file, &rules))
            .transpose()?;
        let (set, took) = load(level, &rules, analysis.as_deref())?;
        let (resident, peak) = memory();
        let mut bench = Workbench::new(&set);
        for variants in kinds() {
            let name = variants.first().map_or("", |request| request.name);
            if only.is_some_and(|only| only != name) {
                continue;
            }
            if let Some(runs) = runs {
                let (warm, rest) = variants.split_at(variants.len() / 2);
                for request in warm.iter().take(runs) {
                    judge(&set, &mut bench, request);
                }
                let runs = counted(&set, &mut bench, rest.get(..runs).unwrap_or(rest));
                println!("{name:<12}{level:>8}{runs:>10} judged");
            } else {
                let (micros, matched) = median(&set, &mut bench, &variants);
                println!("{name:<12}{level:>8}{micros:>10.1}{matched:>12}");
            }
        }
        let (millis, kilobytes) = (took.as_millis(), set.memory_usage() / 1000);
        println!(
            "# level {level}: {} rules, loaded in {millis} ms, {kilobytes} kB",
            set.len()
        );
        println!("# the process after the load: {resident} kB, at most {peak} kB\n");
    }
    Ok(())
}

fn print_requests() {
    for request in kinds().into_iter().flatten() {
        let body = base64::engine::general_purpose::STANDARD.encode(&request.body);
        println!(
            "{}",
            json!({
                "name": request.name, "method": request.method, "target": request.target,
                "headers": request.headers, "body": body,
            })
        );
    }
}

/// The analysis of the rules in a file, which is written where there is none.
fn analysis(file: &str, rules: &[String]) -> Result<Vec<u8>, Box<dyn Error>> {
    if !Path::new(file).exists() {
        let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
        let found = Analysis::of(&Disk, &rules, &Options::default())?;
        std::fs::write(file, found.to_bytes())?;
    }
    Ok(std::fs::read(file)?)
}

/// The kilobytes of the process that are resident, now and at most until now, as Linux tells them.
fn memory() -> (u32, u32) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kilobytes = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok());
        kilobytes.unwrap_or_default()
    };
    (of("VmRSS:"), of("VmHWM:"))
}

#[inline(never)]
fn load(
    level: u8,
    rules: &[String],
    analysis: Option<&[u8]>,
) -> Result<(RuleSet, Duration), Box<dyn Error>> {
    let settings = format!(
        "SecRuleEngine On\nSecRequestBodyAccess On\n\
         SecRule REQUEST_HEADERS:Content-Type \"@beginsWith application/json\" \
         \"id:200001,phase:1,pass,nolog,ctl:requestBodyProcessor=JSON\"\n\
         SecAction \"id:900000,phase:1,pass,nolog,setvar:tx.blocking_paranoia_level={level},\
         setvar:tx.detection_paranoia_level={level}\"\n"
    );
    let sources = WithSettings(Memory(
        [(SETTINGS.to_owned(), settings.into_bytes())].into(),
    ));
    let files: Vec<&str> = std::iter::once(SETTINGS)
        .chain(rules.iter().map(String::as_str))
        .collect();
    let began = Instant::now();
    let analysis = analysis.map(Analysis::from_bytes).transpose()?;
    let options = Options {
        paranoia_ceiling: Some(level),
        analysis: analysis.map(Arc::new),
        ..Options::default()
    };
    let set = RuleSet::load(&sources, &files, &options)?;
    Ok((set, began.elapsed()))
}

/// The kinds of requests, each with as many variants as make its values new to a worker.
fn kinds() -> Vec<Vec<Request>> {
    vec![
        (0..4096).map(get).collect(),
        (0..512).map(form).collect(),
        (0..512)
            .map(|variant| {
                posted(
                    "JSON 1 kB",
                    "application/json",
                    articles(5, variant),
                    variant,
                )
            })
            .collect(),
        (0..8)
            .map(|variant| {
                posted(
                    "JSON 64 kB",
                    "application/json",
                    articles(330, variant),
                    variant,
                )
            })
            .collect(),
    ]
}

/// A word that no other variant has.
fn word(variant: usize) -> String {
    let letter = |place: usize| "bcdfghklmnprstvw".chars().nth(variant >> (4 * place) & 15);
    (0..3)
        .filter_map(letter)
        .flat_map(|letter| [letter, 'a'])
        .collect()
}

fn get(variant: usize) -> Request {
    let word = word(variant);
    Request {
        name: "GET",
        method: "GET",
        target: format!("/shop/articles?category={word}&page={variant}&sort=price_{word}"),
        headers: headers(variant),
        body: Vec::new(),
    }
}

fn form(variant: usize) -> Request {
    let word = word(variant);
    let field = |field: usize| {
        format!("field_{field}=The+value+of+number+{field}+is+an+ordinary+{word}%2C+ok.")
    };
    let fields: Vec<String> = (0..16).map(field).collect();
    let body = fields.join("&").into_bytes();
    posted(
        "form 1 kB",
        "application/x-www-form-urlencoded",
        body,
        variant,
    )
}

fn headers(variant: usize) -> Vec<(&'static str, String)> {
    let cookie = format!("session=9b2f51c4e8a7{variant:04x}; theme=dark");
    let agent = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";
    [
        ("Host", "shop.example.com"),
        ("User-Agent", agent),
        (
            "Accept",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        ),
        ("Accept-Language", "en-GB,en;q=0.5"),
        ("Accept-Encoding", "gzip, deflate, br"),
        ("Referer", "https://shop.example.com/articles"),
        ("Connection", "keep-alive"),
        ("Cookie", cookie.as_str()),
        ("Cache-Control", "max-age=0"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into()
}

fn posted(name: &'static str, media_type: &str, body: Vec<u8>, variant: usize) -> Request {
    let mut headers = headers(variant);
    headers.push(("Content-Type", media_type.to_owned()));
    headers.push(("Content-Length", body.len().to_string()));
    Request {
        name,
        method: "POST",
        target: "/shop/orders".to_owned(),
        headers,
        body,
    }
}

fn articles(items: usize, variant: usize) -> Vec<u8> {
    let word = word(variant);
    let item = |number: usize| {
        format!(
            "{{\"article\":{number},\"title\":\"Garden {word}, folding, number {number}\",\"price\":\"19.90\",\
             \"colour\":\"green\",\"quantity\":{},\"gift\":false,\"note\":\"Please leave it at the {word} on the left.\"}}",
            number % 7
        )
    };
    let items: Vec<String> = (0..items).map(item).collect();
    format!(
        "{{\"customer\":\"A. Example\",\"items\":[{}]}}",
        items.join(",")
    )
    .into_bytes()
}

/// Judges each request once: the function that a profiler is told to count. How many there were.
#[inline(never)]
fn counted(set: &RuleSet, bench: &mut Workbench, requests: &[Request]) -> usize {
    for request in requests {
        judge(set, bench, request);
    }
    requests.len()
}

/// The median of the rounds' means, in microseconds, and the rules that matched.
fn median(set: &RuleSet, bench: &mut Workbench, variants: &[Request]) -> (f64, usize) {
    let mut matched = 0;
    let mut next = variants.iter().cycle();
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let (began, cpu, mut runs) = (Instant::now(), cpu_nanos(), 0u32);
            while let Some(request) = next.next().filter(|_| began.elapsed() < ROUND) {
                matched = judge(set, bench, request);
                runs += 1;
            }
            (cpu_nanos() - cpu) / 1e3 / f64::from(runs)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    (rounds.get(ROUNDS / 2).copied().unwrap_or_default(), matched)
}

/// Nanoseconds that this thread has run, as Linux counts them: others on the machine do not count.
fn cpu_nanos() -> f64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    told.split(' ')
        .next()
        .and_then(|nanos| nanos.parse().ok())
        .unwrap_or_default()
}

fn judge(set: &RuleSet, bench: &mut Workbench, request: &Request) -> usize {
    let mut tx = Transaction::begin(set, bench, 1_760_000_000_000_000, "0123456789abcdef");
    tx.connection(&Ends {
        client: ([192, 0, 2, 1].into(), 40_000),
        server: ([192, 0, 2, 2].into(), 443),
    });
    tx.request_line(
        request.method.as_bytes(),
        request.target.as_bytes(),
        b"HTTP/1.1",
    );
    for (name, value) in &request.headers {
        tx.header(name.as_bytes(), value.as_bytes());
    }
    tx.end_of_request_headers(bench);
    tx.body(&request.body);
    tx.end_of_request_body(bench);
    tx.end(bench).matched.len()
}
