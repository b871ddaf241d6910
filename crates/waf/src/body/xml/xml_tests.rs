use super::super::collected::{Collected, read, read_within};
use super::super::{Limits, Outcome, Processor};
use super::*;

fn xml(body: &str) -> (Collected, Outcome) {
    read(Processor::Xml, "", body.as_bytes())
}

fn text(body: &str) -> String {
    let (found, outcome) = xml(body);
    assert_eq!(outcome.error, None, "{body}");
    found.texts.concat()
}

fn error(body: &[u8]) -> Option<Error> {
    read(Processor::Xml, "", body).1.error
}

#[test]
fn a_document_is_one_text_and_the_values_of_its_attributes() {
    let (found, outcome) = xml(
        "<?xml version=\"1.0\"?>\n<a b='1'> x<c d = \"2\" e=\"\"/><!-- no --><?no?>y<f>z</f>\n</a>\n",
    );
    assert_eq!(outcome.error, None);
    assert_eq!(found.texts, [" xyz\n"]);
    assert_eq!(found.attributes, ["1", "2", ""]);
}

#[test]
fn declarations_of_namespaces_are_no_attributes() {
    let (found, _) =
        xml("<a xmlns='urn:a' xmlns:b='urn:b' b:c='1' xmlns::d='2' xmlns:='3' xmlns:-e='4'/>");
    assert_eq!(found.attributes, ["1", "2", "3", "4"]);
}

#[test]
fn references_and_sections_are_the_characters_they_stand_for() {
    assert_eq!(
        text("<a>&lt;&gt;&amp;&quot;&apos;&#65;&#x1F600;<![CDATA[<&]]>b</a>"),
        "<>&\"'A😀<&b"
    );
    assert_eq!(xml("<a b='&#60;&amp;lt;'/>").0.attributes, ["<&lt;"]);
}

#[test]
fn ends_of_lines_are_one_and_blanks_in_attributes() {
    assert_eq!(
        text("<a>1\r\n2\r3\n<![CDATA[4\r\n5]]></a>"),
        "1\n2\n3\n4\n5"
    );
    assert_eq!(
        xml("<a b='1\t2\r\n3\n4&#10;'/>").0.attributes,
        ["1 2 3 4\n"]
    );
}

#[test]
fn a_declaration_that_is_none_is_an_error() {
    for body in [
        "<?xml?><a/>",
        "<?xml encoding='utf-8'?><a/>",
        "<?xml version=1.0?><a/>",
        "<?xml version='2.0'?><a/>",
        "<?xml version='1.'?><a/>",
        "<?xml version='1.0'encoding='utf-8'?><a/>",
        "<?xml version='1.0' standalone='maybe'?><a/>",
        "<?xml version='1.0' x='y'?><a/>",
        "<?xml version='1.0\"?><a/>",
        "<?xmlversion='1.0'?><a/>",
        "<?x&y?><a/>",
        "<a xmlns:b='&#'/>",
    ] {
        assert!(error(body.as_bytes()).is_some(), "{body}");
    }
    for body in [
        "<?xml version='1.0'?><a/>",
        "<?xml version = \"1.1\" encoding='utf-8' standalone='no' ?><a/>",
        "<?xml-stylesheet href='a'?><a/>",
        "<?x?><a/>",
    ] {
        assert_eq!(error(body.as_bytes()), None, "{body}");
    }
}

#[test]
fn an_entity_bomb_and_every_other_declaration_are_refused() {
    let bomb = concat!(
        "<?xml version=\"1.0\"?><!DOCTYPE lolz [<!ENTITY lol \"lol\"><!ENTITY lol1 \"&lol;&lol;\">]>",
        "<lolz>&lol1;</lolz>"
    );
    assert!(error(bomb.as_bytes()).is_some_and(|error| error.what.contains("declarations")));
    let external = "<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><a>&x;</a>";
    assert!(error(external.as_bytes()).is_some());
    assert!(error(b"<a>&x;</a>").is_some_and(|error| error.what.contains("not declared")));
}

