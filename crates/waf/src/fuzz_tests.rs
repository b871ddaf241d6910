//! A short run of each entry point, so that what a fuzzer finds first is found here.

const SEEDS: &[&[u8]] = &[
    b"SecRule ARGS|!ARGS:/a|b/ \"@rx (?i)x{2}\" \"id:1,phase:2,deny,t:urlDecode,setvar:'tx.a=+%{tx.b}'\"",
    b"SecRule &TX:a \"!@eq %{ARGS.x}\" \"id:2,chain,skipAfter:E\"\nSecAction \"t:none\"\nSecMarker E",
    b"/?a=%u0041&b=&lt;%00../..//c%%\napplication/json\na=\\u0041; b=1' or 1=1\n{\"a\":[1,{\"b\":\"<x onload=1>\"}]}",
    b"/a?%=%\ntext/xml\n;;=\n<?xml version=\"1.0\"?><a b=\"c\">d<e/></a>",
    b"/\nmultipart/form-data; boundary=x\n\n--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x--\r\n",
];

fn run(entry: fn(&[u8]), rounds: usize) {
    let mut random = fastrand::Rng::with_seed(11);
    for round in 0..rounds {
        let mut bytes = SEEDS[round % SEEDS.len()].to_vec();
        for _ in 0..random.usize(..6) {
            let at = random.usize(..bytes.len());
            match random.u8(..4) {
                0 => bytes[at] = random.u8(..),
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, *random.choice(b"\\\"'%{}|/!&:,;<>\n\0\xff").unwrap()),
                _ => bytes.extend_from_within(at..),
            }
            bytes.truncate(4096);
            if bytes.is_empty() {
                bytes.push(b'x');
            }
        }
        entry(&bytes);
    }
}

#[test]
fn no_text_breaks_the_parser_or_the_compiler() {
    run(super::seclang, 20_000);
}

#[test]
fn no_text_breaks_a_transformation() {
    run(super::transformation, 20_000);
}

#[test]
fn no_request_breaks_a_transaction() {
    run(super::transaction, 400);
}
