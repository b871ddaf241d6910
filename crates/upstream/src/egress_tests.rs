use super::*;

fn rules() -> EgressRules {
    EgressRules::compile(&[
        "https://api.example.com",
        "http://10.0.0.7:8080",
        "https://*.example.org",
        "https://[2001:db8::7]/",
        "http://plain.example.com:8000",
    ])
    .unwrap()
}

#[test]
fn only_what_a_rule_says_is_allowed() {
    let rules = rules();
    for allowed in [
        "https://api.example.com/path?q",
        "https://API.example.com:443/",
        "http://10.0.0.7:8080/",
        "http://[::ffff:10.0.0.7]:8080/",
        "https://a.example.org/",
        "https://a.b.example.org/",
        "https://[2001:db8:0::7]/",
        "http://plain.example.com:8000/",
    ] {
        assert!(rules.allows(&allowed.parse().unwrap()), "{allowed}");
    }
    for refused in [
        "http://api.example.com/",
        "https://api.example.com:8443/",
        "https://api.example.com./",
        "https://api.example.com.evil.test/",
        "https://evil-api.example.com/",
        "https://example.org/",
        "https://.example.org/",
        "https://evilexample.org/",
        "https://api.example.com@evil.test/",
        "https://evil.test@api.example.com/",
        "http://10.0.0.7/",
        "http://10.0.0.8:8080/",
        "https://10.0.0.7:8080/",
        "http://167772167:8080/",
        "http://0x0a000007:8080/",
        "http://10.7:8080/",
        "/path",
        "api.example.com:443",
        "ftp://api.example.com/",
        "http://plain.example.com:0/",
    ] {
        if let Ok(uri) = refused.parse() {
            assert!(!rules.allows(&uri), "{refused}");
        }
    }
    assert!(!EgressRules::default().allows(&"https://api.example.com/".parse().unwrap()));
}

#[test]
fn what_is_no_rule_is_said() {
    for bad in [
        "",
        "api.example.com",
        "ftp://a.example.com",
        "https://a.example.com/path",
        "https://a.example.com/?q",
        "https://a.example.com/#x",
        "https://user@a.example.com",
        "https://*",
        "https://*.com",
        "https://*.10.0.0.7",
        "https://a.*.example.com",
        "https://a.example.com:0",
        "https://a.example.com:99999",
        "https://1.2.3",
        "https://",
    ] {
        assert!(EgressRules::compile(&[bad]).is_err(), "{bad}");
    }
}
