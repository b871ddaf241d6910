use std::net::IpAddr;

use super::{Consequence, CustomRule, Field, Test};
use crate::{Ends, Memory, Options, RuleSet, Transaction, Workbench};

fn rule(field: Field, test: Test, value: &str, consequence: Consequence) -> CustomRule {
    CustomRule {
        id: 7,
        message: "not here".to_owned(),
        field,
        test,
        value: value.to_owned(),
        consequence,
    }
}

fn load(rules: Vec<CustomRule>, text: &str) -> Result<RuleSet, String> {
    let files = Memory(
        [(
            "a.conf".to_owned(),
            format!("SecRuleEngine On\n{text}").into_bytes(),
        )]
        .into(),
    );
    let options = Options {
        custom: rules,
        ..Options::default()
    };
    RuleSet::load(&files, &["a.conf"], &options).map_err(|error| error.to_string())
}

fn is_blocked(set: &RuleSet, client: [u8; 4], target: &str) -> bool {
    let mut bench = Workbench::new(set);
    let mut tx = Transaction::begin(set, &mut bench, 0, "u");
    tx.connection(&Ends {
        client: (IpAddr::from(client), 1),
        server: (IpAddr::from([0, 0, 0, 0]), 80),
    });
    tx.request_line(b"GET", target.as_bytes(), b"HTTP/1.1");
    tx.end_of_request_headers(&mut bench);
    tx.end_of_request_body(&mut bench);
    tx.end(&mut bench).interruption.is_some()
}

#[test]
fn a_path_is_blocked_however_it_is_written() {
    let set = load(
        vec![rule(
            Field::Path,
            Test::StartsWith,
            "/admin/",
            Consequence::Block,
        )],
        "",
    )
    .unwrap();
    assert!(is_blocked(&set, [1, 2, 3, 4], "/admin/users"));
    assert!(is_blocked(&set, [1, 2, 3, 4], "/shop/../%61dmin/users"));
    assert!(!is_blocked(&set, [1, 2, 3, 4], "/shop/admin/users"));
}

#[test]
fn an_allowed_network_is_not_judged_by_the_files() {
    let text = "SecRule ARGS:q \"@streq evil\" \"id:1,phase:2,deny\"";
    let set = load(
        vec![rule(
            Field::Address,
            Test::InNetworks,
            "192.0.2.0/24",
            Consequence::Allow,
        )],
        text,
    )
    .unwrap();
    assert!(!is_blocked(&set, [192, 0, 2, 9], "/?q=evil"));
    assert!(is_blocked(&set, [192, 0, 3, 9], "/?q=evil"));
}

#[test]
fn an_argument_is_blocked_by_a_pattern() {
    let set = load(
        vec![rule(
            Field::Argument("q".into()),
            Test::Matches,
            "^[0-9]{3}$",
            Consequence::Block,
        )],
        "",
    )
    .unwrap();
    assert!(is_blocked(&set, [1, 1, 1, 1], "/?q=123"));
    assert!(!is_blocked(&set, [1, 1, 1, 1], "/?r=123"));
}

#[test]
fn a_rule_that_makes_no_sense_is_refused_by_its_number() {
    for (field, test, value, reason) in [
        (
            Field::Path,
            Test::InNetworks,
            "192.0.2.0/24",
            "only they, are looked up in networks",
        ),
        (
            Field::Address,
            Test::InNetworks,
            "192.0.2.0/33",
            "no network",
        ),
        (Field::Method, Test::Equals, "", "the value is empty"),
        (Field::Method, Test::Matches, "(", "pattern"),
    ] {
        let error = load(vec![rule(field, test, value, Consequence::Block)], "").unwrap_err();
        assert!(
            error.starts_with("custom rule 7:0: ") && error.contains(reason),
            "{error}"
        );
    }
}

#[test]
fn a_percent_sign_in_a_value_is_no_macro() {
    let set = load(
        vec![rule(
            Field::Query,
            Test::Contains,
            "%{tx.x}",
            Consequence::Block,
        )],
        "",
    )
    .unwrap();
    assert!(is_blocked(&set, [1, 1, 1, 1], "/?a=%{tx.x}"));
}
