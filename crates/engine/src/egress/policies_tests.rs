//! That a function may call what policies for it say, and on a route what those for the route say besides.

use http::Uri;
use serde_json::{Value, json};
use vedette_upstream::Denied;

use super::*;

fn function(name: &str, hosts: &[&str]) -> Function {
    serde_json::from_value(json!({
        "name": name, "component": "sha256:aa", "size": 8, "env": {}, "config": {},
        "allowedHosts": hosts,
        "limits": {
            "cpuMillis": 1, "wallMillis": 1, "memoryBytes": 1, "requestBytes": 1,
            "responseBytes": 1, "concurrency": 1,
        },
    }))
    .unwrap()
}

fn route(name: &str, backend: &Value) -> snapshot::Route {
    serde_json::from_value(json!({
        "name": name, "hosts": [], "path": {"type": "PathPrefix", "value": format!("/{name}")},
        "headers": [], "query": [], "cookies": [], "backend": backend,
    }))
    .unwrap()
}

fn leads_to(name: &str, function: &str) -> snapshot::Route {
    route(name, &json!({"type": "Function", "function": function}))
}

fn rule(to: &str) -> Value {
    json!({"to": to, "methods": [], "peers": []})
}

fn policy(functions: &[&str], routes: &[&str], rules: &[Value]) -> EgressPolicy {
    let routes = (!routes.is_empty()).then_some(routes);
    serde_json::from_value(json!({
        "name": "p", "functions": functions, "workloads": [], "routes": routes, "rules": rules,
    }))
    .unwrap()
}

fn ways(function: &Function, policies: &[EgressPolicy], routes: &[snapshot::Route]) -> Ways {
    let dir = EngineDir::new("/nowhere", "key");
    ways_of_function(function, policies, &answered(policies, routes), &dir).unwrap()
}

fn call(rules: &EgressRules, to: &str) -> Result<(), Denied> {
    let uri: Uri = to.parse().unwrap();
    rules.call(&uri, &Method::GET).map(drop)
}

const OWN: &str = "https://own.example.com";
const LISTED: &str = "https://listed.example.com";
const EXTRA: &str = "https://extra.example.com";

#[test]
fn a_route_adds_to_what_its_function_may() {
    let shop = function("shop", &[LISTED]);
    let policies = [
        policy(&["shop"], &[], &[rule(OWN)]),
        policy(&[], &["a", "gone"], &[rule(EXTRA)]),
    ];
    let routes = [leads_to("a", "shop"), leads_to("b", "shop")];
    let ways = ways(&shop, &policies, &routes);
    for to in [OWN, LISTED, EXTRA] {
        assert!(call(ways.on("a"), to).is_ok(), "{to}");
        assert_eq!(call(ways.on("b"), to).is_ok(), to != EXTRA, "{to}");
        assert_eq!(call(ways.on("gone"), to).is_ok(), to != EXTRA, "{to}");
    }
    let denied = call(ways.on("b"), EXTRA).unwrap_err();
    assert_eq!(denied, Denied::Destination(Some(EXTRA.to_owned())));
}

#[test]
fn a_route_is_for_the_functions_that_answer_it_and_no_others() {
    let policies = [policy(&[], &["mixed", "fixed"], &[rule(EXTRA)])];
    let services = json!({"type": "Services", "services": [
        {"kind": "Function", "name": "shop", "weight": 1},
        {"kind": "Upstream", "name": "other", "weight": 1},
    ]});
    let fixed = json!({"type": "Static", "status": 200, "contentType": "a/b", "body": ""});
    let routes = [route("fixed", &fixed), route("mixed", &services)];
    let shop = ways(&function("shop", &[]), &policies, &routes);
    assert!(call(shop.on("mixed"), EXTRA).is_ok());
    assert!(call(shop.on("fixed"), EXTRA).is_err());
    let other = ways(&function("other", &[]), &policies, &routes);
    assert!(other.on_routes.is_empty());
    assert!(call(other.on("mixed"), EXTRA).is_err());
}

#[test]
fn what_a_rule_has_counted_it_has_counted_on_all_routes() {
    let rated = json!({
        "to": OWN, "methods": [], "peers": [],
        "rate": {"requests": 2, "periodMillis": 3_600_000},
    });
    let policies = [
        policy(&["shop"], &[], &[rated]),
        policy(&[], &["a", "b"], &[rule(EXTRA)]),
    ];
    let routes = [leads_to("a", "shop"), leads_to("b", "shop")];
    let ways = ways(&function("shop", &[]), &policies, &routes);
    assert!(call(ways.on("a"), OWN).is_ok());
    assert!(call(ways.on("b"), OWN).is_ok());
    for route in ["a", "b", "c"] {
        let denied = call(ways.on(route), OWN);
        assert!(matches!(denied, Err(Denied::Rate(_))), "{route}");
    }
}

#[test]
fn ways_are_the_same_when_they_say_the_same_on_each_route() {
    let shop = function("shop", &[]);
    let routes = [leads_to("a", "shop"), leads_to("b", "shop")];
    let of = |named: &[&str]| ways(&shop, &[policy(&[], named, &[rule(EXTRA)])], &routes);
    assert!(of(&["a"]) == of(&["a"]));
    assert!(of(&["a"]) != of(&["b"]));
    assert!(of(&["a"]) != of(&["a", "b"]));
}

#[test]
fn a_program_is_given_no_jwt_svid() {
    let minted = json!({
        "to": OWN, "methods": [], "peers": [],
        "credential": {"jwtSvid": {"audience": ["x"]}, "header": "authorization", "prefix": ""},
    });
    let mut with = policy(&[], &[], &[minted]);
    with.workloads = vec!["program".to_owned()];
    let dir = EngineDir::new("/nowhere", "key");
    let refused = workloads(&[with], &dir, None).err().unwrap();
    assert_eq!(refused.code, "credential_invalid");
}
