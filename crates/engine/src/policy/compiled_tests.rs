//! Whatever policies and requests are: the walk says what Cedar says, or nothing.

use std::collections::HashSet;
use std::str::FromStr;
use std::sync::Arc;

use cedar_policy::{EntityId, EntityUid, PolicyId, PolicySet};

use super::super::{Endings, Rules, Slice, string, type_name};
use super::*;
use crate::models::Version;

const SUBJECTS: [&str; 4] = ["alice", "mallory", "device-7", ""];
const SCOPES: [&str; 4] = ["read", "write", "admin", "a*b"];
const METHODS: [&str; 3] = ["GET", "PUT", "DELETE"];
const PATHS: [&str; 7] = [
    "/",
    "/admin",
    "/a/.git/x",
    "/x.bak",
    "/ä/aab",
    "/*",
    "/a\"b\\c",
];
const HOSTS: [&str; 3] = ["localhost", "internal.example", "a"];
const ADDRESSES: [&str; 8] = [
    "127.0.0.1",
    "127.9.0.1",
    "192.0.2.77",
    "224.0.0.9",
    "::1",
    "2001:db8::5",
    "ff02::1",
    "0.0.0.0",
];
const RANGES: [&str; 10] = [
    "192.0.2.0/24",
    "192.0.2.77/32",
    "10.0.0.5/8",
    "0.0.0.0/0",
    "::/0",
    "2001:db8::/32",
    "::1",
    "127.0.0.0/7",
    "224.0.0.0/4",
    "192.0.2.77/25",
];
const PATTERNS: [&str; 11] = [
    "*", "", "/", "*/admin*", "/*", "*aab", "*a*b", "/a*/x", "*.bak", r"/\*", "*a*a*",
];
const ORDERS: [&str; 6] = ["==", "!=", "<", "<=", ">", ">="];
const NAMES: [&str; 3] = ["hello", "orders", "x"];

/// A small generator (Knuth's MMIX): the same cases in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }

    fn of<'a>(&mut self, items: &[&'a str]) -> &'a str {
        items[self.roll(items.len())]
    }

    fn quoted(&mut self) -> String {
        let all = [&SUBJECTS[..], &SCOPES, &METHODS, &PATHS, &HOSTS, &NAMES].concat();
        format!("{:?}", self.of(&all))
    }

    fn text(&mut self) -> String {
        match self.roll(12) {
            0..4 => self.quoted(),
            4 => "context.method".into(),
            5 => "context.path".into(),
            6 => "context.host".into(),
            7 => "context.listener".into(),
            8 => "principal.subject".into(),
            9 => "principal.issuer".into(),
            10 => "context.certificate.spiffeId".into(),
            _ => "resource.name".into(),
        }
    }

    fn set(&mut self) -> String {
        match self.roll(5) {
            0 => "principal.scopes".into(),
            4 => "context.posture".into(),
            1 => "principal.audiences".into(),
            2 => format!("[{}]", self.quoted()),
            _ => format!("[{}, {}, {}]", self.quoted(), self.quoted(), self.quoted()),
        }
    }

    fn entity(&mut self) -> String {
        match self.roll(6) {
            0 => "principal".into(),
            1 => "resource".into(),
            2 => format!("Function::{:?}", self.of(&[NAMES[0], NAMES[1], "shop"])),
            3 => format!("{}::{:?}", self.of(&["Route", "Model"]), self.of(&NAMES)),
            4 => format!("Subject::\"spiffe://td#{}\"", self.of(&SUBJECTS)),
            _ => "Anonymous::\"anonymous\"".into(),
        }
    }

    fn number(&mut self) -> String {
        match self.roll(3) {
            0 => self.of(&["-1", "0", "1", "2", "9007199254740992"]).into(),
            _ => "context.version".into(),
        }
    }

    fn address(&mut self) -> String {
        match self.roll(3) {
            0 => format!("ip({:?})", self.of(&RANGES)),
            _ => "context.sourceIp".into(),
        }
    }

    fn condition(&mut self, depth: usize) -> String {
        let next = depth.saturating_sub(1);
        if depth > 0 && self.roll(2) == 0 {
            let (a, b) = (self.condition(next), self.condition(next));
            return match self.roll(4) {
                0 => format!("!({a})"),
                1 => format!("({a}) && ({b})"),
                2 => format!("({a}) || ({b})"),
                _ => format!("if {a} then {b} else ({})", self.condition(next)),
            };
        }
        match self.roll(18) {
            0 => format!("{} == {}", self.text(), self.text()),
            1 => format!("{} != {}", self.text(), self.text()),
            2 | 3 => format!("{} like \"{}\"", self.text(), self.of(&PATTERNS)),
            4 => format!("{}.contains({})", self.set(), self.text()),
            5 => format!("{}.containsAll({})", self.set(), self.set()),
            6 => format!("{}.containsAny({})", self.set(), self.set()),
            7 => format!("{}.isEmpty()", self.set()),
            8 => format!("{}.isInRange({})", self.address(), self.address()),
            9 => {
                let asks = ["isLoopback", "isMulticast", "isIpv4", "isIpv6"];
                format!("{}.{}()", self.address(), self.of(&asks))
            }
            10 => {
                let kinds = [
                    "Subject",
                    "Workload",
                    "Anonymous",
                    "Function",
                    "Route",
                    "Model",
                ];
                format!("{} is {}", self.entity(), self.of(&kinds))
            }
            11 => format!("{} == {}", self.entity(), self.entity()),
            12 => format!(
                "{} in [{}, {}]",
                self.entity(),
                self.entity(),
                self.entity()
            ),
            13 => self
                .of(&["context has certificate", "context has version"])
                .into(),
            16 => format!("{} {} {}", self.number(), self.of(&ORDERS), self.number()),
            17 => format!(
                "context has version && {} {} 2",
                self.number(),
                self.of(&ORDERS)
            ),
            14 => {
                let things = [
                    "principal has issuer",
                    "principal has spiffeId",
                    "resource has name",
                ];
                self.of(&things).into()
            }
            // Of no type that the walk knows.
            _ => self
                .of(&[
                    "1 + 1 == 2",
                    "[1, 2].contains(context.version)",
                    "{a: 1} == {a: 1}",
                    "context has nothing",
                    "[] == []",
                ])
                .into(),
        }
    }

    fn policy(&mut self) -> String {
        let effect = self.of(&["permit", "permit", "forbid"]);
        let principal = self.of(&[
            "principal",
            "principal",
            "principal is Subject",
            "principal is Workload",
            "principal == Subject::\"spiffe://td#alice\"",
            "principal in Anonymous::\"anonymous\"",
            "principal is Subject in Subject::\"spiffe://td#alice\"",
        ]);
        let action = self.of(&[
            "action",
            "action",
            "action",
            "action == Action::\"invoke\"",
            "action in [Action::\"invoke\"]",
            "action in [Action::\"invoke\", Action::\"predict\"]",
            "action in [Action::\"invoke\", Action::\"predict\"]",
            "action == Action::\"predict\"",
            "action == Action::\"other\"",
        ]);
        let resource = self.of(&[
            "resource",
            "resource",
            "resource",
            "resource",
            "resource",
            "resource is Function",
            "resource == Function::\"hello\"",
            "resource in Route::\"hello\"",
            "resource is Model",
            "resource == Model::\"hello\"",
        ]);
        let kind = self.of(&["when", "unless"]);
        let condition = self.condition(3);
        format!("{effect}({principal}, {action}, {resource}) {kind} {{ {condition} }};\n")
    }

    fn caller(&mut self) -> Option<Caller> {
        match self.roll(4) {
            0 => return None,
            // None of the names that resources have: Cedar takes an entity once.
            1 => return Some(Caller::of_function("shop", "spiffe://td/fn/shop".into())),
            _ => {}
        }
        let scopes = (0..self.roll(3)).map(|_| self.of(&SCOPES).to_owned());
        let token = Verified {
            issuer: "spiffe://td".into(),
            scopes: scopes.collect(),
            subject: self.of(&SUBJECTS).into(),
            audiences: vec!["read".into()],
            expires_at: u64::MAX,
            bound_to: None,
            id: None,
            key: "".into(),
        };
        Some(Caller::new(token).unwrap())
    }
}

