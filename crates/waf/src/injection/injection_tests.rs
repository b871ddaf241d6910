use super::*;

fn sql(value: &str) -> String {
    is_sql_injection(value.as_bytes())
        .map_or_else(|| "-".to_owned(), |found| found.as_str().to_owned())
}

#[test]
fn sql_is_found_in_every_context_a_value_may_be_in() {
    for (value, fingerprint) in [
        ("1 or 1=1", "1&1"),
        ("1' or '1'='1", "s&sos"),
        ("\" or \"\"=\"", "s&sos"),
        ("-1 UNION SELECT 1,2", "1UE1"),
        ("1; DROP TABLE users--", "1;Tnn"),
        ("admin'--", "sc"),
        ("' into outfile '/var/www/a.php", "sks"),
        ("1 LOCK IN SHARE MODE UNION SELECT a from b", "1kUEn"),
        ("sleep(5)#", "f(1)o"),
        ("1/*!UNION*/", "X"),
        ("1 or 1 `", "1&1c"),
        ("{``.``.id}", "X"),
        ("/get?x=p{``ng%20127.0.0.1", "X"),
    ] {
        let found = sql(value);
        assert_ne!(found, "-", "{value}");
        assert_eq!(found, fingerprint, "{value}");
    }
}

#[test]
fn honest_text_is_no_sql() {
    for value in [
        "",
        "1",
        "O'Brien",
        "select a seat",
        "it's 5 o'clock",
        "rock & roll",
        "1 union",
        "1 `",
        "1234ABCDEF--",
        "a@b.example",
        "drop me a line; thanks",
        "foo and bar",
        "C:\\Users\\me",
        "50% of 3",
        "--",
        "#1",
    ] {
        assert_eq!(sql(value), "-", "{value}");
    }
}

#[test]
fn script_is_found_in_every_context_a_value_may_be_in() {
    for value in [
        "<script>alert(1)</script>",
        "<sCrIpT src=a>",
        "<scr\0ipt>",
        "<svg/onload=alert(1)>",
        "<svg>",
        "<xsl:template>",
        "<a href=j&#0;avascript:x>",
        "<a href=ja&#10;vascript:x>",
        "<a href=&#1;javascript:x>",
        "<a href=javascript:alert(1)>",
        "<a href='&#106;avascript:alert(1)'>",
        "<a href=&#x6a;ava&#0;script:alert(1)>",
        "' onmouseover=alert(1) '",
        "\" style=\"a:b",
        "` onclick=alert(1)",
        "x onerror=alert(1)",
        "<!DOCTYPE html>",
        "<!--[if IE]>",
        "<!-- ` -->",
        "<?import a>",
        "<animate attributeName=href values=javascript:alert(1)>",
        "<a xlink:href=data:text/html,x>",
    ] {
        assert!(is_xss(value.as_bytes()), "{value}");
    }
}

#[test]
fn honest_text_is_no_script() {
    for value in [
        "",
        "a < b",
        "1 <2",
        "<b>bold</b>",
        "a=b",
        "<a href=https://a.example/>x</a>",
        "<!-- x -->",
        "i <3 you",
        "x <",
        "<>",
        "<p class=\"on\">",
        "a=1&b=2",
        "<p onclick/=x>",
        "<a href='/data'>",
        "</script>",
    ] {
        assert!(!is_xss(value.as_bytes()), "{value}");
    }
}

#[test]
fn no_value_makes_either_panic_or_take_long() {
    let mut random = fastrand::Rng::with_seed(1);
    let alphabet = b"'\"`()<>=!-#/*;,.&|\\@%+ \0\x0B\xA0\xFFxXeEnNqQuUbB019{}[]$:_onsrcEselect";
    for length in 0..3_000 {
        let value: Vec<u8> = (0..length % 64)
            .map(|_| alphabet[random.usize(..alphabet.len())])
            .collect();
        let _ = (is_sql_injection(&value), is_xss(&value));
    }
    for part in [
        "'", "\\'", "/*", "--", "$a$", "<!-", "<%", "`", "@", "(", "{", "<a b=", "&#x", "1,", "q'(",
    ] {
        let value = part.repeat(200_000);
        let _ = (is_sql_injection(value.as_bytes()), is_xss(value.as_bytes()));
    }
}
