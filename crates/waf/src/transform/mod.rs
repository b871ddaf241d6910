//! Transformations: what an attacker wrote into what a program would read.
//!
//! Owns each transformation by name and the bytes without which it changes nothing. Each is a pure
//! function, linear in its input, whose output is at most six times as long. Must not: know rules.

mod bound;
mod code;
mod hash;
mod markup;
mod path;
mod text;
mod url;

use crate::bytes::ByteSet;

pub(crate) use url::is_well_encoded;

macro_rules! transforms {
    ($($variant:ident $name:literal $(| $alias:literal)* => $function:path, $triggers:expr;)*) => {
        /// A transformation of the language.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub(crate) enum Transform { $(#[doc = $name] $variant,)* }

        impl Transform {
            /// The transformation that is written so, in any case.
            pub(crate) fn named(name: &str) -> Option<Self> {
                $(if name.eq_ignore_ascii_case($name) $(|| name.eq_ignore_ascii_case($alias))* {
                    return Some(Self::$variant);
                })*
                None
            }

            pub(crate) fn names() -> impl Iterator<Item = &'static str> {
                [$($name,)* "none"].into_iter()
            }

            /// Appends the transformed `input` to `out`, which is empty.
            pub(crate) fn apply(self, input: &[u8], out: &mut Vec<u8>) {
                match self { $(Self::$variant => $function(input, out),)* }
            }

            /// A value that holds none of these bytes is left as it is.
            pub(crate) fn triggers(self) -> ByteSet {
                match self { $(Self::$variant => $triggers,)* }
            }
        }
    };
}

transforms! {
    Base64Decode "base64Decode" => code::base64_decode, ByteSet::ALL;
    Base64DecodeExt "base64DecodeExt" => code::base64_decode_lenient, ByteSet::ALL;
    Base64Encode "base64Encode" => code::base64_encode, ByteSet::ALL;
    CmdLine "cmdLine" => text::command_line, upper_and(b"\"'\\^ ,;\t\r\n/(");
    CompressWhitespace "compressWhitespace" => text::compress_whitespace, ByteSet::of(SPACES);
    CssDecode "cssDecode" => code::css_decode, ByteSet::of(b"\\");
    EscapeSeqDecode "escapeSeqDecode" => code::escape_sequence_decode, ByteSet::of(b"\\");
    HexDecode "hexDecode" => code::hex_decode, ByteSet::ALL;
    HexEncode "hexEncode" => code::hex_encode, ByteSet::ALL;
    HtmlEntityDecode "htmlEntityDecode" => markup::entity_decode, ByteSet::of(b"&");
    JsDecode "jsDecode" => code::js_decode, ByteSet::of(b"\\");
    Length "length" => text::length, ByteSet::ALL;
    Lowercase "lowercase" => text::lowercase, upper_and(b"");
    Md5 "md5" => hash::md5, ByteSet::ALL;
    NormalizePath "normalizePath" | "normalisePath" => path::normalize, ByteSet::of(b"/.");
    NormalizePathWin "normalizePathWin" | "normalisePathWin" => path::normalize_windows, ByteSet::of(b"/.\\");
    ParityEven7bit "parityEven7bit" => text::parity_even, ByteSet::ALL;
    ParityOdd7bit "parityOdd7bit" => text::parity_odd, ByteSet::ALL;
    ParityZero7bit "parityZero7bit" => text::parity_zero, above_ascii();
    RemoveComments "removeComments" => markup::remove_comments, ByteSet::of(b"/<-#");
    RemoveCommentsChar "removeCommentsChar" => markup::remove_comment_marks, ByteSet::of(b"/*<-#");
    RemoveNulls "removeNulls" => text::remove_nulls, ByteSet::of(b"\0");
    RemoveWhitespace "removeWhitespace" => text::remove_whitespace, ByteSet::of(WIDE_SPACES);
    ReplaceComments "replaceComments" => markup::replace_comments, ByteSet::of(b"/");
    ReplaceNulls "replaceNulls" => text::replace_nulls, ByteSet::of(b"\0");
    Sha1 "sha1" => hash::sha1, ByteSet::ALL;
    SqlHexDecode "sqlHexDecode" => code::sql_hex_decode, ByteSet::of(b"xX");
    Trim "trim" => text::trim, ByteSet::of(SPACES);
    TrimLeft "trimLeft" => text::trim_left, ByteSet::of(SPACES);
    TrimRight "trimRight" => text::trim_right, ByteSet::of(SPACES);
    Uppercase "uppercase" => text::uppercase, lower();
    UrlDecode "urlDecode" => url::decode, ByteSet::of(b"%+");
    UrlDecodeUni "urlDecodeUni" => url::decode_unicode, ByteSet::of(b"%+");
    UrlEncode "urlEncode" => url::encode, ByteSet::ALL;
    Utf8ToUnicode "utf8toUnicode" => url::utf8_to_unicode, above_ascii();
}

impl Transform {
    /// Whether it changes every value, even the empty one.
    pub(crate) const fn is_always(self) -> bool {
        matches!(self, Self::Length | Self::Md5 | Self::Sha1)
    }
}

const SPACES: &[u8] = b" \t\n\x0b\x0c\r";
const WIDE_SPACES: &[u8] = b" \t\n\x0b\x0c\r\xa0\xc2";

fn upper_and(others: &[u8]) -> ByteSet {
    let mut set = ByteSet::of(others);
    set.insert_range(b'A', b'Z');
    set
}

fn lower() -> ByteSet {
    let mut set = ByteSet::EMPTY;
    set.insert_range(b'a', b'z');
    set
}

fn above_ascii() -> ByteSet {
    let mut set = ByteSet::EMPTY;
    set.insert_range(0x80, 0xff);
    set
}

#[cfg(test)]
mod tests;