fn workload(spiffe_id: Option<&str>) -> Workload {
    Workload {
        authority: "office".into(),
        spiffe_id: spiffe_id.map(str::to_owned),
        subject: "alice".into(),
        serial: "7f".into(),
        fingerprint: "00".into(),
        thumbprint: [0; 32],
        issuers: Vec::new(),
        key: "office 00".into(),
    }
}

fn slice(text: &str, kind: ResourceKind, name: &str) -> Slice {
    let policies = PolicySet::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let policies: Vec<_> = policies
        .policies()
        .map(|policy| policy.new_id(PolicyId::new(format!("file/{}", policy.id()))))
        .collect();
    let uid = EntityUid::from_type_name_and_id(type_name(kind.type_name()), EntityId::new(name));
    let attributes = [("name".to_owned(), string(name))].into();
    let entity = cedar_policy::Entity::new(uid.clone(), attributes, HashSet::default()).unwrap();
    Slice {
        rules: Arc::new(Rules::new(&policies, &[], &Endings::new()).unwrap()),
        kind,
        is_shared: false,
        resource: uid,
        entity,
    }
}

#[test]
fn the_walk_says_what_cedar_says_or_nothing() {
    let mut dice = Dice(7);
    let (mut decided, mut asked, mut allowed) = (0, 0, 0);
    for _ in 0..4_000 {
        let text: String = (0..=dice.roll(3)).map(|_| dice.policy()).collect();
        let kind = ResourceKind::ALL[dice.roll(3)];
        let slice = slice(&text, kind, dice.of(&NAMES));
        let version = Version::new([1, 2, 1 << 53][dice.roll(3)]);
        let caller = dice.caller();
        let workload = workload([None, Some("spiffe://td/a")][dice.roll(2)]);
        let known = crate::posture::Facts::new(vec![dice.of(&SCOPES).to_owned()], None);
        let attributes = Attributes {
            method: dice.of(&METHODS),
            path: dice.of(&PATHS),
            host: dice.of(&HOSTS),
            scheme: "https",
            source_ip: dice.of(&ADDRESSES),
            listener: "a",
            certificate: [None, Some(&workload)][dice.roll(2)],
            version: (kind == ResourceKind::Model).then_some(&version),
            posture: [None, Some(&known)][dice.roll(2)],
        };
        let said = slice
            .ask(&slice.rules.policies, caller.as_ref(), &attributes)
            .unwrap();
        asked += 1;
        if let Some(decision) = slice.walk(caller.as_ref(), &attributes) {
            decided += 1;
            allowed += usize::from(decision.is_allowed);
            let ours = (decision.is_allowed, decision.has_errors, decision.policies);
            let cedars = (said.is_allowed, said.has_errors, said.policies);
            assert_eq!(ours, cedars, "{text}\n{attributes:?}\n{caller:?}");
        }
    }
    assert!(decided * 2 > asked, "{decided} of {asked} were decided");
    assert!(
        allowed * 12 > decided,
        "{allowed} of {decided} were allowed"
    );
}

