//! Intended differences. A listed case must differ.

use backend_api::DType;

/// An intended difference.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// The backend, or `*` for all.
    pub backend: &'static str,
    /// Group and name of the case; a `*` matches any text.
    pub case: &'static str,
    /// The element type; `None` for all.
    pub dtype: Option<DType>,
    /// The reason for the difference.
    pub reason: &'static str,
}

/// All intended differences.
pub const EXPECTED: &[Expected] = &[Expected {
    backend: "*",
    case: "memory/segments of other lengths, at once, *",
    dtype: None,
    reason: "kernel gradients are summed by segment first, so another length changes the order",
}];

impl Expected {
    /// Whether the entry applies to a case.
    pub fn is_about(&self, backend: &str, case: &str, dtype: DType) -> bool {
        matches(self.backend, backend)
            && matches(self.case, case)
            && self.dtype.is_none_or(|only| only == dtype)
    }
}

/// Whether a text matches a pattern with any number of `*`.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(left) = text.strip_prefix(start) else {
        return false;
    };
    // The text matched by the star may end at any position where the rest of the pattern matches.
    let ends = left.char_indices().map(|(i, _)| i).chain([left.len()]);
    ends.into_iter().any(|end| matches(rest, &left[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_match_anything() {
        assert!(matches("a/b", "a/b"));
        assert!(!matches("a/b", "a/b c"));
        assert!(matches("a/*", "a/"));
        assert!(matches("a/*d", "a/b d c d"));
        assert!(matches("*b*", "abc"));
        assert!(!matches("*x*", "abc"));
        assert!(!matches("a/*", "b/a/"));
    }
}
