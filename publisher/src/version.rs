//! Debian's order of versions (deb-version(7)), for the warning about going backwards. Hosts have
//! their own; nothing that is signed depends on this.

use std::cmp::Ordering;

/// `~` sorts before the end, letters before everything else that is no digit.
fn rank(c: u8) -> i32 {
    match c {
        b'~' => -1,
        c if c.is_ascii_alphabetic() => i32::from(c),
        c => i32::from(c) + 256,
    }
}

/// Takes the part of `text` for which `f` holds off its front.
fn take<'a>(text: &mut &'a [u8], f: fn(&u8) -> bool) -> &'a [u8] {
    let at = text.iter().position(|c| !f(c)).unwrap_or(text.len());
    let (head, rest) = text.split_at(at);
    *text = rest;
    head
}

fn compare_words(a: &[u8], b: &[u8]) -> Ordering {
    let at = |s: &[u8], i: usize| s.get(i).map_or(0, |c| rank(*c));
    (0..a.len().max(b.len()))
        .map(|i| at(a, i).cmp(&at(b, i)))
        .find(|o| o.is_ne())
        .map_or(Ordering::Equal, |o| o)
}

fn compare_numbers(a: &[u8], b: &[u8]) -> Ordering {
    let strip = |s: &[u8]| -> Vec<u8> { s.iter().copied().skip_while(|c| *c == b'0').collect() };
    let (a, b) = (strip(a), strip(b));
    a.len().cmp(&b.len()).then_with(|| a.cmp(&b))
}

fn compare_part(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while !a.is_empty() || !b.is_empty() {
        let word = |c: &u8| !c.is_ascii_digit();
        let order = compare_words(take(&mut a, word), take(&mut b, word));
        let order = order.then_with(|| {
            compare_numbers(take(&mut a, u8::is_ascii_digit), take(&mut b, u8::is_ascii_digit))
        });
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

/// Epoch, upstream version and revision.
fn split(version: &str) -> (&str, &str, &str) {
    let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, "0"));
    (epoch, upstream, revision)
}

/// Compares two versions as dpkg does.
#[must_use]
pub fn compare(a: &str, b: &str) -> Ordering {
    let ((ea, ua, ra), (eb, ub, rb)) = (split(a), split(b));
    compare_part(ea, eb).then_with(|| compare_part(ua, ub)).then_with(|| compare_part(ra, rb))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The order of deb-version(7), and what dpkg itself says about the same pairs.
    #[test]
    fn as_dpkg_says() {
        for (a, b) in [
            ("1.0~rc1", "1.0"),
            ("1.0", "1.0a"),
            ("1.0a", "1.0+b1"),
            ("1.9", "1.10"),
            ("1.0-1", "1.0-2"),
            ("9.9", "1:0.1"),
            ("1.0~~", "1.0~"),
            ("1.0-1", "1.0-1+deb12u1"),
            ("1.0", "1.0.0"),
        ] {
            assert_eq!(compare(a, b), Ordering::Less, "{a} {b}");
            assert_eq!(compare(b, a), Ordering::Greater, "{b} {a}");
            let dpkg = std::process::Command::new("dpkg");
            let mut dpkg = dpkg;
            if let Ok(status) = dpkg.args(["--compare-versions", a, "lt", b]).status() {
                assert!(status.success(), "dpkg: {a} {b}");
            }
        }
        assert_eq!(compare("1.0", "1.0-0"), Ordering::Equal);
        assert_eq!(compare("1.01", "1.1"), Ordering::Equal);
    }
}
