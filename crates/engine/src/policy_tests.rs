//! What policies decide, what they are told, and what is remembered of them.

use super::*;
use crate::certificate::{Leaf, Vouched};
use crate::jwt::Verified;

/// The node's own schema.
const SCHEMA: &str = include_str!("../../../src/vedette/policy/schema.cedarschema");

const ALL: &str = r#"@id("all") permit(principal is Subject, action, resource);"#;

fn caller(subject: &str) -> Caller {
    let token = Verified {
        issuer: "spiffe://td".into(),
        subject: subject.into(),
        audiences: vec![],
        scopes: vec!["read".into()],
        expires_at: u64::MAX,
        bound_to: None,
        id: None,
        key: "".into(),
    };
    Caller::new(token).unwrap()
}

fn slice(texts: &[&str], function: &str) -> Slice {
    let named = |(index, text): (usize, &&str)| (format!("{index}.cedar"), (*text).to_owned());
    let files: Vec<_> = texts.iter().enumerate().map(named).collect();
    let policies = Policies::compile(SCHEMA, &files).unwrap();
    policies.slice(ResourceKind::Function, function).unwrap()
}

pub fn request(path: &str) -> Attributes<'_> {
    Attributes {
        method: "GET",
        path,
        host: "localhost",
        scheme: "https",
        source_ip: "127.0.0.1",
        listener: "https",
        certificate: None,
        version: None,
        posture: None,
    }
}

fn check(schema: &str, policies: &[(String, String)]) -> Report {
    check_files(schema, policies).0
}

#[test]
fn without_a_policy_nothing_is_allowed() {
    let decision = slice(&[], "hello").decide(Some(&caller("alice")), &request("/hello"));
    assert!(!decision.is_allowed && !decision.has_errors);
    assert!(decision.policies.is_empty());
}

#[test]
fn a_permit_for_subjects_is_none_for_nobody() {
    let slice = slice(&[ALL], "hello");
    let allowed = slice.decide(Some(&caller("alice")), &request("/hello"));
    assert!(allowed.is_allowed);
    assert_eq!(*allowed.policies, ["all".to_owned()]);
    assert!(!slice.decide(None, &request("/hello")).is_allowed);
}

#[test]
fn a_policy_for_one_function_is_not_in_the_slice_of_another() {
    let own = r#"permit(principal, action, resource == Function::"open");"#;
    assert!(
        slice(&[own], "open")
            .decide(None, &request("/open"))
            .is_allowed
    );
    assert!(
        !slice(&[own], "closed")
            .decide(None, &request("/closed"))
            .is_allowed
    );
}

#[test]
fn a_forbid_holds_for_every_case_of_a_path() {
    let forbid =
        r#"@id("no") forbid(principal, action, resource) when { context.path like "/admin*" };"#;
    let slice = slice(&[ALL, forbid], "hello");
    for path in ["/admin", "/ADMIN", "/Admin/x"] {
        let decision = slice.decide(Some(&caller("alice")), &request(path));
        assert!(!decision.is_allowed, "{path}");
        assert_eq!(*decision.policies, ["no".to_owned()]);
    }
    assert!(
        slice
            .decide(Some(&caller("alice")), &request("/Other"))
            .is_allowed
    );
}

#[test]
fn a_permit_holds_for_one_case_only() {
    let permit = r#"permit(principal, action, resource) when { context.path like "/Files/*" };"#;
    let slice = slice(&[permit], "hello");
    assert!(slice.decide(None, &request("/Files/x")).is_allowed);
    assert!(!slice.decide(None, &request("/files/x")).is_allowed);
}

