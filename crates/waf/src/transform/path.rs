//! Paths without what leads in circles.

pub(super) fn normalize(input: &[u8], out: &mut Vec<u8>) {
    resolve(input, out);
}

pub(super) fn normalize_windows(input: &[u8], out: &mut Vec<u8>) {
    let slashed: Vec<u8> = input
        .iter()
        .map(|&byte| if byte == b'\\' { b'/' } else { byte })
        .collect();
    resolve(&slashed, out);
}

/// `//` and `/./` become one slash and `x/../` goes. What climbs above the start of a relative path
/// stays; above the root there is nothing.
fn resolve(input: &[u8], out: &mut Vec<u8>) {
    // Most values are one part.
    if memchr::memchr(b'/', input).is_none() {
        if input != b"." {
            out.extend_from_slice(input);
        }
        return;
    }
    let absolute = input.first() == Some(&b'/');
    if absolute {
        out.push(b'/');
    }
    // Where each kept part begins that a `..` may take back.
    let mut starts: Vec<usize> = Vec::new();
    let mut parts = input
        .split(|&byte| byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .peekable();
    while let Some(part) = parts.next() {
        if part == b".." {
            if let Some(start) = starts.pop() {
                out.truncate(start);
                continue;
            }
            if absolute {
                continue;
            }
        } else {
            starts.push(out.len());
        }
        out.extend_from_slice(part);
        if parts.peek().is_some() || input.last() == Some(&b'/') {
            out.push(b'/');
        }
    }
    // A `..` that came last leaves the slash of the part before it.
    if input.last() != Some(&b'/') && out.len() > 1 && out.last() == Some(&b'/') {
        out.pop();
    }
}
