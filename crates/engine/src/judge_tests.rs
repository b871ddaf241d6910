//! Requests as somebody describes them, before any rule sees one.

use super::*;

fn asked(target: &str) -> Asked {
    Asked {
        method: "GET".into(),
        target: target.into(),
        host: "shop.example.com".into(),
        headers: vec![("Accept".into(), "*/*".into())],
        body: String::new(),
        address: [192, 0, 2, 1].into(),
        route: None,
    }
}

fn cause(asked: &Asked) -> Cause {
    parts_of(asked).unwrap_err().cause
}

#[test]
fn a_described_head_is_what_the_path_would_have_read() {
    let parts = parts_of(&asked("/a?b=1%27")).unwrap();
    assert_eq!(parts.uri.query(), Some("b=1%27"));
    assert_eq!(parts.headers.get(HOST).unwrap(), "shop.example.com");
    assert_eq!(parts.headers.get("accept").unwrap(), "*/*");
}

#[test]
fn what_no_client_could_send_is_refused_with_the_cause_of_the_path() {
    assert_eq!(cause(&asked("/a b")), Cause::MalformedPath);
    let mut one = asked("/");
    one.headers = vec![("a b".into(), String::new())];
    assert_eq!(cause(&one), Cause::MalformedRequest);
    one.headers = vec![("a".into(), "x\ny".into())];
    assert_eq!(cause(&one), Cause::MalformedRequest);
    one.method = "G T".into();
    assert_eq!(cause(&one), Cause::MethodNotAllowed);
}

#[test]
fn a_query_with_an_unknown_member_is_refused() {
    let error = judge(
        br#"{"digest":"x","requests":[],"more":1}"#,
        Path::new("/"),
        "",
    )
    .unwrap_err();
    assert_eq!(error.code, "request_malformed");
}
