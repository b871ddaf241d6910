//! What spellings of a path come down to.

use super::*;

fn wire(raw: &str) -> String {
    match normalize(raw) {
        Ok(path) => path.wire.into_owned(),
        Err(error) => format!("{error:?}"),
    }
}

#[test]
fn a_normal_path_is_kept_without_a_copy() {
    let path = normalize("/a/b.c/d").unwrap();
    assert!(matches!(path.wire, Cow::Borrowed("/a/b.c/d")));
}

#[test]
fn every_spelling_of_a_resource_is_one() {
    for raw in [
        "/admin/x",
        "/./admin/x",
        "/public/../admin/x",
        "//admin//x",
        "/%61dmin/x",
        "/%2e/admin/x",
        "/a/%2E%2e/admin/x",
        "/../../admin/x",
    ] {
        assert_eq!(wire(raw), "/admin/x", "{raw}");
    }
}

#[test]
fn what_servers_read_differently_is_refused() {
    for raw in [
        "/a%2Fb", "/a%2fb", "/a%5cb", "/a\\b", "/a%00b", "/a%0ab", "/a%7f",
    ] {
        assert_eq!(wire(raw), "Forbidden", "{raw}");
    }
    for raw in ["/a%", "/a%2", "/a%zz", "/a%+1"] {
        assert_eq!(wire(raw), "BadEscape", "{raw}");
    }
    assert_eq!(wire("/a%ff"), "NotUtf8");
    assert_eq!(wire("*"), "NotAbsolute");
}

#[test]
fn a_final_slash_and_the_root_stay() {
    assert_eq!(wire("/"), "/");
    assert_eq!(wire("/.."), "/");
    assert_eq!(wire("/a/"), "/a/");
    assert_eq!(wire("/a/."), "/a/");
    assert_eq!(wire("/a/b/.."), "/a/");
}

#[test]
fn policy_sees_the_decoded_text_and_the_function_the_escaped() {
    let path = normalize("/caf%c3%a9/a%20b").unwrap();
    assert_eq!(path.wire, "/caf%C3%A9/a%20b");
    assert_eq!(path.decoded, "/café/a b");
}

#[test]
fn the_normal_form_is_a_fixed_point() {
    for raw in [
        "/a%20b/../c",
        "/%7Euser/x//y",
        "/é/..",
        "/a;b=1/.hidden/...",
        "/%25%32%46",
    ] {
        let once = wire(raw);
        assert_eq!(wire(&once), once, "{raw}");
    }
}