#[test]
fn a_policy_that_cannot_be_evaluated_closes() {
    let broken = r#"forbid(principal, action, resource) when { context.sourceIp.isInRange(ip(context.host)) };"#;
    let report = check(SCHEMA, &[("broken.cedar".into(), broken.into())]);
    // Strict validation refuses it at load; were it let in, it would decide against the request.
    assert!(!report.errors.is_empty());
    let overflow = r#"forbid(principal, action, resource) when { 9223372036854775807 + 1 > 0 };"#;
    let decision = slice(&[ALL, overflow], "hello").decide(Some(&caller("alice")), &request("/"));
    assert!(!decision.is_allowed && decision.has_errors);
}

#[test]
fn what_a_slice_reads_is_what_its_decisions_depend_on() {
    let mentions = |texts: &[&str]| {
        let flags = slice(texts, "hello").mentions();
        let named = ATTRIBUTES.iter().zip(flags).filter(|(_, is_read)| *is_read);
        named.map(|(name, _)| *name).collect::<Vec<_>>()
    };
    assert!(mentions(&[ALL]).is_empty());
    let path = r#"permit(principal, action, resource) when { context.path == "/a" };"#;
    assert_eq!(mentions(&[ALL, path]), ["path"]);
    let two = r#"permit(principal, action, resource) when { context has method && context.method == "GET" && context.sourceIp.isLoopback() };"#;
    assert_eq!(mentions(&[two]), ["method", "sourceIp"]);
    let whole = r#"permit(principal, action, resource) when { context == context };"#;
    assert_eq!(mentions(&[whole]), ATTRIBUTES);
}

fn model_slice(texts: &[&str], model: &str) -> Slice {
    let named = |(index, text): (usize, &&str)| (format!("{index}.cedar"), (*text).to_owned());
    let files: Vec<_> = texts.iter().enumerate().map(named).collect();
    let policies = Policies::compile(SCHEMA, &files).unwrap();
    policies.slice(ResourceKind::Model, model).unwrap()
}

#[test]
fn who_may_invoke_may_not_predict_and_the_other_way_round() {
    let invoke = r#"permit(principal is Subject, action == Action::"invoke", resource);"#;
    let predict = r#"permit(principal is Subject, action == Action::"predict", resource);"#;
    let both = r#"permit(principal is Subject, action in [Action::"invoke", Action::"predict"], resource);"#;
    let alice = caller("alice");
    for (text, may_invoke, may_predict) in [
        (invoke, true, false),
        (predict, false, true),
        (both, true, true),
        (ALL, true, true),
    ] {
        let invoked = slice(&[text], "hello").decide(Some(&alice), &request("/hello"));
        assert_eq!(invoked.is_allowed, may_invoke, "{text}");
        let version = Version::new(1);
        let asked = Attributes {
            version: Some(&version),
            ..request("/v2/models/hello")
        };
        let predicted = model_slice(&[text], "hello").decide(Some(&alice), &asked);
        assert_eq!(predicted.is_allowed, may_predict, "{text}");
    }
}

#[test]
fn decisions_about_versions_are_remembered_by_version_only_where_one_is_read() {
    let flat = model_slice(&[ALL], "digits");
    assert_eq!(flat.is_for_all(), Some(ResourceKind::Model));
    assert_eq!(flat.mentions(), [false; ATTRIBUTES.len()]);
    let read =
        r#"permit(principal, action == Action::"predict", resource) when { context.version > 1 };"#;
    let reads = model_slice(&[read], "digits");
    let named = ATTRIBUTES.iter().zip(reads.mentions());
    let named: Vec<_> = named.filter(|it| it.1).map(|it| *it.0).collect();
    assert_eq!(named, ["version"]);
    let version = Version::new(7);
    let asked = Attributes {
        version: Some(&version),
        ..request("/")
    };
    assert!(asked.values().contains(&"7"));
}

#[test]
fn only_a_prediction_has_a_version() {
    for wrong in [
        r#"permit(principal, action, resource) when { context.version > 1 };"#,
        r#"permit(principal, action == Action::"invoke", resource) when { context.version > 1 };"#,
        r#"permit(principal, action == Action::"predict", resource is Function);"#,
        r#"permit(principal, action == Action::"invoke", resource == Model::"digits");"#,
    ] {
        let report = check(SCHEMA, &[("a.cedar".into(), wrong.into())]);
        let is_found = !report.errors.is_empty() || !report.warnings.is_empty();
        assert!(is_found, "{wrong}");
    }
}

