use super::*;

fn permits(list: &[&str], uri: &str) -> bool {
    let list: Vec<String> = list.iter().map(|it| (*it).to_owned()).collect();
    let allowed = AllowedHosts::compile(&list).unwrap();
    let destination = uri.parse().ok().and_then(|uri| Destination::of(&uri));
    destination.is_some_and(|it| allowed.permit(it).is_some())
}

#[test]
fn nothing_is_allowed_by_default() {
    assert!(!permits(&[], "https://api.example.com/"));
}

#[test]
fn scheme_host_and_port_must_agree() {
    let list = ["https://api.example.com", "http://10.0.0.7:8080"];
    assert!(permits(&list, "https://api.example.com/a?b"));
    assert!(permits(&list, "https://API.Example.com.:443/"));
    assert!(permits(&list, "http://10.0.0.7:8080/"));
    assert!(permits(&list, "http://[::ffff:10.0.0.7]:8080/"));
    for other in [
        "http://api.example.com/",
        "https://api.example.com:8443/",
        "https://api.example.com.evil.test/",
        "https://evil-api.example.com/",
        "https://example.com/",
        "http://10.0.0.7/",
        "http://10.0.0.8:8080/",
        "https://user@api.example.com/",
        "https://api.example.com:/",
    ] {
        assert!(!permits(&list, other), "{other}");
    }
}

#[test]
fn a_wildcard_takes_names_below_and_nothing_else() {
    let list = ["https://*.example.com"];
    assert!(permits(&list, "https://a.example.com/"));
    assert!(permits(&list, "https://a.b.example.com/"));
    assert!(!permits(&list, "https://example.com/"));
    assert!(!permits(&list, "https://notexample.com/"));
    assert!(!permits(&list, "https://a.example.com.evil.test/"));
}

#[test]
fn entries_that_are_no_destination_are_refused() {
    for entry in [
        "api.example.com",
        "ftp://api.example.com",
        "https://api.example.com/path",
        "https://*.10.0.0.7",
        "https://*",
        "https://",
        "https://a b",
    ] {
        assert!(
            AllowedHosts::compile(&[entry.to_owned()]).is_err(),
            "{entry}"
        );
    }
}
