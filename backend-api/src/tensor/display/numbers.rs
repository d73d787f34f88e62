//! Floats in NumPy's form: the shortest digits that denote the number, at most 8 after the point,
//! with the points below each other.

use std::fmt::LowerExp;

/// The most digits after the point.
const PRECISION: usize = 8;

/// A float whose shortest digits are known.
pub(super) trait Float: Copy + Into<f64> {
    /// The number with the fewest digits that denote it, as in `1.25e-3`.
    fn shortest(self) -> String;
}

impl Float for f32 {
    fn shortest(self) -> String {
        format!("{self:e}")
    }
}

impl Float for f64 {
    fn shortest(self) -> String {
        format!("{self:e}")
    }
}

/// The number with the fewest digits that `read` reads as the number.
fn fewest(x: impl LowerExp, denotes: impl Fn(f32) -> bool) -> String {
    let texts = (0..PRECISION).map(|digits| format!("{x:.digits$e}"));
    let mut exact = texts.filter(|text| text.parse().is_ok_and(&denotes));
    exact.next().unwrap_or_else(|| format!("{x:e}"))
}

impl Float for half::f16 {
    fn shortest(self) -> String {
        fewest(self.to_f32(), |x| Self::from_f32(x) == self)
    }
}

impl Float for half::bf16 {
    fn shortest(self) -> String {
        fewest(self.to_f32(), |x| Self::from_f32(x) == self)
    }
}

/// How numbers are written.
#[derive(Clone, Copy)]
pub(super) struct Style {
    /// Whether a number has no others to be aligned with.
    pub(super) single: bool,
    /// The digits after the point, if the caller asks for a number of them.
    pub(super) precision: Option<usize>,
}

/// The numbers as words. All have the same number of digits after the point, or spaces in place of
/// them.
pub(super) fn words<F: Float>(numbers: &[F], style: Style) -> Vec<String> {
    let Style { single, precision } = style;
    if let Some(digits) = precision {
        let word = |x: f64| match x.is_nan() {
            true => "nan".to_owned(),
            false => format!("{x:.digits$}"),
        };
        return numbers.iter().map(|&x| word(x.into())).collect();
    }
    let wide = || numbers.iter().map(|&x| x.into());
    let sizes = || wide().map(f64::abs).filter(|x| x.is_finite() && *x != 0.0);
    let largest = sizes().fold(0.0, f64::max);
    let smallest = sizes().fold(f64::INFINITY, f64::min);
    let scientific = match single {
        true => largest >= 1e16 || smallest < 1e-4,
        false => largest >= 1e8 || smallest < 1e-4 || largest / smallest > 1000.0,
    } && largest > 0.0;
    let word = |(x, wide): (&F, f64)| match wide.is_finite() {
        true if scientific => exponential(*x),
        true => positional(*x),
        // NumPy's names.
        false if wide.is_nan() => ("nan".to_owned(), None),
        false => (wide.to_string(), None),
    };
    let parts: Vec<(String, Option<String>)> = numbers.iter().zip(wide()).map(word).collect();
    if scientific {
        return exponentials(parts, single);
    }
    let after = |fraction: &Option<String>| fraction.as_ref().map_or(0, String::len);
    let digits = parts
        .iter()
        .map(|(_, fraction)| after(fraction))
        .max()
        .unwrap_or(0);
    let word = |(whole, fraction): (String, Option<String>)| match fraction {
        Some(fraction) if single && fraction.is_empty() => format!("{whole}.0"),
        Some(fraction) => format!("{whole}.{fraction:<digits$}"),
        None => whole,
    };
    parts.into_iter().map(word).collect()
}

/// The digits before and after the point.
fn positional<F: Float>(x: F) -> (String, Option<String>) {
    let (digits, exponent) = split(&x.shortest());
    let text = match exponent {
        // The digits of the number itself, not those of its type, which `f64` would add.
        exponent if digits.len() as i32 - 1 - exponent <= PRECISION as i32 => {
            let unit = exponent - (digits.len() as i32 - 1);
            return placed(x.into(), &digits, unit);
        }
        _ => format!("{:.PRECISION$}", x.into()),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    (
        whole.to_owned(),
        Some(fraction.trim_end_matches('0').to_owned()),
    )
}

/// The digits of a number whose last digit has the weight `10^unit`.
fn placed(x: f64, digits: &str, unit: i32) -> (String, Option<String>) {
    let sign = if x.is_sign_negative() { "-" } else { "" };
    let (whole, fraction) = match usize::try_from(-unit) {
        Ok(after) => {
            let digits = format!("{digits:0>width$}", width = after + 1);
            let (whole, fraction) = digits.split_at(digits.len() - after);
            (whole.to_owned(), fraction.trim_end_matches('0').to_owned())
        }
        Err(_) => (
            format!("{digits}{}", "0".repeat(unit as usize)),
            String::new(),
        ),
    };
    (format!("{sign}{whole}"), Some(fraction))
}

/// The digits of a text such as `-1.25e-3`, without point and sign, and the exponent of the first.
fn split(text: &str) -> (String, i32) {
    let (digits, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let digits = digits.chars().filter(char::is_ascii_digit).collect();
    (digits, exponent.parse().unwrap_or(0))
}

/// The digits before the exponent, and the exponent.
fn exponential<F: Float>(x: F) -> (String, Option<String>) {
    let mut text = x.shortest();
    if split(&text).0.len() > PRECISION + 1 {
        text = format!("{:.PRECISION$e}", x.into());
    }
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let digits = match digits.contains('.') {
        true => digits.trim_end_matches('0').to_owned(),
        false => format!("{digits}."),
    };
    (digits, Some(exponent.to_owned()))
}

/// Numbers with exponents: as many digits, and digits of the exponent, as the longest has.
fn exponentials(parts: Vec<(String, Option<String>)>, single: bool) -> Vec<String> {
    let fraction = |digits: &str| digits.split_once('.').map_or(0, |(_, after)| after.len());
    let finite = || {
        parts
            .iter()
            .filter_map(|(digits, e)| Some((digits, e.as_ref()?)))
    };
    let most = finite()
        .map(|(digits, _)| fraction(digits))
        .max()
        .unwrap_or(0);
    let exponents = finite().map(|(_, e)| e.trim_start_matches('-').len());
    let width = exponents.max().unwrap_or(0).max(2);
    let word = |(digits, exponent): (String, Option<String>)| match exponent {
        None => digits,
        Some(e) => {
            let zeros = "0".repeat(most - fraction(&digits));
            let digits = if single {
                digits.trim_end_matches('.')
            } else {
                &digits
            };
            let (sign, e) = e.strip_prefix('-').map_or(('+', &*e), |e| ('-', e));
            format!("{digits}{zeros}e{sign}{e:0>width$}")
        }
    };
    parts.into_iter().map(word).collect()
}
