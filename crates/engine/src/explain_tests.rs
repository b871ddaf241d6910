//! Why a policy applies or not, told the way a person would.

use super::*;

const SCHEMA: &str = include_str!("../../../src/vedette/policy/schema.cedarschema");

const FILE: &str = r#"// A comment; with a semicolon.
@id("read")
permit (principal is Subject, action, resource)
when { principal.issuer == "spiffe://td" && context.method == "GET" && context.path like "/a/*" };

permit (principal == Subject::"spiffe://td#bob", action, resource == Function::"hello");
@id("no;admin") forbid (principal, action, resource) when { context.path == "/a/admin" }
  unless { principal is Workload };
"#;

fn asked(caller: Option<&Caller>, path: &str, method: &str) -> Vec<Judged> {
    let files = [File {
        name: "team.cedar".into(),
        text: FILE.into(),
    }];
    let pairs = [("team.cedar".to_owned(), FILE.to_owned())];
    let policies = Policies::compile(SCHEMA, &pairs).unwrap();
    let slice = policies.slice(ResourceKind::Function, "hello").unwrap();
    let attributes = Attributes {
        method,
        path,
        host: "localhost",
        scheme: "https",
        source_ip: "127.0.0.1",
        listener: "https",
        certificate: caller.and_then(Caller::workload),
        version: None,
        posture: None,
    };
    let facts = Explanation {
        principal: told_of(caller),
        context: told_of_context(&attributes),
        ..Explanation::default()
    };
    let mut judge = Judge::new(&slice, caller, &attributes, &facts).unwrap();
    judge.all(&files).unwrap()
}

fn token(subject: &str) -> Caller {
    let who = Who::Token {
        issuer: "spiffe://td".into(),
        subject: subject.into(),
        audiences: vec![],
        scopes: vec![],
    };
    caller_of(&who).unwrap().unwrap()
}

#[test]
fn each_policy_is_told_with_its_line_and_the_first_part_that_fails() {
    let judged = asked(Some(&token("alice")), "/a/x", "POST");
    let places: Vec<_> = judged
        .iter()
        .map(|it| (it.id.as_str(), it.line, it.effect))
        .collect();
    assert_eq!(
        places,
        [
            ("read", 2, "permit"),
            ("team.cedar/policy1", 6, "permit"),
            ("no;admin", 7, "forbid"),
        ]
    );
    let read = judged[0].failed.as_ref().unwrap();
    assert_eq!(
        (read.part, read.text.as_str()),
        ("when", r#"context.method == "GET""#)
    );
    assert_eq!(read.values.get("context.method"), Some(&json!("POST")));
    let bob = judged[1].failed.as_ref().unwrap();
    assert_eq!(bob.text, r#"principal == Subject::"spiffe://td#bob""#);
    let admin = judged[2].failed.as_ref().unwrap();
    assert_eq!(admin.values.get("context.path"), Some(&json!("/a/x")));
    assert!(judged.iter().all(|it| !it.applies));
}

#[test]
fn a_policy_that_applies_has_no_failed_part() {
    let judged = asked(Some(&token("bob")), "/a/x", "GET");
    assert!(judged[0].applies && judged[0].failed.is_none());
    assert!(judged[1].applies);
    let judged = asked(None, "/a/x", "GET");
    assert_eq!(
        judged[0].failed.as_ref().unwrap().text,
        "principal is Subject"
    );
}

#[test]
fn a_prohibition_of_the_lower_cased_path_applies_and_says_so() {
    let judged = asked(Some(&token("alice")), "/a/ADMIN", "GET");
    assert!(judged[2].applies && judged[2].lower_cased && judged[2].failed.is_none());
    let judged = asked(Some(&token("alice")), "/a/admin", "GET");
    assert!(judged[2].applies && !judged[2].lower_cased);
}

#[test]
fn an_exception_is_told_as_unless() {
    let shown = Shown {
        authority: "mesh".into(),
        spiffe_id: Some("spiffe://example.org/x".into()),
        subject: String::new(),
        serial: String::new(),
        fingerprint: String::new(),
    };
    let workload = caller_of(&Who::Certificate(shown)).unwrap();
    let judged = asked(workload.as_ref(), "/a/admin", "GET");
    let failed = judged[2].failed.as_ref().unwrap();
    assert_eq!(
        (failed.part, failed.text.as_str()),
        ("unless", "principal is Workload")
    );
}
