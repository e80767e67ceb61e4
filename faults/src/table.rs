//! The table at the end of a run.

use super::{
    checker::Verdict,
    fault::Kind,
    nemesis::{FaultRecord, Report},
};
use std::{collections::BTreeMap, time::Duration};

/// All lines: recovery times by kind of fault, totals, and violations.
pub(super) fn lines(mode: &str, seed: u64, report: &Report, verdict: &Verdict) -> Vec<String> {
    let mut kinds: BTreeMap<Kind, Vec<&FaultRecord>> = BTreeMap::new();
    for fault in &report.faults {
        kinds.entry(fault.kind).or_default().push(fault);
    }
    let mut lines = vec![
        String::new(),
        format!(
            "{:<34} {:>6} {:>10} {:>10} {:>10} {:>10}",
            "fault", "count", "recovery", "worst", "pause", "worst"
        ),
    ];
    for (kind, faults) in &kinds {
        let recovery: Vec<_> = faults.iter().filter_map(|fault| fault.recovered_in).collect();
        let pause: Vec<_> = faults.iter().map(|fault| fault.longest_pause).collect();
        let [(recovery, worst), (pause, longest)] = [recovery, pause].map(median_and_worst);
        lines.push(format!(
            "{:<34} {:>6} {recovery:>10} {worst:>10} {pause:>10} {longest:>10}",
            kind.to_string(),
            faults.len()
        ));
    }
    lines.push(format!("{} faults of {} kinds", report.faults.len(), kinds.len()));
    lines.push(String::new());
    let figures = &verdict.figures;
    lines.push(format!(
        "{mode}, seed {seed}: {} sent, {} acknowledged, {} refused, {} unknown; {} entries stored in {} conversations; \
         {} entries shown on {} devices, {} of them live on raw devices; {} claims of completeness checked, {} history entries read",
        figures.sent,
        figures.acked,
        figures.refused,
        figures.unknown,
        figures.stored,
        figures.conversations,
        figures.receipts,
        figures.devices,
        figures.live,
        figures.claims,
        figures.read,
    ));
    lines.extend(verdict.to_string().lines().map(str::to_owned));
    lines.push(format!("{:<32} {}", "other findings", report.findings.len()));
    lines.extend(report.findings.iter().map(|finding| format!("    {finding}")));
    lines
}

fn median_and_worst(mut times: Vec<Duration>) -> (String, String) {
    times.sort();
    let seconds =
        |time: Option<&Duration>| time.map_or("-".into(), |time| format!("{:.1} s", time.as_secs_f64()));
    (seconds(times.get(times.len() / 2)), seconds(times.last()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_worst_of_times_in_any_order() {
        let times = [3, 1, 2].map(Duration::from_secs).to_vec();
        assert_eq!(median_and_worst(times), ("2.0 s".to_owned(), "3.0 s".to_owned()));
        assert_eq!(median_and_worst(vec![]), ("-".to_owned(), "-".to_owned()));
    }
}
