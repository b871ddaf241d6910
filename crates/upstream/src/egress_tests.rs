use super::*;

fn compile(rules: &[&str]) -> Result<EgressRules, ConfigError> {
    EgressRules::compile(rules.iter().map(|rule| EgressRule::to(rule)))
}

fn allows(rules: &EgressRules, uri: &str) -> bool {
    let uri = uri.parse::<Uri>();
    uri.is_ok_and(|uri| rules.call(&uri, &Method::GET).is_ok())
}

fn rules() -> EgressRules {
    compile(&[
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
        assert!(allows(&rules, allowed), "{allowed}");
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
        "http://plain.example.com:+8000/",
    ] {
        assert!(!allows(&rules, refused), "{refused}");
    }
    let nowhere = EgressRules::default();
    assert!(!allows(&nowhere, "https://api.example.com/"));
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
        assert!(compile(&[bad]).is_err(), "{bad}");
    }
}

#[test]
fn a_range_allows_its_addresses_with_its_scheme_and_port() {
    let rules = compile(&[
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
        assert!(allows(&rules, allowed), "{allowed}");
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
        assert!(!allows(&rules, refused), "{refused}");
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
        assert!(compile(&[bad]).is_err(), "{bad}");
    }
}

fn denied(rules: &EgressRules, host: &str, port: u16) -> Option<Denied> {
    rules.tunnel(host, port).err()
}

#[test]
fn a_call_that_no_rule_allows_is_told_which_one_would() {
    let rules = compile(&["https://api.example.com"]).unwrap();
    let told = |uri: &str| rules.call(&uri.parse().unwrap(), &Method::GET).err();
    let rule = |text: &str| Some(Denied::Destination(Some(text.into())));
    assert_eq!(told("https://Evil.test/p?q"), rule("https://evil.test"));
    assert_eq!(
        told("http://api.example.com/"),
        rule("http://api.example.com")
    );
    assert_eq!(
        told("https://api.example.com:8443/"),
        rule("https://api.example.com:8443")
    );
    assert_eq!(told("https://[fd00::7]/"), rule("https://[fd00::7]"));
    assert_eq!(
        told("https://a@b.example.com/"),
        Some(Denied::Destination(None))
    );
    assert_eq!(
        told("ftp://b.example.com/"),
        Some(Denied::Destination(None))
    );
}

#[test]
fn a_rule_that_names_methods_allows_those_and_no_tunnel() {
    let mut rule = EgressRule::to("https://api.example.com");
    rule.methods = vec![Method::GET, Method::HEAD];
    let rules = EgressRules::compile([rule]).unwrap();
    let uri: Uri = "https://api.example.com/".parse().unwrap();
    assert!(rules.call(&uri, &Method::GET).is_ok());
    let needed = Denied::Method("https://api.example.com".into());
    assert_eq!(rules.call(&uri, &Method::POST).err(), Some(needed.clone()));
    assert_eq!(denied(&rules, "api.example.com", 443), Some(needed));
    assert!(!rules.keeps_tunnel("api.example.com", 443));
}

#[test]
fn a_tunnel_is_free_or_begins_with_tls_as_its_rule_says() {
    let rules = compile(&["https://api.example.com", "tcp://db.example.com:5432"]).unwrap();
    assert!(rules.tunnel("API.example.com", 443).unwrap().1);
    assert!(!rules.tunnel("db.example.com", 5432).unwrap().1);
    assert!(rules.keeps_tunnel("db.example.com", 5432));
    let rule = |text: &str| Some(Denied::Destination(Some(text.into())));
    assert_eq!(
        denied(&rules, "db.example.com", 5433),
        rule("tcp://db.example.com:5433")
    );
    assert_eq!(denied(&rules, "evil.test", 443), rule("https://evil.test"));
    assert_eq!(denied(&rules, "10.0.0.7", 22), rule("tcp://10.0.0.7:22"));
    assert_eq!(denied(&rules, "fd00::7", 22), rule("tcp://[fd00::7]:22"));
    for none in ["", "a b", "x@y", "a/b", "[::1", "1.2.3"] {
        assert_eq!(
            denied(&rules, none, 443),
            Some(Denied::Destination(None)),
            "{none}"
        );
    }
    assert_eq!(
        denied(&rules, "db.example.com", 0),
        Some(Denied::Destination(None))
    );
    // A tunnel is no call.
    assert!(!allows(&rules, "tcp://db.example.com:5432/"));
}

#[test]
fn a_rate_lets_its_burst_go_at_once_and_then_one_each_interval() {
    let rate = EgressRate {
        calls: 10,
        period: Duration::from_secs(1),
        burst: 3,
    };
    let pace = Pace::new(&rate).unwrap();
    let start = 5_000_000_000;
    for _ in 0..3 {
        assert_eq!(pace.take(start), Ok(()));
    }
    assert_eq!(pace.take(start), Err(Duration::from_millis(100)));
    assert_eq!(pace.take(start + 99_000_000), Err(Duration::from_millis(1)));
    assert_eq!(pace.take(start + 100_000_000), Ok(()));
    assert!(pace.take(start + 100_000_000).is_err());
}

#[test]
fn what_is_let_go_to_learn_is_never_this_machine_or_a_metadata_service() {
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let free = Allowed::unlisted_tunnel("anything.example.com", 22).unwrap();
    for let_go in ["10.1.2.3", "192.168.0.9", "fd00::7", "9.9.9.9"] {
        assert!(free.addresses.allows(address(let_go)), "{let_go}");
    }
    for kept in [
        "127.0.0.1",
        "::1",
        "169.254.169.254",
        "fe80::1",
        "0.0.0.0",
        "::ffff:127.0.0.1",
    ] {
        assert!(!free.addresses.allows(address(kept)), "{kept}");
    }
    assert!(Allowed::unlisted_call(&"https://x.example.com/".parse().unwrap()).is_some());
    assert!(Allowed::unlisted_call(&"/path".parse().unwrap()).is_none());
}
