//! Requests of honest clients, judged before there are any, so that the first of them do not wait for
//! the patterns that all of them want.
//!
//! What only attacks want is left until one comes: in the Core Rule Set that is three quarters of the memory
//! that patterns take. Must not: keep anything of these judgements.

use crate::{Ends, RuleSet, Transaction, Workbench};

/// What browsers send.
const FIELDS: [(&[u8], &[u8]); 9] = [
    (b"Host", b"www.example.com"),
    (
        b"User-Agent",
        b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    ),
    (
        b"Accept",
        b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8",
    ),
    (b"Accept-Language", b"en-GB,en;q=0.9,de;q=0.7"),
    (b"Accept-Encoding", b"gzip, deflate, br, zstd"),
    (
        b"Referer",
        b"https://www.example.com/articles?sort=price&page=2",
    ),
    (b"Connection", b"keep-alive"),
    (b"Cookie", b"session=3f2a9c0d17be; theme=dark; consent=a-1.b_2"),
    (b"Cache-Control", b"max-age=0"),
];
const TARGET: &[u8] =
    b"/shop/articles.html?category=garden+chairs&page=2&sort=price_down&q=a%20b-c";
const BODIES: [(&[u8], &[u8]); 2] = [
    (
        b"application/x-www-form-urlencoded",
        b"name=A.+Example&mail=a.example%40example.com&note=It%27s+fine%2C+thank+you%3A+ring+twice+%28left%29.&amount=12",
    ),
    (
        b"application/json",
        br#"{"id":17,"title":"Chair, folding","price":"19.90","tags":["garden","sale"],"note":"Leave it at the door, please."}"#,
    ),
];

impl RuleSet {
    /// Compiles what honest requests want of the patterns that were left until one wants them, so that no
    /// honest request waits for it. The set judges as it should before and meanwhile.
    pub fn prepare(&self) {
        let mut bench = Workbench::new(self);
        judge(self, &mut bench, b"GET", None);
        for body in BODIES {
            judge(self, &mut bench, b"POST", Some(body));
        }
    }
}

fn judge(set: &RuleSet, bench: &mut Workbench, method: &[u8], body: Option<(&[u8], &[u8])>) {
    let mut tx = Transaction::begin(set, bench, 1_760_000_000_000_000, "prepare");
    tx.connection(&Ends {
        client: ([192, 0, 2, 1].into(), 40_000),
        server: ([192, 0, 2, 2].into(), 443),
    });
    tx.request_line(method, TARGET, b"HTTP/1.1");
    for (name, value) in FIELDS {
        tx.header(name, value);
    }
    if let Some((media_type, body)) = body {
        tx.header(b"Content-Type", media_type);
        tx.header(b"Content-Length", body.len().to_string().as_bytes());
        tx.end_of_request_headers(bench);
        tx.body(body);
    } else {
        tx.end_of_request_headers(bench);
    }
    tx.end_of_request_body(bench);
    tx.end(bench);
}
