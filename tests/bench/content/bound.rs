//! What no method can be faster than: the bound that every figure is divided by.

use super::bed::Shape;

/// For people, and for ratios.
#[expect(clippy::cast_precision_loss, reason = "figures for people: bytes and bits below 2^52")]
pub(crate) const fn float(n: u64) -> f64 {
    n as f64
}

/// Seconds in which a content of so many bytes can be at all hosts but a slow one: the largest of
/// what the origin needs to send it once, the slowest of those hosts to receive it, all uplinks
/// together to carry all copies, and the link of a further site to let it in once.
pub(crate) fn seconds(shape: &Shape, len: u64) -> f64 {
    let bits = float(len * 8);
    let hosts: Vec<usize> = (1..=shape.hosts).filter(|h| shape.slow != Some(*h)).collect();
    let origin = float(shape.rate(0));
    let slowest = hosts.iter().map(|h| shape.rate(*h)).min().unwrap_or(1);
    let uplinks: u64 = (1..=shape.hosts).map(|h| shape.rate(h)).sum();
    let copies = float(u64::try_from(hosts.len()).unwrap_or(u64::MAX));
    let mut bound = (bits / origin).max(bits / float(slowest));
    bound = bound.max(copies * bits / (origin + float(uplinks)));
    if shape.sites > 1 {
        bound = bound.max(bits / float(shape.wan_mbit * 1_000_000));
    }
    bound
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { hosts: 4, rate_mbit: 8, sites: 1, wan_mbit: 4, slow: None };

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn one_site_waits_for_the_first_card() {
        assert!(close(seconds(&SHAPE, 8_000_000), 8.0));
    }

    #[test]
    fn two_sites_wait_for_the_link() {
        let shape = Shape { sites: 2, ..SHAPE };
        assert!(close(seconds(&shape, 8_000_000), 16.0));
        assert_eq!((1..=4).map(|h| shape.site(h)).collect::<Vec<_>>(), [1, 1, 2, 2]);
    }

    #[test]
    fn a_slow_host_is_not_waited_for_and_carries_little() {
        let shape = Shape { slow: Some(2), ..SHAPE };
        assert!(close(seconds(&shape, 8_000_000), 8.0));
        let alone = Shape { hosts: 1, slow: None, ..SHAPE };
        assert!(close(seconds(&alone, 8_000_000), 8.0));
    }
}
