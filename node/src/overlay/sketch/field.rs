//! Arithmetic modulo the largest prime below 2^64, in which the cells of a sketch are summed.

/// 2^64 - 59.
pub(super) const P: u64 = 0xffff_ffff_ffff_ffc5;
/// 2^64 modulo [`P`].
const FOLD: u64 = 59;

/// Any number as its remainder.
pub(super) const fn reduce(a: u64) -> u64 {
    if a >= P { a - P } else { a }
}

/// The sum of two remainders.
pub(super) const fn add(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    if carry { sum + FOLD } else { reduce(sum) }
}

/// The difference of two remainders.
pub(super) const fn sub(a: u64, b: u64) -> u64 {
    if a >= b { a - b } else { a.wrapping_sub(b).wrapping_sub(FOLD) }
}

/// The product of two remainders. 2^64 is folded to 59 twice; the second time nothing is left over.
pub(super) fn mul(a: u64, b: u64) -> u64 {
    let (low, high) = a.carrying_mul(b, 0);
    let (low, high) = high.carrying_mul(FOLD, low);
    let (sum, carry) = low.overflowing_add(high * FOLD);
    reduce(if carry { sum + FOLD } else { sum })
}

/// One divided by a remainder that is not 0, by Fermat's little theorem.
pub(super) fn invert(a: u64) -> u64 {
    let (mut out, mut power, mut left) = (1, a, P - 2);
    while left > 0 {
        if left & 1 == 1 {
            out = mul(out, power);
        }
        power = mul(power, power);
        left >>= 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::super::rng::Rng;
    use super::*;

    /// Against arithmetic of 128 bits, at the edges and at random places.
    #[test]
    fn field_agrees_with_wide_arithmetic() {
        let mut rng = Rng::new(3);
        let mut all = vec![0, 1, 2, 58, 59, 60, P - 60, P - 59, P - 2, P - 1];
        all.extend((0..60).map(|_| reduce(rng.next())));
        let wide = |n: u128| u64::try_from(n % u128::from(P)).unwrap();
        for &a in &all {
            for &b in &all {
                let (x, y) = (u128::from(a), u128::from(b));
                assert_eq!(add(a, b), wide(x + y));
                assert_eq!(mul(a, b), wide(x * y), "{a} * {b}");
                assert_eq!(sub(a, b), wide(x + u128::from(P) - y));
            }
            assert!(a == 0 || mul(a, invert(a)) == 1);
        }
        assert_eq!((reduce(P), reduce(u64::MAX)), (0, 58));
    }
}
