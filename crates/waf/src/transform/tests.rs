use super::Transform;

fn of(name: &str, input: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Transform::named(name).unwrap().apply(input, &mut out);
    out
}

/// Each transformation with what it makes of a text. Many are the cases in which decoders differ.
const CASES: &[(&str, &[u8], &[u8])] = &[
    ("base64Decode", b"VGVz\r\ndA==", b"Test"),
    ("base64Decode", b"VGVz!VGVz", b"Tes"),
    ("base64DecodeExt", b"P.HNjcml!wdD4=", b"<script>"),
    ("base64Encode", b"Test", b"VGVzdA=="),
    ("base64Encode", b"Tes", b"VGVz"),
    ("cmdLine", b"C^OMMAND /C  DIR", b"command/c dir"),
    ("cmdLine", b"\"command;,\t(x", b"command(x"),
    ("compressWhitespace", b" a \t\r\n b\x0b", b" a b "),
    ("compressWhitespace", b"a\tb", b"a b"),
    ("cssDecode", b"ja\\vascript", b"javascript"),
    ("cssDecode", b"\\6a avascript", b"javascript"),
    ("cssDecode", b"\\00006aavascript", b"javascript"),
    ("cssDecode", b"\\ff1c x", b"<x"),
    ("cssDecode", b"a\\\nb\\", b"ab"),
    (
        "escapeSeqDecode",
        b"\\a\\b\\x41\\101\\z\\\\\\'",
        b"\x07\x08AA\\z\\'",
    ),
    ("escapeSeqDecode", b"\\xZZ\\", b"\\xZZ\\"),
    ("hexDecode", b"41426", b"AB"),
    ("hexEncode", b"\x00aZ", b"00615a"),
    (
        "htmlEntityDecode",
        b"&lt;&#x3C;&#60&#0000106;&quot&amp;&nbsp;x",
        b"<<<j\"&\xa0x",
    ),
    (
        "htmlEntityDecode",
        b"&unknown;&#;&#x;&",
        b"&unknown;&#;&#x;&",
    ),
    ("jsDecode", b"\\x3c\\u003c\\uff1c\\74\\n\\q", b"<<<<\nq"),
    ("jsDecode", b"\\400\\377", b"\x200\xff"),
    ("jsDecode", b"a\\", b"a\\"),
    ("length", b"", b"0"),
    ("length", b"abc", b"3"),
    ("lowercase", b"ABC\xc4", b"abc\xc4"),
    ("normalizePath", b"/a//b/./c/../d/", b"/a/b/d/"),
    ("normalizePath", b"/../../etc/passwd", b"/etc/passwd"),
    ("normalizePath", b"../../etc", b"../../etc"),
    ("normalizePath", b"a/b/..", b"a"),
    ("normalizePath", b"", b""),
    ("normalizePathWin", b"\\a\\..\\b", b"/b"),
    ("parityZero7bit", b"\xc1", b"A"),
    ("parityEven7bit", b"AC", b"A\xc3"),
    ("parityOdd7bit", b"AC", b"\xc1C"),
    ("removeComments", b"a/* x */b", b"ab"),
    ("removeComments", b"a-- b", b"a "),
    ("removeCommentsChar", b"a/*b*/c--d#e<!--f-->", b"abcdef"),
    ("removeNulls", b"a\0b", b"ab"),
    ("removeWhitespace", b" a\t\xc2\xa0b\n", b"ab"),
    ("replaceComments", b"a/*x*/b/*y", b"a b "),
    ("replaceComments", b"a/b*/", b"a/b*/"),
    ("replaceNulls", b"a\0b", b"a b"),
    (
        "sha1",
        b"abc",
        b"\xa9\x99\x3e\x36\x47\x06\x81\x6a\xba\x3e\x25\x71\x78\x50\xc2\x6c\x9c\xd0\xd8\x9d",
    ),
    (
        "md5",
        b"",
        b"\xd4\x1d\x8c\xd9\x8f\x00\xb2\x04\xe9\x80\x09\x98\xec\xf8\x42\x7e",
    ),
    ("sqlHexDecode", b"x=0x414243 0x4", b"x=ABC 0x4"),
    ("trim", b" a b ", b"a b"),
    ("trimLeft", b" a ", b"a "),
    ("trimRight", b" a ", b" a"),
    ("uppercase", b"abc", b"ABC"),
    ("urlDecode", b"%41+%4g%", b"A %4g%"),
    ("urlDecodeUni", b"%u0041%uff1c%U0042+%41%u00", b"A<B A%u00"),
    ("urlEncode", b"a b/", b"a+b%2f"),
    ("utf8toUnicode", "é€😀a".as_bytes(), b"%u00e9%u20ac%u1f600a"),
    ("utf8toUnicode", b"\xff\xe2\x82", b"\xff\xe2\x82"),
    ("utf8toUnicode", b"\xc0\xaf", b"%u002f\xc0"),
];

#[test]
fn every_transformation_does_what_its_cases_say() {
    for (name, input, expected) in CASES {
        let told = of(name, input);
        let show = |bytes: &[u8]| bytes.escape_ascii().to_string();
        assert_eq!(show(&told), show(expected), "{name} of {}", show(input));
    }
}

#[test]
fn every_transformation_has_a_case() {
    for name in Transform::names().filter(|name| *name != "none") {
        assert!(CASES.iter().any(|(case, ..)| *case == name), "{name}");
    }
}

#[test]
fn a_text_without_a_trigger_is_left_as_it_is() {
    let mut random = fastrand::Rng::with_seed(7);
    for transform in Transform::names()
        .filter_map(Transform::named)
        .filter(|transform| !transform.is_always())
    {
        let quiet: Vec<u8> = transform.triggers().complement().iter().collect();
        for _ in 0..2000 {
            let text: Vec<u8> = (0..random.usize(..12))
                .filter_map(|_| random.choice(&quiet).copied())
                .collect();
            let mut out = Vec::new();
            transform.apply(&text, &mut out);
            assert_eq!(out, text, "{transform:?}");
        }
    }
}

#[test]
fn no_output_is_more_than_six_times_as_long_as_its_input() {
    let mut random = fastrand::Rng::with_seed(9);
    for transform in Transform::names()
        .filter_map(Transform::named)
        .filter(|transform| !transform.is_always())
    {
        for _ in 0..2000 {
            let text: Vec<u8> = (0..random.usize(..24))
                .map(|_| {
                    *random
                        .choice(b"\\%&#xu0041+/*-<>'\"\xc3\xa9\xf0 ;.=")
                        .unwrap()
                })
                .collect();
            let mut out = Vec::new();
            transform.apply(&text, &mut out);
            assert!(out.len() <= text.len() * 6 + 4, "{transform:?}");
        }
    }
}
