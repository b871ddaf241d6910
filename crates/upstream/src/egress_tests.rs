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

#[test]
fn a_range_allows_its_addresses_with_its_scheme_and_port() {
    let rules = EgressRules::compile(&[
        "http://10.0.0.0/8:8080",
        "https://192.168.0.0/16",
        "https://[fd00::/8]:8443",
        "https://inside.example.com",
    ])
    .unwrap();
    for allowed in [
        "http://10.0.0.7:8080/",
        "http://[::ffff:10.9.8.7]:8080/path",
        "https://192.168.7.9/",
        "https://192.168.7.9:443/",
        "https://[fd12::7]:8443/",
    ] {
        assert!(rules.allows(&allowed.parse().unwrap()), "{allowed}");
    }
    for refused in [
        "http://10.0.0.7/",
        "https://10.0.0.7:8080/",
        "http://11.0.0.7:8080/",
        "http://192.168.7.9/",
        "https://[fd12::7]/",
        "https://[fe80::1]:8443/",
        "http://name.example.com:8080/",
    ] {
        assert!(!rules.allows(&refused.parse().unwrap()), "{refused}");
    }
}

#[test]
fn what_is_no_rule_of_a_range_is_said() {
    for bad in [
        "10.0.0.0/8",
        "ftp://10.0.0.0/8",
        "http://10.0.0.7/8",
        "http://10.0.0.0/8:0",
        "http://10.0.0.0/8:99999",
        "http://10.0.0.0/8:",
        "http://10.0.0.0/8/",
        "http://10.0.0.0/8?q",
        "http://user@10.0.0.0/8",
        "http://*.10.0.0.0/8",
        "http://0.0.0.0/0",
        "https://[fd00::/8",
        "https://[fd00::/8]8443",
        "https://fd00::/8",
        "https://[10.0.0.0/8]",
        "http://10.0.0.0/8:+80",
        "https://name.example.com/8",
    ] {
        assert!(EgressRules::compile(&[bad]).is_err(), "{bad}");
    }
}
