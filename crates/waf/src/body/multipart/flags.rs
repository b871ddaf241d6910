//! What is odd about a multipart body: the `MULTIPART_*` variables.

/// One oddity. Each but the ends of lines is a strict error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// The body could not be read.
    Error,
    /// `MULTIPART_BOUNDARY_QUOTED`
    BoundaryQuoted,
    /// `MULTIPART_BOUNDARY_WHITESPACE`
    BoundaryWhitespace,
    /// `MULTIPART_DATA_BEFORE`
    DataBefore,
    /// `MULTIPART_DATA_AFTER`
    DataAfter,
    /// `MULTIPART_HEADER_FOLDING`
    HeaderFolding,
    /// `MULTIPART_INVALID_HEADER_FOLDING`
    InvalidHeaderFolding,
    /// `MULTIPART_LF_LINE`
    LfLine,
    /// A line of headers or a boundary ends with CR LF, as it must.
    CrLfLine,
    /// `MULTIPART_MISSING_SEMICOLON`
    MissingSemicolon,
    /// `MULTIPART_INVALID_QUOTING`
    InvalidQuoting,
    /// `MULTIPART_INVALID_PART`
    InvalidPart,
    /// `MULTIPART_FILE_LIMIT_EXCEEDED`
    FileLimitExceeded,
}

/// All oddities of a body, and the names of its last part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    set: u16,
    /// `MULTIPART_UNMATCHED_BOUNDARY`: 1 for what looks like another boundary, 2 once a boundary followed the first.
    pub unmatched_boundary: u8,
    /// `MULTIPART_NAME`
    pub part_name: Vec<u8>,
    /// `MULTIPART_FILENAME`
    pub part_filename: Vec<u8>,
}

impl Flags {
    /// Whether the body has this oddity.
    pub const fn has(&self, flag: Flag) -> bool {
        self.set & 1 << flag as u16 != 0
    }

    pub(super) fn set(&mut self, flag: Flag) {
        self.set |= 1 << flag as u16;
    }

    /// `MULTIPART_STRICT_ERROR`
    pub const fn is_strict_error(&self) -> bool {
        self.set & !(1 << Flag::CrLfLine as u16) != 0
    }

    /// `MULTIPART_CRLF_LF_LINES`
    pub const fn has_both_line_ends(&self) -> bool {
        self.has(Flag::LfLine) && self.has(Flag::CrLfLine)
    }
}
