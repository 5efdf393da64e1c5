//! Which of the nodes that fit is best: one file per rule, each a pure function of pod and node.
//!
//! A new rule is a file beside these and a line in [`SCORES`].

mod balanced;
mod least_allocated;
mod least_used;
mod node_affinity;
mod taints;

use crate::{demand::Demand, view::NodeView};

/// The most points a rule gives, before its weight.
pub const POINTS_MAX: i64 = 100;

/// How raw values of one rule become points over the nodes that are compared.
enum Scale {
    /// They are points already, 0 to 100.
    Points,
    /// The highest gets all points, the others in proportion.
    MoreIsBetter,
    /// The highest gets none, zero gets all.
    FewerIsBetter,
}

struct Score {
    name: &'static str,
    weight: i64,
    scale: Scale,
    raw: fn(&Demand, &NodeView) -> i64,
    /// Whether the rule says anything about this pod; a rule that does not is left out.
    speaks: fn(&Demand) -> bool,
}

fn always(_: &Demand) -> bool {
    true
}

const SCORES: [Score; 5] = [
    Score { name: "least-allocated", weight: 1, scale: Scale::Points, raw: least_allocated::points, speaks: always },
    Score { name: "balanced", weight: 1, scale: Scale::Points, raw: balanced::points, speaks: always },
    Score { name: "least-used", weight: 2, scale: Scale::Points, raw: least_used::points, speaks: always },
    Score {
        name: "node-affinity",
        weight: 2,
        scale: Scale::MoreIsBetter,
        raw: node_affinity::weight,
        speaks: |pod| !pod.preferred_affinity.is_empty(),
    },
    Score { name: "taints", weight: 3, scale: Scale::FewerIsBetter, raw: taints::count, speaks: always },
];

/// The points of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Points {
    /// Rule name to points, before weights.
    pub rules: Vec<(&'static str, i64)>,
    /// The weighted sum.
    pub total: i64,
}

/// The weighted sum of points of every node, in the order given.
pub fn totals(pod: &Demand, nodes: &[&NodeView]) -> Vec<i64> {
    let mut totals = vec![0; nodes.len()];
    each(pod, nodes, |score, at, points| totals[at] += points * score.weight);
    totals
}

/// The points of every node rule by rule, in the order given.
pub fn explain(pod: &Demand, nodes: &[&NodeView]) -> Vec<Points> {
    let mut all = vec![Points::default(); nodes.len()];
    each(pod, nodes, |score, at, points| {
        all[at].rules.push((score.name, points));
        all[at].total += points * score.weight;
    });
    all
}

fn each(pod: &Demand, nodes: &[&NodeView], mut tell: impl FnMut(&Score, usize, i64)) {
    let mut raws = vec![0; nodes.len()];
    for score in SCORES.iter().filter(|score| (score.speaks)(pod)) {
        for (raw, node) in raws.iter_mut().zip(nodes) {
            *raw = (score.raw)(pod, node);
        }
        let highest = raws.iter().copied().max().unwrap_or_default();
        for (at, &raw) in raws.iter().enumerate() {
            let points = match score.scale {
                Scale::Points => raw,
                Scale::MoreIsBetter if highest <= 0 => 0,
                Scale::MoreIsBetter => raw.max(0) * POINTS_MAX / highest,
                Scale::FewerIsBetter if highest <= 0 => POINTS_MAX,
                Scale::FewerIsBetter => POINTS_MAX - raw * POINTS_MAX / highest,
            };
            tell(score, at, points);
        }
    }
}

/// The points for `free` of `offered`: all where everything is free, none where nothing is.
fn share(free: i64, offered: i64) -> i64 {
    if offered <= 0 { 0 } else { (free.clamp(0, offered) as i128 * POINTS_MAX as i128 / offered as i128) as i64 }
}