#[test]
fn a_mistake_is_found_at_its_line() {
    let text = "permit(principal, action, resource);\npermit(principal, action, resource)\nwhen { context.pth == \"/\" };\n";
    let report = check(SCHEMA, &[("mine.cedar".into(), text.into())]);
    let problem = report.errors.first().unwrap();
    assert_eq!((problem.file.as_str(), problem.line), ("mine.cedar", 3));
    let report = check(
        SCHEMA,
        &[("mine.cedar".into(), "\n\npermit(principal".into())],
    );
    assert_eq!(report.errors.first().unwrap().line, 3);
}

#[test]
fn a_forbid_with_capitals_is_warned_of() {
    let text = r#"forbid(principal, action, resource) when { context.path like "/Admin*" };"#;
    let text = format!("{ALL}\n\n@id(\"no\")\n{text}");
    let report = check(SCHEMA, &[("a.cedar".into(), text)]);
    let lines: Vec<_> = report.warnings.iter().map(|it| it.line).collect();
    assert_eq!(lines, [3]);
    let text = r#"forbid(principal, action, resource) when { context.method == "GET" };"#;
    assert!(
        check(SCHEMA, &[("a.cedar".into(), text.into())])
            .warnings
            .is_empty()
    );
}

#[test]
fn a_decision_is_for_all_where_no_policy_tells_resources_apart() {
    assert_eq!(
        slice(&[ALL], "hello").is_for_all(),
        Some(ResourceKind::Function)
    );
    let typed = r#"permit(principal, action, resource is Function);"#;
    assert!(slice(&[typed], "hello").is_for_all().is_some());
    for tells in [
        r#"permit(principal, action, resource) when { resource.name == "x" };"#,
        r#"permit(principal, action, resource) unless { resource == Function::"x" };"#,
        r#"permit(principal, action, resource in Function::"x");"#,
        r#"forbid(principal, action, resource == Function::"hello");"#,
    ] {
        assert_eq!(slice(&[ALL, tells], "hello").is_for_all(), None, "{tells}");
    }
    // A policy about somebody else leaves the others together.
    let other = r#"forbid(principal, action, resource == Function::"other");"#;
    assert!(slice(&[ALL, other], "hello").is_for_all().is_some());
}

#[test]
fn a_file_that_was_checked_is_named_anew_each_time() {
    let broken = "permit(principal";
    for name in ["one.cedar", "two.cedar"] {
        let report = check(SCHEMA, &[(name.into(), broken.into())]);
        assert_eq!(report.errors.first().unwrap().file, name);
    }
    let twice = [("a".into(), broken.into()), ("b".into(), broken.into())];
    let files: Vec<_> = check(SCHEMA, &twice)
        .errors
        .into_iter()
        .map(|it| it.file)
        .collect();
    assert_eq!(files, ["a", "b"]);
}

fn workload(authority: &str, id: &str) -> Caller {
    let workload = Workload::new(authority, Some(id.into()), &Leaf::default());
    Caller::of_certificate(Vouched {
        workload,
        expires_at: u64::MAX,
    })
    .unwrap()
}

#[test]
fn a_policy_for_subjects_is_none_for_workloads_and_the_other_way_round() {
    let shop = workload("mesh", "spiffe://example.org/shop");
    assert!(
        !slice(&[ALL], "hello")
            .decide(Some(&shop), &request("/hello"))
            .is_allowed
    );
    let own = r#"permit(principal == Workload::"spiffe://example.org/shop", action, resource)
        when { principal.authority == "mesh" && principal has spiffeId };"#;
    let slice = slice(&[own], "hello");
    assert!(slice.decide(Some(&shop), &request("/hello")).is_allowed);
    assert!(
        !slice
            .decide(Some(&caller("alice")), &request("/hello"))
            .is_allowed
    );
    let other = workload("corp", "spiffe://example.org/shop");
    assert!(!slice.decide(Some(&other), &request("/hello")).is_allowed);
}

