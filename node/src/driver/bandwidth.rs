//! The limits of content transfer as time goes by: when others hold, the planner is told, and
//! status, metrics and events say which.

use serde_json::{Value, json};

use super::Driver;
use crate::transfer::{Input, Limit, Limits, Way};

fn limit_json(limit: Limit) -> Value {
    json!({ "bytes_per_s": limit.per_s, "closed": limit.closed })
}

fn limits_json(limits: &Limits) -> Value {
    Way::ALL.iter().map(|w| (w.name().to_owned(), limit_json(limits.of(*w)))).collect()
}

/// `up 40000000 B/s, wan_up none but urgent`, or that there are none.
fn text(limits: &Limits) -> String {
    let one = |way: &Way| {
        let limit = limits.of(*way);
        let rate = limit.per_s.map(|r| format!("{r} B/s"));
        let text = match (limit.closed, rate) {
            (false, rate) => rate?,
            (true, None) => "urgent content only".to_owned(),
            (true, Some(rate)) => format!("urgent content only, {rate}"),
        };
        Some(format!("{} {text}", way.name()))
    };
    let all: Vec<String> = Way::ALL.iter().filter_map(one).collect();
    if all.is_empty() { "no limits".to_owned() } else { all.join(", ") }
}

impl Driver {
    /// Limits that hold now, if the operator wrote any.
    fn planned_limits(&self) -> Limits {
        self.config.bandwidth.at(self.clock.unix())
    }

    fn limits_in_force(&self) -> Limits {
        let of = |way| self.planner.limit(way).0;
        Limits {
            up: of(Way::Up),
            down: of(Way::Down),
            wan_up: of(Way::WanUp),
            wan_down: of(Way::WanDown),
        }
    }

    /// Tells the planner where other limits hold than before. Looked at once a second, so that it
    /// does not matter how the calendar came to show what it shows.
    pub(super) fn follow_bandwidth(&mut self) {
        let limits = self.planned_limits();
        if limits != self.limits_in_force() {
            self.event("bandwidth", text(&limits));
            self.planner_input(Input::Limits(limits));
        }
    }

    /// For `stork status`.
    pub(super) fn bandwidth_json(&self) -> Value {
        let now = self.clock.unix();
        let changes_at = self.config.bandwidth.next_change(now);
        let waits: Value =
            Way::ALL.iter().map(|w| (w.name().to_owned(), self.planner.limit(*w).1)).collect();
        json!({
            "limits": limits_json(&self.limits_in_force()), "waits": waits,
            "changes_at": changes_at,
            "then": changes_at.map(|at| limits_json(&self.config.bandwidth.at(at))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The event names what is limited, and says so where nothing is.
    #[test]
    fn texts() {
        assert_eq!(text(&Limits::default()), "no limits");
        let limits = Limits {
            up: Limit { per_s: Some(1_000), closed: false },
            down: Limit { per_s: None, closed: true },
            wan_up: Limit { per_s: Some(5_000), closed: true },
            ..Limits::default()
        };
        let all = "up 1000 B/s, down urgent content only, wan_up urgent content only, 5000 B/s";
        assert_eq!(text(&limits), all);
    }
}
