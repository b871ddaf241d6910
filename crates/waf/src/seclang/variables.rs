//! The variables of SecLang by name, and the targets of a rule.

use super::error;

/// What a variable holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// At most one value.
    Single,
    /// Values with names; a target may name one.
    Named,
    /// A collection that rules write to; a macro must name a key.
    Keyed,
}

macro_rules! variables {
    ($($variant:ident $name:literal $shape:ident,)*) => {
        /// A variable of the language.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub(crate) enum Variable { $($variant,)* }

        const ALL: &[(Variable, &str, Shape)] = &[$((Variable::$variant, $name, Shape::$shape),)*];

        impl Variable {
            /// The number of variables.
            pub(crate) const COUNT: usize = ALL.len();

            /// The name as rules write it.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            pub(crate) const fn shape(self) -> Shape {
                match self { $(Self::$variant => Shape::$shape,)* }
            }
        }
    };
}

variables! {
    Args "ARGS" Named,
    ArgsCombinedSize "ARGS_COMBINED_SIZE" Single,
    ArgsGet "ARGS_GET" Named,
    ArgsGetNames "ARGS_GET_NAMES" Named,
    ArgsNames "ARGS_NAMES" Named,
    ArgsPost "ARGS_POST" Named,
    ArgsPostNames "ARGS_POST_NAMES" Named,
    AuthType "AUTH_TYPE" Single,
    Duration "DURATION" Single,
    Env "ENV" Keyed,
    Files "FILES" Named,
    FilesCombinedSize "FILES_COMBINED_SIZE" Single,
    FilesNames "FILES_NAMES" Named,
    FilesSizes "FILES_SIZES" Named,
    FilesTmpContent "FILES_TMP_CONTENT" Named,
    FullRequest "FULL_REQUEST" Single,
    FullRequestLength "FULL_REQUEST_LENGTH" Single,
    Geo "GEO" Keyed,
    Global "GLOBAL" Keyed,
    HighestSeverity "HIGHEST_SEVERITY" Single,
    InboundDataError "INBOUND_DATA_ERROR" Single,
    Ip "IP" Keyed,
    MatchedVar "MATCHED_VAR" Single,
    MatchedVarName "MATCHED_VAR_NAME" Single,
    MatchedVars "MATCHED_VARS" Named,
    MatchedVarsNames "MATCHED_VARS_NAMES" Named,
    MultipartBoundaryQuoted "MULTIPART_BOUNDARY_QUOTED" Single,
    MultipartBoundaryWhitespace "MULTIPART_BOUNDARY_WHITESPACE" Single,
    MultipartCrlfLfLines "MULTIPART_CRLF_LF_LINES" Single,
    MultipartDataAfter "MULTIPART_DATA_AFTER" Single,
    MultipartDataBefore "MULTIPART_DATA_BEFORE" Single,
    MultipartFileLimitExceeded "MULTIPART_FILE_LIMIT_EXCEEDED" Single,
    MultipartFilename "MULTIPART_FILENAME" Named,
    MultipartHeaderFolding "MULTIPART_HEADER_FOLDING" Single,
    MultipartInvalidHeaderFolding "MULTIPART_INVALID_HEADER_FOLDING" Single,
    MultipartInvalidPart "MULTIPART_INVALID_PART" Single,
    MultipartInvalidQuoting "MULTIPART_INVALID_QUOTING" Single,
    MultipartLfLine "MULTIPART_LF_LINE" Single,
    MultipartMissingSemicolon "MULTIPART_MISSING_SEMICOLON" Single,
    MultipartName "MULTIPART_NAME" Named,
    MultipartPartHeaders "MULTIPART_PART_HEADERS" Named,
    MultipartStrictError "MULTIPART_STRICT_ERROR" Single,
    MultipartUnmatchedBoundary "MULTIPART_UNMATCHED_BOUNDARY" Single,
    OutboundDataError "OUTBOUND_DATA_ERROR" Single,
    PathInfo "PATH_INFO" Single,
    QueryString "QUERY_STRING" Single,
    RemoteAddr "REMOTE_ADDR" Single,
    RemoteHost "REMOTE_HOST" Single,
    RemotePort "REMOTE_PORT" Single,
    RemoteUser "REMOTE_USER" Single,
    ReqbodyError "REQBODY_ERROR" Single,
    ReqbodyErrorMsg "REQBODY_ERROR_MSG" Single,
    ReqbodyProcessor "REQBODY_PROCESSOR" Single,
    ReqbodyProcessorError "REQBODY_PROCESSOR_ERROR" Single,
    ReqbodyProcessorErrorMsg "REQBODY_PROCESSOR_ERROR_MSG" Single,
    RequestBasename "REQUEST_BASENAME" Single,
    RequestBody "REQUEST_BODY" Single,
    RequestBodyLength "REQUEST_BODY_LENGTH" Single,
    RequestCookies "REQUEST_COOKIES" Named,
    RequestCookiesNames "REQUEST_COOKIES_NAMES" Named,
    RequestFilename "REQUEST_FILENAME" Single,
    RequestHeaders "REQUEST_HEADERS" Named,
    RequestHeadersNames "REQUEST_HEADERS_NAMES" Named,
    RequestLine "REQUEST_LINE" Single,
    RequestMethod "REQUEST_METHOD" Single,
    RequestProtocol "REQUEST_PROTOCOL" Single,
    RequestUri "REQUEST_URI" Single,
    RequestUriRaw "REQUEST_URI_RAW" Single,
    Resource "RESOURCE" Keyed,
    ResponseBody "RESPONSE_BODY" Single,
    ResponseContentLength "RESPONSE_CONTENT_LENGTH" Single,
    ResponseContentType "RESPONSE_CONTENT_TYPE" Single,
    ResponseHeaders "RESPONSE_HEADERS" Named,
    ResponseHeadersNames "RESPONSE_HEADERS_NAMES" Named,
    ResponseProtocol "RESPONSE_PROTOCOL" Single,
    ResponseStatus "RESPONSE_STATUS" Single,
    Rule "RULE" Keyed,
    ServerAddr "SERVER_ADDR" Single,
    ServerName "SERVER_NAME" Single,
    ServerPort "SERVER_PORT" Single,
    Session "SESSION" Keyed,
    SessionId "SESSIONID" Single,
    StatusLine "STATUS_LINE" Single,
    Time "TIME" Single,
    TimeDay "TIME_DAY" Single,
    TimeEpoch "TIME_EPOCH" Single,
    TimeHour "TIME_HOUR" Single,
    TimeMin "TIME_MIN" Single,
    TimeMon "TIME_MON" Single,
    TimeSec "TIME_SEC" Single,
    TimeWday "TIME_WDAY" Single,
    TimeYear "TIME_YEAR" Single,
    Tx "TX" Keyed,
    UniqueId "UNIQUE_ID" Single,
    UrlencodedError "URLENCODED_ERROR" Single,
    User "USER" Keyed,
    UserId "USERID" Single,
    WebAppId "WEBAPPID" Single,
    Xml "XML" Named,
}