#[test]
fn a_certificate_beside_a_token_is_in_the_context() {
    let both = r#"permit(principal is Subject, action, resource)
        when { context has certificate && context.certificate.authority == "mesh" };"#;
    let slice = slice(&[both], "hello");
    assert!(slice.mentions()[6]);
    let shop = workload("mesh", "spiffe://example.org/shop");
    let with = Attributes {
        certificate: shop.workload(),
        ..request("/hello")
    };
    assert!(slice.decide(Some(&caller("alice")), &with).is_allowed);
    assert!(
        !slice
            .decide(Some(&caller("alice")), &request("/hello"))
            .is_allowed
    );
    assert!(!slice.decide(Some(&shop), &with).is_allowed);
}

#[test]
fn a_statement_is_where_its_first_word_is() {
    let text = "// one; two\n\n@id(\"a;\\\"b\")\npermit(principal, action, resource); forbid(principal, action, resource);\n  // end";
    assert_eq!(statements(text), [(3, 1), (4, 38)]);
    assert_eq!(statements(""), []);
    assert_eq!(statements("\"never closed; "), [(1, 1)]);
}

#[test]
fn policies_are_outlined_with_their_scope_and_the_names_in_them() {
    let text = r#"@id("one")
permit (principal is Subject, action == Action::"invoke", resource == Function::"hello");
forbid (principal == Anonymous::"anonymous", action, resource is Route)
when { resource == Route::"shop" || resource == Route::"shop" };
permit (principal, action, resource);
"#;
    let request = serde_json::json!({
        "schema": {"name": "schema", "text": SCHEMA},
        "policies": [{"name": "team.cedar", "text": text}],
    });
    let answer = check_policies(request.to_string().as_bytes()).unwrap();
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(answer["errors"], serde_json::json!([]));
    assert_eq!(
        answer["outlines"],
        serde_json::json!([
            {
                "file": "team.cedar", "line": 1, "id": "one", "effect": "permit",
                "principal": {"type": "Subject", "id": null},
                "actions": ["invoke"],
                "resource": {"type": "Function", "id": "hello"},
                "conditional": false,
                "names": [{"type": "Function", "id": "hello"}],
            },
            {
                "file": "team.cedar", "line": 3, "id": "team.cedar/policy1", "effect": "forbid",
                "principal": {"type": "Anonymous", "id": "anonymous"},
                "actions": [],
                "resource": {"type": "Route", "id": null},
                "conditional": true,
                "names": [{"type": "Route", "id": "shop"}],
            },
            {
                "file": "team.cedar", "line": 5, "id": "team.cedar/policy2", "effect": "permit",
                "principal": {"type": null, "id": null},
                "actions": [],
                "resource": {"type": null, "id": null},
                "conditional": false,
                "names": [],
            },
        ])
    );
}

const GRANT: &str = r#"@id("grant alice")
permit(principal == Subject::"spiffe://td#alice", action == Action::"invoke", resource == Function::"hello")
when { ["GET"].contains(context.method) };"#;

fn granted_until(ends: u64) -> Slice {
    let files = [("grant-alice.cedar".to_owned(), GRANT.to_owned())];
    let endings = [("grant-alice.cedar".to_owned(), ends)].into();
    let policies = Policies::with_endings(SCHEMA, &files, &endings).unwrap();
    policies.slice(ResourceKind::Function, "hello").unwrap()
}

