//! Metrics: the table in `docs/metrics.md`, and the metrics that a program exports.

use crate::http;
use anyhow::{Context as _, Result, ensure};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// One metric, from the table or from a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metric {
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// Names of its labels.
    pub labels: BTreeSet<String>,
    /// Its help text.
    pub meaning: String,
}

/// Metrics by their names.
pub type Metrics = BTreeMap<String, Metric>;

/// The table of `docs/metrics.md`, which lists every metric.
///
/// # Errors
/// If the file can't be read.
pub fn table() -> Result<Metrics> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let page = std::fs::read_to_string(page).context("read docs/metrics.md")?;
    let rows = page.lines().filter(|line| line.starts_with("| `godwit_") && line.matches('|').count() == 5);
    rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let labels = cells[3].split('`').skip(1).step_by(2).map(str::to_owned).collect();
        let metric = Metric { kind: cells[2].into(), labels, meaning: cells[4].into() };
        Ok((cells[1].trim_matches('`').to_owned(), metric))
    })
    .collect()
}

/// The metrics that the program with this admin address exports now.
///
/// # Errors
/// If it does not answer in the text format of Prometheus.
pub async fn exported(admin: &str) -> Result<Metrics> {
    let answer = http::request(admin, "GET", "/metrics", None, None).await?;
    ensure!(answer.status == 200, "{answer:?}");
    let mut metrics = Metrics::new();
    for line in answer.body.lines() {
        let comment = |kind| line.strip_prefix(kind).and_then(|rest: &str| rest.split_once(' '));
        if let Some((name, meaning)) = comment("# HELP ") {
            metrics.entry(name.to_owned()).or_default().meaning = meaning.to_owned();
        } else if let Some((name, kind)) = comment("# TYPE ") {
            metrics.entry(name.to_owned()).or_default().kind = kind.to_owned();
        } else if let Some((series, _value)) = line.rsplit_once(' ') {
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
            let family = family.filter(|family| metrics.contains_key(*family)).unwrap_or(name);
            let metric = metrics.get_mut(family).with_context(|| format!("no TYPE before {line}"))?;
            // Godwit's label values contain neither quotes nor equals signs.
            let names = labels.split("\",").filter_map(|label| label.split_once('=')).map(|(name, _)| name);
            metric.labels.extend(names.filter(|name| *name != "le").map(str::to_owned));
        }
    }
    Ok(metrics)
}
