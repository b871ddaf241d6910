//! Script in HTML: a value is read as text, and as an attribute's value behind each kind of quote.

mod lexer;

use memchr::{memchr, memchr2};

use super::is_word_around_nul;
use lexer::{Context, Kind, Lexer, Token};

/// Elements that run script or bring in a document.
const ELEMENTS: [&[u8]; 20] = [
    b"APPLET",
    b"BASE",
    b"COMMENT",
    b"EMBED",
    b"FRAME",
    b"FRAMESET",
    b"HANDLER",
    b"IFRAME",
    b"IMPORT",
    b"ISINDEX",
    b"LINK",
    b"LISTENER",
    b"META",
    b"NOSCRIPT",
    b"OBJECT",
    b"SCRIPT",
    b"STYLE",
    b"VMLFRAME",
    b"XML",
    b"XSS",
];

/// Attributes whose value is a URL.
const URLS: [&[u8]; 15] = [
    b"ACTION",
    b"BY",
    b"BACKGROUND",
    b"DYNSRC",
    b"FORMACTION",
    b"FOLDER",
    b"FROM",
    b"HANDLER",
    b"HREF",
    b"LOWSRC",
    b"POSTER",
    b"SRC",
    b"TO",
    b"VALUES",
    b"XLINK:HREF",
];

/// Schemes of URLs that run script. `JAVA` is of two of them.
const SCHEMES: [&[u8]; 4] = [b"DATA", b"VIEW-SOURCE", b"JAVA", b"VBSCRIPT"];

/// What an attribute's value can do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attribute {
    Harmless,
    /// Whatever its value.
    Forbidden,
    Url,
    /// Its value names another attribute.
    Indirect,
}

/// Read `value` in each context.
pub(super) fn verdict(value: &[u8]) -> bool {
    // Elements need the one and attributes the other.
    memchr2(b'<', b'=', value).is_some()
        && Context::ALL
            .into_iter()
            .any(|context| is_script(value, context))
}

fn is_script(value: &[u8], context: Context) -> bool {
    let mut attribute = Attribute::Harmless;
    let mut lexer = Lexer::new(value, context);
    while let Some(Token { kind, text }) = lexer.next() {
        let before = std::mem::replace(&mut attribute, Attribute::Harmless);
        let is_script = match kind {
            Kind::Doctype => true,
            Kind::TagName => is_forbidden_element(text),
            Kind::AttributeName => {
                attribute = attribute_of(text);
                false
            }
            Kind::AttributeValue => match before {
                Attribute::Harmless => false,
                Attribute::Forbidden => true,
                Attribute::Url => is_script_url(text),
                Attribute::Indirect => attribute_of(text) != Attribute::Harmless,
            },
            Kind::Comment => is_script_comment(text),
            Kind::Other => false,
        };
        if is_script {
            return true;
        }
    }
    false
}

fn is_forbidden_element(name: &[u8]) -> bool {
    let Some(start) = name.get(..3) else {
        return false;
    };
    ELEMENTS
        .iter()
        .any(|element| is_word_around_nul(name, element))
        || start.eq_ignore_ascii_case(b"SVG")
        || start.eq_ignore_ascii_case(b"XSL")
}

fn attribute_of(name: &[u8]) -> Attribute {
    if name.len() < 2 {
        return Attribute::Harmless;
    }
    if let Some(start) = name.get(..5) {
        let is_handler = start
            .get(..2)
            .is_some_and(|start| start.eq_ignore_ascii_case(b"ON"));
        if is_handler
            || start.eq_ignore_ascii_case(b"XMLNS")
            || start.eq_ignore_ascii_case(b"XLINK")
        {
            return Attribute::Forbidden;
        }
    }
    let is = |words: &[&[u8]]| words.iter().any(|word| is_word_around_nul(name, word));
    if is(&[b"STYLE", b"FILTER", b"DATAFORMATAS", b"DATASRC"]) {
        Attribute::Forbidden
    } else if is(&[b"ATTRIBUTENAME"]) {
        Attribute::Indirect
    } else if is(&URLS) {
        Attribute::Url
    } else {
        Attribute::Harmless
    }
}

fn is_script_url(url: &[u8]) -> bool {
    // Some browsers skip blanks beyond ASCII.
    let blanks = url
        .iter()
        .take_while(|byte| **byte <= b' ' || **byte >= 127)
        .count();
    let url = url.get(blanks..).unwrap_or_default();
    SCHEMES
        .iter()
        .any(|scheme| starts_with_decoded(url, scheme))
}

/// Whether `text` starts with `word` once character references are read, and NUL and line feeds are left out.
fn starts_with_decoded(text: &[u8], word: &[u8]) -> bool {
    let (mut rest, mut word) = (text, word.iter());
    let mut is_start = true;
    let mut wanted = word.next();
    while let Some(letter) = wanted {
        let Some((character, length)) = decoded_character(rest) else {
            return false;
        };
        rest = rest.get(length..).unwrap_or_default();
        if (is_start && character <= 32) || matches!(character, 0 | 10) {
            continue;
        }
        is_start = false;
        // Only the lowest byte, as a browser that overflows has it.
        let byte = character.to_le_bytes().first().map(|byte| match character {
            0x61..=0x7A => byte - 0x20,
            _ => *byte,
        });
        if byte != Some(*letter) {
            return false;
        }
        wanted = word.next();
    }
    true
}

/// The first character, and how many bytes say it. What is no reference is an ampersand.
fn decoded_character(text: &[u8]) -> Option<(u32, usize)> {
    const AMPERSAND: (u32, usize) = (b'&' as u32, 1);
    const LARGEST: u32 = 0x10_00FF;
    let (digits, start, radix) = match text {
        [] => return None,
        [b'&', b'#', b'x' | b'X', digits @ ..] => (digits, 3, 16),
        [b'&', b'#', digits @ ..] => (digits, 2, 10),
        [byte, ..] => return Some((u32::from(*byte), 1)),
    };
    let mut code = 0;
    for (count, byte) in digits.iter().enumerate() {
        match char::from(*byte).to_digit(radix) {
            Some(digit) => code = code * radix + digit,
            None if count == 0 => return Some(AMPERSAND),
            None => return Some((code, start + count + usize::from(*byte == b';'))),
        }
        if code > LARGEST {
            return Some(AMPERSAND);
        }
    }
    Some(if digits.is_empty() {
        AMPERSAND
    } else {
        (code, text.len())
    })
}

/// Old browsers end a comment at a backtick and run some comments.
fn is_script_comment(text: &[u8]) -> bool {
    let starts = |word: &[u8]| {
        text.get(..word.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(word))
    };
    memchr(b'`', text).is_some()
        || (text.len() > 3 && (starts(b"[IF") || starts(b"XML")))
        || (text.len() > 5 && (starts(b"IMPORT") || starts(b"ENTITY")))
}
