//! Dashboards, alerts and autoscaling rules, compared with the metrics that running programs export.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};
use tests::{
    device::new_id,
    eventually, http,
    system::{DISTRIBUTED_PROGRAMS, Distributed, Embedded},
    world::World,
};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(repository().join(path)).with_context(|| format!("read {path}"))
}

/// The dashboards by the names of their files.
fn dashboards() -> Result<BTreeMap<String, Value>> {
    let mut dashboards = BTreeMap::new();
    for file in fs::read_dir(repository().join("deploy/grafana/dashboards"))? {
        let path = file?.path();
        let name = path.file_name().context("a file has a name")?.to_string_lossy().into_owned();
        let dashboard = serde_json::from_str(&fs::read_to_string(&path)?).with_context(|| name.clone())?;
        dashboards.insert(name, dashboard);
    }
    Ok(dashboards)
}

/// The names of all metrics in a text, without the suffix `_bucket` of histograms.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names = words.filter(|word| word.starts_with("godwit_"));
    names.map(|name| name.strip_suffix("_bucket").unwrap_or(name).to_owned()).collect()
}

pub(crate) async fn every_alert_has_a_runbook_and_every_runbook_an_alert() -> Result<()> {
    let (rules, page) = (read("deploy/prometheus/alerts.yaml")?, read("docs/runbooks.md")?);
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    ensure!(alerts.len() > 10, "{} alerts", alerts.len());
    let sections: BTreeMap<_, _> = page
        .split("\n## ")
        .skip(1)
        .map(|section| section.split_once('\n').unwrap_or((section, "")))
        .collect();
    assert_eq!(
        sections.keys().copied().collect::<BTreeSet<_>>(),
        alerts.iter().copied().collect(),
        "sections of docs/runbooks.md, and alerts"
    );
    for alert in alerts {
        let link = format!("runbook: docs/runbooks.md#{}\n", alert.to_lowercase());
        ensure!(rules.contains(&link), "{alert} does not name its runbook");
        let positions =
            ["**Meaning.**", "**Impact.**", "**Actions.**"].map(|part| sections[alert].find(part));
        ensure!(
            positions[0].is_some() && positions.is_sorted(),
            "{alert}: its runbook needs the parts Meaning, Impact and Actions, in this order"
        );
    }
    Ok(())
}

pub(crate) async fn every_program_has_a_dashboard_and_all_use_one_data_source() -> Result<()> {
    let dashboards = dashboards()?;
    for name in ["overview", "path"].iter().chain(&DISTRIBUTED_PROGRAMS) {
        ensure!(dashboards.contains_key(&format!("{name}.json")), "there is no dashboard {name}");
    }
    let source = "godwit-prometheus";
    ensure!(read("deploy/grafana/provisioning/datasources/godwit.yaml")?.contains(source));
    for (name, dashboard) in &dashboards {
        let panels = dashboard["panels"].as_array().context("panels")?;
        let ids: BTreeSet<_> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
        assert_eq!(ids.len(), panels.len(), "{name}: panel ids are unique");
        for panel in panels.iter().filter(|panel| panel["type"] != "row") {
            let title = &panel["title"];
            assert_eq!(panel["datasource"]["uid"], source, "{name}: {title}");
            let targets = panel["targets"].as_array().context("targets")?;
            ensure!(!targets.is_empty(), "{name}: {title} has no query");
            for target in targets {
                let query = target["expr"].as_str().unwrap_or_default();
                ensure!(
                    !metrics_in(query).is_empty(),
                    "{name}: {title} queries no metric of Godwit: {query}"
                );
            }
        }
    }
    Ok(())
}

pub(crate) async fn every_metric_of_a_dashboard_or_an_alert_is_exported() -> Result<()> {
    let mut named = BTreeMap::new();
    for path in [
        "deploy/prometheus/alerts.yaml",
        "deploy/helm/prometheus-adapter.yaml",
        "deploy/helm/godwit/templates/availability.yaml",
    ] {
        let metrics = metrics_in(&read(path)?);
        ensure!(!metrics.is_empty(), "{path} names no metric");
        named.extend(metrics.into_iter().map(|metric| (metric, path.to_owned())));
    }
    for (name, dashboard) in dashboards()? {
        named.extend(metrics_in(&dashboard.to_string()).into_iter().map(|metric| (metric, name.clone())));
    }
    let embedded = Embedded::start(&[]).await?;
    let mut distributed = Distributed::start(&[]).await?;
    let mut admins = vec![embedded.admin().to_owned()];
    for program in DISTRIBUTED_PROGRAMS {
        admins.extend(distributed.instances(program).map(|instance| instance.admin().to_owned()));
    }
    // The worlds own the systems, which must run until the end.
    let worlds = [World::new(Arc::new(embedded)), World::new(Arc::new(distributed))];
    for world in &worlds {
        let (alice, bob) = world.two_users().await?;
        let (mut alice_device, mut bob_device) = (world.connect(&alice).await?, world.connect(&bob).await?);
        alice_device.send(&alice.conversation_with(&bob), &new_id(), "hello").await?;
        bob_device.entries(1).await?;
    }
    eventually("every named metric is exported", async || {
        let mut exported = BTreeSet::new();
        for admin in &admins {
            let answer = http::request(admin, "GET", "/metrics", None, None).await?;
            let series = answer.body.lines().filter(|line| !line.starts_with('#'));
            exported.extend(series.flat_map(metrics_in));
        }
        let missing: Vec<_> = named.iter().filter(|(metric, _)| !exported.contains(*metric)).collect();
        ensure!(missing.is_empty(), "named but not exported (metric, file): {missing:?}");
        Ok(())
    })
    .await
}