#[test]
fn a_document_type_without_declarations_is_skipped() {
    assert_eq!(
        text("<!DOCTYPE a PUBLIC \"-//X//>\" 'http://x/[.dtd'><a>b</a>"),
        "b"
    );
}

#[test]
fn what_is_not_well_formed_is_an_error() {
    for body in [
        " ",
        "a",
        "<a>",
        "<a></b>",
        "</a>",
        "<a/><b/>",
        "<a/>b",
        "b<a/>",
        "<a",
        "<a b",
        "<a b=",
        "<a b=1/>",
        "<a b='1/>",
        "<a b='<'/>",
        "<a b='1'c='2'/>",
        "<a b='1' b='2'/>",
        "<a 1='2'/>",
        "<1/>",
        "< a/>",
        "<a/ >",
        "<a>&</a>",
        "<a>& b;</a>",
        "<a>&lt</a>",
        "<a>&#;</a>",
        "<a>&#0;</a>",
        "<a>&#xD800;</a>",
        "<a>&#x110000;</a>",
        "<a>]]></a>",
        "<a><![CDATA[</a>",
        "<![CDATA[a]]><a/>",
        "<a><!-- -- --></a>",
        "<a><!-- </a>",
        "<a><?xml?></a>",
        "<a><?b</a>",
        "<a/><!DOCTYPE a>",
        "<!DOCTYPE a><!DOCTYPE a><a/>",
        "<a><!DOCTYPE a></a>",
        "<!DOCTYPE a",
        "<a>\u{1}</a>",
        "<a>\0</a>",
        "<?xml version='1.0' encoding=UTF-8?><a/>",
        "<a><!b></a>",
    ] {
        assert!(error(body.as_bytes()).is_some(), "{body:?}");
    }
}

#[test]
fn what_comes_before_an_error_is_inspected() {
    let (found, outcome) = xml("<a b='1'>x</c>");
    assert_eq!(
        (found.texts, found.attributes),
        (vec!["x".to_owned()], vec!["1".to_owned()])
    );
    assert!(outcome.error.is_some_and(|error| error.at > 10));
}

#[test]
fn an_empty_body_is_no_document_and_no_error() {
    assert_eq!(error(b""), None);
}

#[test]
fn latin_1_is_read_and_other_encodings_are_refused() {
    let (found, outcome) = read(
        Processor::Xml,
        "",
        b"<?xml version='1.0' encoding='ISO-8859-1'?><a>\xE9</a>",
    );
    assert_eq!(
        (found.texts.concat(), outcome.error),
        ("é".to_owned(), None)
    );
    assert_eq!(text("\u{feff}<a>b</a>"), "b");
    for body in [
        &b"<?xml version='1.0' encoding='UTF-7'?><a/>"[..],
        b"<?xml version='1.0' encoding='UTF-16'?><a/>",
        b"\xFF\xFE<\0a\0/\0>\0",
        b"<a>\xC0\xBC</a>",
        b"<a>\xE9</a>",
    ] {
        assert!(error(body).is_some(), "{body:?}");
    }
}

#[test]
fn depth_and_attributes_end_at_the_limits_without_recursion() {
    let body = format!("{}{}", "<a>".repeat(100_000), "</a>".repeat(100_000));
    assert_eq!(
        error(body.as_bytes()).map(|error| error.what),
        Some(TOO_DEEP)
    );
    assert_eq!(
        text(&format!("{}b{}", "<a>".repeat(512), "</a>".repeat(512))),
        "b"
    );
    let limits = Limits {
        attributes: 1,
        ..Limits::default()
    };
    let within = |body: &[u8]| {
        read_within(&limits, Processor::Xml, "", body)
            .1
            .error
            .map(|error| error.what)
    };
    assert_eq!(within(b"<a b='1'/>"), None);
    assert_eq!(within(b"<a b='1'><c d='2'/></a>"), Some(TOO_MANY));
}
