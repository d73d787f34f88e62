//! Differences that are there by design: a case that is listed has to differ.

use backend_api::DType;

/// A difference that is meant to be.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// The backend, or `*` for all.
    pub backend: &'static str,
    /// The case: group and name. A `*` stands for anything.
    pub case: &'static str,
    /// The type, if not all.
    pub dtype: Option<DType>,
    /// Why it differs.
    pub reason: &'static str,
}

/// All of them.
pub const EXPECTED: &[Expected] = &[Expected {
    backend: "*",
    case: "memory/segments of other lengths, at once, *",
    dtype: None,
    reason: "a kernel's gradient is summed within segments first, so another length sums in another order",
}];

impl Expected {
    /// Whether it is about a case.
    pub fn is_about(&self, backend: &str, case: &str, dtype: DType) -> bool {
        matches(self.backend, backend)
            && matches(self.case, case)
            && self.dtype.is_none_or(|only| only == dtype)
    }
}

/// Whether a text is what a pattern with any number of `*` says.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(left) = text.strip_prefix(start) else {
        return false;
    };
    // What the star stands for ends wherever the rest fits.
    let ends = left.char_indices().map(|(i, _)| i).chain([left.len()]);
    ends.into_iter().any(|end| matches(rest, &left[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        assert!(matches("a/b", "a/b"));
        assert!(!matches("a/b", "a/b c"));
        assert!(matches("a/*", "a/"));
        assert!(matches("a/*d", "a/b d c d"));
        assert!(matches("*b*", "abc"));
        assert!(!matches("*x*", "abc"));
        assert!(!matches("a/*", "b/a/"));
    }
}