#[test]
fn a_policy_permits_until_it_ends_and_the_decision_says_until_when() {
    let alice = caller("alice");
    let decide = |ends| granted_until(ends).decide(Some(&alice), &request("/hello"));
    let ends = clock::onward_seconds() + 3_600;
    let decision = decide(ends);
    assert!(decision.is_allowed && !decision.is_over());
    assert_eq!(decision.until, Some(ends));
    assert_eq!(*decision.policies, ["grant alice".to_owned()]);
    let over = decide(clock::onward_seconds());
    assert!(!over.is_allowed);
    assert_eq!((over.until, over.policies.len()), (None, 0));
}

#[test]
fn cedar_is_not_asked_about_policies_that_have_ended() {
    let alive = |ends| granted_until(ends).rules.alive().policies().count();
    assert_eq!(alive(clock::onward_seconds() + 3_600), 1);
    assert_eq!(alive(clock::onward_seconds()), 0);
}

#[test]
fn a_decision_that_does_not_rest_on_it_says_nothing_of_an_ending() {
    let slice = granted_until(clock::onward_seconds() + 3_600);
    let denied = slice.decide(Some(&caller("bob")), &request("/hello"));
    assert!(!denied.is_allowed);
    assert_eq!(denied.until, None);
}

#[test]
fn only_a_policy_that_is_walked_may_end() {
    let text = r#"permit(principal, action, resource) when { context.path.contains("x") };"#;
    let files = [("a.cedar".to_owned(), text.to_owned())];
    assert!(Policies::with_endings(SCHEMA, &files, &HashMap::new()).is_err());
    let text = "permit(principal, action, resource) when { 1 + 1 == 2 };";
    let files = [("a.cedar".to_owned(), text.to_owned())];
    assert!(Policies::with_endings(SCHEMA, &files, &HashMap::new()).is_ok());
    let endings = [("a.cedar".to_owned(), u64::MAX)].into();
    let refused = Policies::with_endings(SCHEMA, &files, &endings);
    assert_eq!(refused.err().unwrap().code, "policy_invalid");
}

#[test]
fn a_decision_is_remembered_until_a_policy_ends_that_it_rests_on() {
    let mut memory = crate::worker::Memory::default();
    let mut made = 0;
    for until in [Some(clock::onward_seconds()), None, Some(0)] {
        memory.decision(|| {
            made += 1;
            Decision {
                is_allowed: true,
                has_errors: false,
                policies: Arc::new([]),
                until,
            }
        });
    }
    assert_eq!(made, 2, "the first was over at once, the second lasts");
}

#[test]
fn what_is_known_of_a_caller_decides_until_it_ends() {
    let text = r#"@id("encrypted") permit(principal, action, resource)
        when { context.posture.contains("disk-encrypted") };"#;
    let slice = slice(&[text], "hello");
    assert!(slice.reads_posture());
    let decide = |facts: Option<&posture::Facts>| {
        let attributes = Attributes {
            version: None,
            posture: facts,
            ..request("/hello")
        };
        slice.decide(Some(&caller("alice")), &attributes)
    };
    assert!(!decide(None).is_allowed);
    let other = posture::Facts::new(vec!["patched".to_owned()], Some(9));
    let denied = decide(Some(&other));
    assert_eq!((denied.is_allowed, denied.until), (false, Some(9)));
    let facts = vec!["patched".to_owned(), "disk-encrypted".to_owned()];
    let allowed = decide(Some(&posture::Facts::new(facts, Some(7))));
    assert_eq!((allowed.is_allowed, allowed.until), (true, Some(7)));
}

#[test]
fn what_is_known_is_looked_up_only_where_a_policy_reads_it() {
    assert!(!slice(&[ALL], "hello").reads_posture());
    let facts = posture::Facts::new(vec!["patched".to_owned()], Some(9));
    let attributes = Attributes {
        version: None,
        posture: Some(&facts),
        ..request("/hello")
    };
    let decision = slice(&[ALL], "hello").decide(Some(&caller("alice")), &attributes);
    assert_eq!((decision.is_allowed, decision.until), (true, None));
}