impl Variable {
    /// The variable that is written so, in any case.
    pub(crate) fn named(name: &str) -> Option<Self> {
        ALL.iter()
            .find(|(_, known, _)| known.eq_ignore_ascii_case(name))
            .map(|&(variable, ..)| variable)
    }
}

pub(super) fn nearest_name(name: &str) -> String {
    error::nearest(name, ALL.iter().map(|&(_, known, _)| known))
}

/// Which values of a variable a target means.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Selector {
    All,
    /// The values of this name, compared without case; in lower case.
    Name(Box<str>),
    /// The values whose name the pattern finds.
    Pattern(Box<str>),
    /// All text of an XML body, `/*`.
    XmlText,
    /// All attribute values of an XML body, `//@*`.
    XmlAttributes,
}

/// One target as a rule writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TargetSpec {
    pub(crate) variable: Variable,
    pub(crate) selector: Selector,
    /// `&`: the number of values.
    pub(crate) count: bool,
    /// `!`: not these values.
    pub(crate) exclude: bool,
}

/// The targets of a rule, which are separated by `|` (or, in updates, `,`).
pub(crate) fn parse_targets(text: &str) -> Result<Vec<TargetSpec>, String> {
    split(text).into_iter().map(target).collect()
}

/// Splits at separators that are not in a quote or a pattern.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut in_pattern, mut quoted, mut escaped) = (0, false, false, false);
    let mut previous = '|';
    for (at, letter) in text.char_indices() {
        if escaped {
            escaped = false;
        } else {
            match letter {
                '\\' => escaped = true,
                '\'' => quoted = !quoted,
                // `XML:/*` and `XML://@*` are paths that no slash closes.
                '/' if in_pattern => in_pattern = false,
                '/' if (previous == ':' || previous == '\'')
                    && !is_path(text.get(start..).unwrap_or_default()) =>
                {
                    in_pattern = true;
                }
                '|' | ',' if !in_pattern && !quoted => {
                    parts.push(text.get(start..at).unwrap_or_default());
                    start = at + 1;
                }
                _ => {}
            }
        }
        previous = letter;
    }
    parts.push(text.get(start..).unwrap_or_default());
    parts
}

fn is_path(target: &str) -> bool {
    target
        .trim_start_matches(['!', '&', ' '])
        .get(..4)
        .is_some_and(|start| start.eq_ignore_ascii_case("xml:"))
}

fn target(text: &str) -> Result<TargetSpec, String> {
    let text = text.trim();
    let (exclude, text) = text
        .strip_prefix('!')
        .map_or((false, text), |rest| (true, rest));
    let (count, text) = text
        .strip_prefix('&')
        .map_or((false, text), |rest| (true, rest));
    let (name, key) = text
        .split_once([':', '.'])
        .map_or((text, None), |(name, key)| (name, Some(key)));
    let variable = Variable::named(name)
        .ok_or_else(|| format!("unknown variable `{name}`{}", nearest_name(name)))?;
    let selector = selector(variable, key)?;
    if exclude && count {
        return Err(format!(
            "`!&{text}`: a target is either left out or counted"
        ));
    }
    Ok(TargetSpec {
        variable,
        selector,
        count,
        exclude,
    })
}

fn selector(variable: Variable, key: Option<&str>) -> Result<Selector, String> {
    let name = variable.name();
    let Some(key) = key else {
        if variable == Variable::Xml {
            return Err(
                "XML needs a path: XML:/* for all text or XML://@* for all attribute values"
                    .to_owned(),
            );
        }
        return Ok(Selector::All);
    };
    let key = key
        .strip_prefix('\'')
        .and_then(|key| key.strip_suffix('\''))
        .unwrap_or(key);
    if variable == Variable::Xml {
        return match key {
            "/*" => Ok(Selector::XmlText),
            "//@*" => Ok(Selector::XmlAttributes),
            _ => Err(format!(
                "XML:{key}: of XPath only /* (all text) and //@* (all attribute values) are known"
            )),
        };
    }
    if variable.shape() == Shape::Single {
        return Err(format!("{name} is one value and has no part `{key}`"));
    }
    match key.strip_prefix('/').and_then(|key| key.strip_suffix('/')) {
        Some(pattern) => Ok(Selector::Pattern(pattern.replace("\\/", "/").into())),
        None if key.is_empty() => Err(format!("`{name}:` names nothing after its colon")),
        None => Ok(Selector::Name(key.to_ascii_lowercase().into())),
    }
}
