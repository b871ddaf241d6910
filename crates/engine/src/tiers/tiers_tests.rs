use serde_json::{Value, json};

use super::*;

const REGIONAL: &str = "https://models.regional.example:8443";

fn route(urls: &[&str]) -> snapshot::Route {
    let tier = |(number, url): (usize, &&str)| {
        json!({
            "name": format!("t{number}"), "url": url, "model": "m", "on": ["Failure"],
            "inputs": ["x"], "allInputs": false, "timeoutMillis": 1000,
        })
    };
    let tiers: Vec<Value> = urls.iter().enumerate().map(tier).collect();
    serde_json::from_value(json!({
        "name": "classify", "hosts": [], "path": {"type": "PathPrefix", "value": "/classify"},
        "headers": [], "query": [], "cookies": [], "backend": {"type": "Model", "model": "m"},
        "tiers": (!tiers.is_empty()).then_some(tiers),
    }))
    .unwrap()
}

fn policy(routes: &[&str], rule: &Value) -> EgressPolicy {
    serde_json::from_value(json!({
        "name": "p", "functions": ["f"], "workloads": [], "routes": routes, "rules": [rule],
    }))
    .unwrap()
}

fn compile(
    route: &snapshot::Route,
    policies: &[EgressPolicy],
    previous: Option<&Tiers>,
) -> Result<Option<Arc<Tiers>>, LoadError> {
    let dir = EngineDir::new("/nowhere", "key");
    let leaving = Leaving {
        policies,
        is_revoked: &|id| id.ends_with("/gone"),
        dir: &dir,
    };
    Tiers::compile(route, leaving, previous)
}

fn refusal(policies: &[EgressPolicy]) -> String {
    let refused = compile(&route(&[REGIONAL]), policies, None).err().unwrap();
    refused.to_string()
}

fn rule(methods: &[&str]) -> Value {
    json!({"to": REGIONAL, "methods": methods, "peers": []})
}

#[test]
fn a_tier_that_no_rule_allows_is_refused_with_the_rule_that_would() {
    let other = json!({"to": "https://models.regional.example", "methods": [], "peers": []});
    for policies in [
        vec![],
        vec![policy(&["another"], &rule(&[]))],
        vec![policy(&["classify"], &other)],
        vec![policy(&["classify"], &rule(&["GET"]))],
    ] {
        let said = refusal(&policies);
        let wanted = format!("allow: [{{to: {REGIONAL:?}, methods: [POST]}}]");
        assert!(said.contains(&wanted), "{said}");
        assert!(said.contains("routes: [classify]"), "{said}");
    }
    assert!(compile(&route(&[]), &[], None).unwrap().is_none());
}

#[test]
fn a_rule_for_the_route_allows_its_tier_and_a_functions_own_token_does_not() {
    let allowed = [policy(&["classify"], &rule(&["POST"]))];
    assert!(
        compile(&route(&[REGIONAL]), &allowed, None)
            .unwrap()
            .is_some()
    );
    let mut minted = rule(&[]);
    minted["credential"] = json!({
        "jwtSvid": {"audience": ["a"]}, "header": "authorization", "prefix": "Bearer ",
    });
    assert!(refusal(&[policy(&["classify"], &minted)]).contains("would"));
}

#[test]
fn what_is_as_it_was_keeps_its_connections_and_what_a_breaker_knows() {
    let allowed = [policy(&["classify"], &rule(&["POST"]))];
    let first = compile(&route(&[REGIONAL]), &allowed, None)
        .unwrap()
        .unwrap();
    let same = compile(&route(&[REGIONAL]), &allowed, Some(&first))
        .unwrap()
        .unwrap();
    assert!(Arc::ptr_eq(&first.tiers[0].egress, &same.tiers[0].egress));
    let other = [policy(&["classify"], &rule(&[]))];
    let other = compile(&route(&[REGIONAL]), &other, Some(&first))
        .unwrap()
        .unwrap();
    assert!(!Arc::ptr_eq(&first.tiers[0].egress, &other.tiers[0].egress));
}

#[test]
fn peers_that_are_revoked_are_believed_no_more() {
    let mut proved = rule(&[]);
    proved["peers"] = json!(["spiffe://td/there", "spiffe://td/gone"]);
    let dir = EngineDir::new("/nowhere", "key");
    let policies = [policy(&["classify"], &proved)];
    let leaving = Leaving {
        policies: &policies,
        is_revoked: &|id| id.ends_with("/gone"),
        dir: &dir,
    };
    let rules = rules_for(&route(&[REGIONAL]), leaving).unwrap();
    let spiffe = rules[0].spiffe.as_ref().unwrap();
    assert_eq!(spiffe.peers, ["spiffe://td/there"]);
    assert!(rules[0].breaker.is_some());
}

#[test]
fn a_length_of_json_is_digits_or_the_message_is_none() {
    let with = |text: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert(INFERENCE_HEADER, HeaderValue::from_static(text));
        json_length(&headers)
    };
    assert_eq!(json_length(&HeaderMap::new()), Ok(None));
    assert_eq!(with("12"), Ok(Some(12)));
    for text in ["", "+1", "-1", "1x", "99999999999999999999999"] {
        assert_eq!(with(text), Err(()), "{text}");
    }
}

#[test]
fn a_name_of_a_model_there_is_one_segment_of_a_path() {
    for (name, wanted) in [
        ("digits", "digits"),
        ("Digits_v2.1-a", "Digits_v2.1-a"),
        ("llama:8b@q4", "llama:8b@q4"),
        ("two words", "two%20words"),
    ] {
        assert!(is_segment(name), "{name}");
        assert_eq!(segment(name), wanted);
    }
    assert_eq!(segment("a/b%2F\u{e9}"), "a%2Fb%252F%C3%A9");
    let long = "m".repeat(257);
    for name in [
        "", ".", "..", ".m", "a/b", "a\\b", "a%2Fb", "a?b", "a#b", "a\nb", "a\u{7f}", "\u{e9}",
        &long,
    ] {
        assert!(!is_segment(name), "{name:?}");
        let mut other = route(&[REGIONAL]);
        other.tiers.as_mut().unwrap()[0].model = name.to_owned();
        let allowed = [policy(&["classify"], &rule(&["POST"]))];
        let refused = compile(&other, &allowed, None).err().unwrap().to_string();
        assert!(
            refused.contains("the name of its model is none"),
            "{refused}"
        );
    }
}
