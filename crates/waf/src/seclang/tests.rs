use super::{
    Action, Disk, Limits, LoadError, Memory, Operand, Selector, Sources, Statement, Variable, parse,
};

fn parsed(text: &str) -> Result<Vec<Statement>, LoadError> {
    let files = Memory([("a.conf".to_owned(), text.as_bytes().to_vec())].into());
    parse(&files, &["a.conf"], &Limits::default())
}

fn error(text: &str) -> String {
    parsed(text).unwrap_err().to_string()
}

fn rule(text: &str) -> super::RuleSpec {
    match parsed(text).unwrap().pop().unwrap() {
        Statement::Rule(rule) => rule,
        other => panic!("no rule: {other:?}"),
    }
}

#[test]
fn a_line_goes_on_after_a_backslash_and_a_comment_does_not() {
    let rule = rule("# SecRule \\\nSecRule ARGS \\\n  \"@rx a\" \\\r\n  \"id:1,\\\n   phase:2\"\n");
    assert_eq!(rule.place.line, 2);
    assert_eq!(rule.actions.len(), 2);
}

#[test]
fn only_the_quote_itself_is_unescaped() {
    let Some(Operand::Pattern { text, .. }) = rule(r#"SecRule ARGS "@rx \"\d\\\." "id:1""#)
        .operator
        .map(|o| o.operand)
    else {
        panic!("no pattern")
    };
    assert_eq!(&*text, r#""\d\\\."#);
}

#[test]
fn a_value_in_single_quotes_holds_commas_and_escaped_quotes() {
    let rule = rule(r#"SecAction "id:1,msg:'it\'s, so',setvar:'tx.a=b, c',log""#);
    let [
        Action::Id(1),
        Action::Message(message),
        Action::Assign(assign),
        Action::Log(true),
    ] = rule.actions.as_slice()
    else {
        panic!("{:?}", rule.actions)
    };
    assert_eq!(message.literal(), Some(&b"it's, so"[..]));
    assert_eq!(assign.key.literal(), Some(&b"a"[..]));
}

#[test]
fn targets_are_split_outside_patterns_only() {
    let rule = rule(r"SecRule ARGS:/a|b\/c/|!REQUEST_COOKIES:'x|y'|&TX:n|XML:/*|XML://@* @rx id:1");
    let told: Vec<_> = rule
        .targets
        .iter()
        .map(|t| (t.variable, t.selector.clone(), t.count, t.exclude))
        .collect();
    assert_eq!(
        told,
        [
            (
                Variable::Args,
                Selector::Pattern("a|b/c".into()),
                false,
                false
            ),
            (
                Variable::RequestCookies,
                Selector::Name("x|y".into()),
                false,
                true
            ),
            (Variable::Tx, Selector::Name("n".into()), true, false),
            (Variable::Xml, Selector::XmlText, false, false),
            (Variable::Xml, Selector::XmlAttributes, false, false),
        ]
    );
}

#[test]
fn what_is_unknown_is_refused_with_its_place_and_the_nearest_name() {
    for (text, expected) in [
        (
            "\nSecRul ARGS a",
            "a.conf:2: unknown directive `SecRul`; the nearest known name is `SecRule`",
        ),
        (
            "SecRule ARG @rx id:1",
            "unknown variable `ARG`; the nearest known name is `ARGS`",
        ),
        (
            "SecRule ARGS @rxx id:1",
            "unknown operator `@rxx`; the nearest known name is `rx`",
        ),
        (
            "SecRule ARGS @rx \"id:1,t:lowercas\"",
            "unknown transformation `lowercas`; the nearest known name is `lowercase`",
        ),
        (
            "SecRule ARGS @rx \"id:1,denny\"",
            "unknown action `denny`; the nearest known name is `deny`",
        ),
        (
            "SecRule ARGS @rx \"id:1,ctl:ruleRemoveByID2=1\"",
            "unknown `ctl:ruleRemoveByID2`; the nearest known name is `ruleRemoveById`",
        ),
        (
            "SecRule ARGS @rx \"id:1,msg:'%{argz.a}'\"",
            "unknown variable in the macro %{argz.a}; the nearest known name is `ARGS`",
        ),
        (
            "SecRule ARGS @rx \"id:1,severity:BAD\"",
            "unknown severity `BAD`",
        ),
        (
            "SecAction \"id:1,ctl:requestBodyProcessor=YAML\"",
            "unknown body processor `YAML`; the nearest known name is `XML`",
        ),
    ] {
        let told = error(text);
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn what_would_have_no_effect_here_is_refused_with_the_reason() {
    for (text, expected) in [
        (
            "SecAction \"id:1,exec:/bin/true\"",
            "the action `exec` is not supported: rules start no programs",
        ),
        (
            "SecRule ARGS \"@inspectFile x\" id:1",
            "@inspectFile is not supported: it runs a program",
        ),
        ("SecRule XML:/a/b @rx id:1", "of XPath only /*"),
        (
            "SecRule REQUEST_URI:x @rx id:1",
            "REQUEST_URI is one value and has no part `x`",
        ),
        ("SecAction \"id:1,expirevar:tx.a=5\"", "has no effect"),
        ("SecRule ARGS @rx \"id:1,msg:'%{tx}'\"", "needs a key"),
        ("SecRule !&ARGS @rx id:1", "either left out or counted"),
    ] {
        let told = error(text);
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn broken_text_is_refused_where_it_begins() {
    for (text, expected) in [
        ("\n\nSecRule ARGS \"@rx a", "a.conf:3: a \" is never closed"),
        ("SecRule ARGS \"a\"b id:1", "right after the closing"),
        ("SecAction \"id:1,msg:'x\"", "is never closed"),
        ("SecAction \"id:1,msg:'x'y\"", "a comma is missing"),
        ("SecAction \\", "a.conf:1: the file ends in the middle"),
        ("SecAction", "SecAction does not take 0 arguments"),
        ("SecAction \"id:x\"", "is not a number"),
        ("SecRule ARGS \"@validateByteRange 1-300\" id:1", "`1-300`"),
        (
            "SecRule REMOTE_ADDR \"@ipMatch 1.2.3\" id:1",
            "`1.2.3` is no address",
        ),
    ] {
        let told = error(text);
        assert!(told.contains(expected), "{told}");
    }
    let files = Memory([("a.conf".to_owned(), b"SecAction \xff".to_vec())].into());
    let told = parse(&files, &["a.conf"], &Limits::default())
        .unwrap_err()
        .to_string();
    assert!(told.contains("not UTF-8 at byte 10"), "{told}");
}

#[test]
fn files_are_included_in_order_from_beside_the_one_that_names_them() {
    let files = [
        ("d/a.conf", "Include b-*.conf\nSecMarker A"),
        ("d/b-2.conf", "SecMarker B2"),
        ("d/b-1.conf", "SecMarker B1"),
    ];
    let files = Memory(
        files
            .map(|(name, text)| (name.to_owned(), text.into()))
            .into(),
    );
    let found = parse(&files, &["d/a.conf"], &Limits::default()).unwrap();
    let names: Vec<_> = found
        .iter()
        .map(|s| {
            if let Statement::Marker(name) = s {
                &**name
            } else {
                ""
            }
        })
        .collect();
    assert_eq!(names, ["B1", "B2", "A"]);
}

#[test]
fn a_file_that_includes_itself_is_refused() {
    let files = [("a.conf", "Include b.conf"), ("b.conf", "\nInclude a.conf")];
    let files = Memory(
        files
            .map(|(name, text)| (name.to_owned(), text.into()))
            .into(),
    );
    let told = parse(&files, &["a.conf"], &Limits::default())
        .unwrap_err()
        .to_string();
    assert_eq!(told, "b.conf:2: a.conf includes itself: a.conf → b.conf");
}

#[test]
fn a_file_that_is_not_there_is_refused() {
    assert!(error("Include nowhere.conf").contains("a.conf:1: there is no file nowhere.conf"));
    let told = parse(&Disk, &["/nowhere/x.conf"], &Limits::default())
        .unwrap_err()
        .to_string();
    assert!(told.contains("cannot read /nowhere/x.conf"), "{told}");
}

#[test]
fn files_and_patterns_beyond_the_limits_are_refused() {
    let text = format!("SecRule ARGS \"@rx {}\" id:1", "a".repeat(70_000));
    assert!(error(&text).contains("an argument has 70004 bytes, at most 65536"));
    let limits = Limits {
        file_bytes: 10,
        ..Limits::default()
    };
    let files = Memory([("a.conf".to_owned(), vec![b'#'; 11])].into());
    assert!(
        parse(&files, &["a.conf"], &limits)
            .unwrap_err()
            .to_string()
            .contains("11 bytes, at most 10")
    );
}

#[test]
fn wildcards_match_within_a_name() {
    let files = Memory(
        ["x/a1.conf", "x/a22.conf", "x/b.conf"]
            .map(|name| (name.to_owned(), Vec::new()))
            .into(),
    );
    assert_eq!(
        files.matching("x/a*.conf").unwrap(),
        ["x/a1.conf", "x/a22.conf"]
    );
    assert_eq!(files.matching("x/a?.conf").unwrap(), ["x/a1.conf"]);
    assert_eq!(files.matching("x/*").unwrap().len(), 3);
}

#[test]
fn directives_whose_home_is_elsewhere_are_passed_over() {
    assert!(
        parsed("SecAuditLog /var/log/x\nSecTmpDir /tmp\nSecComponentSignature x")
            .unwrap()
            .is_empty()
    );
}