#[test]
fn a_certificate_s_workload_is_walked_like_cedar_does() {
    let text = r#"
        permit(principal is Workload, action, resource)
        when { principal.authority == "office" && principal has spiffeId && principal.spiffeId like "spiffe://*/a" };
        forbid(principal, action, resource) when { context has certificate && context.certificate.serial == "00" };"#;
    let slice = slice(text, ResourceKind::Function, "hello");
    for (id, is_allowed) in [
        (Some("spiffe://td/a"), true),
        (Some("spiffe://td/b"), false),
        (None, false),
    ] {
        let workload = workload(id);
        let caller = Caller::of_certificate(crate::certificate::Vouched {
            workload: self::workload(id),
            expires_at: u64::MAX,
        });
        let attributes = Attributes {
            method: "GET",
            path: "/",
            host: "localhost",
            scheme: "https",
            source_ip: "::1",
            listener: "https",
            certificate: Some(&workload),
            version: None,
            posture: None,
        };
        let caller = caller.unwrap();
        let walked = slice.walk(Some(&caller), &attributes).unwrap();
        let said = slice
            .ask(&slice.rules.policies, Some(&caller), &attributes)
            .unwrap();
        assert_eq!(walked.is_allowed, is_allowed, "{id:?}");
        assert_eq!(
            (walked.is_allowed, walked.policies),
            (said.is_allowed, said.policies)
        );
    }
}

#[test]
fn the_version_of_a_model_is_compared_without_cedar_and_as_cedar_does() {
    for (condition, allowed) in [
        ("context.version == 3", [false, false, true, false]),
        ("context.version != 3", [true, true, false, true]),
        ("context.version < 3", [true, true, false, false]),
        ("context.version <= 3", [true, true, true, false]),
        ("context.version > 2", [false, false, true, true]),
        ("2 >= context.version", [true, true, false, false]),
        (
            "context has version && !(context.version < 2)",
            [false, true, true, true],
        ),
    ] {
        let text = format!(
            "permit(principal, action == Action::\"predict\", resource is Model) when {{ {condition} }};"
        );
        let slice = slice(&text, ResourceKind::Model, "hello");
        for (number, allowed) in (1..).zip(allowed) {
            let version = Version::new(number);
            let attributes = Attributes {
                version: Some(&version),
                ..super::super::tests::request("/v2/models/hello/infer")
            };
            let walked = slice.walk(None, &attributes).unwrap();
            let said = slice.ask(&slice.rules.policies, None, &attributes).unwrap();
            assert!(slice.rules.rest.is_empty(), "{condition}");
            assert_eq!(
                (walked.is_allowed, said.is_allowed),
                (allowed, allowed),
                "{condition} {number}"
            );
        }
    }
}

#[test]
fn what_a_policy_may_not_read_of_a_function_it_does_not_get() {
    let text = "permit(principal, action, resource) when { context.version >= 1 };";
    let slice = slice(text, ResourceKind::Function, "hello");
    let attributes = super::super::tests::request("/hello");
    assert!(slice.walk(None, &attributes).is_none());
    assert!(slice.decide(None, &attributes).has_errors);
}

#[test]
fn an_attribute_that_is_absent_is_left_to_cedar() {
    let text = r#"permit(principal, action, resource) when { principal.subject == "alice" };"#;
    let slice = slice(text, ResourceKind::Function, "hello");
    let attributes = Attributes {
        method: "GET",
        path: "/",
        host: "localhost",
        scheme: "https",
        source_ip: "::1",
        listener: "https",
        certificate: None,
        version: None,
        posture: None,
    };
    assert!(slice.walk(None, &attributes).is_none());
    assert!(slice.decide(None, &attributes).has_errors);
}

#[test]
fn texts_of_a_pattern_that_touch_are_looked_for_together() {
    let pattern = pattern(&serde_json::json!(["Wildcard", {"Literal": "a"}, {"Literal": "b"}]));
    let pattern = pattern.unwrap();
    assert!(is_like("aab", &pattern));
    assert!(!is_like("aba", &pattern));
}
