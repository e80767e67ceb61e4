//! `deploy/godwit.toml` and `docs/configuration.md` are up to date and complete.

use abi::config::{Config, reference};
use std::collections::BTreeSet;

const FILE: &str = include_str!("../../deploy/godwit.toml");
const PAGE: &str = include_str!("../../docs/configuration.md");
/// Files that set keys by environment variables.
const DEPLOYED: [&str; 2] =
    [include_str!("../../deploy/Dockerfile"), include_str!("../../deploy/compose.yaml")];
const UPDATE: &str = "is out of date; update it by: cargo run -p abi --example configuration";

fn keys(table: &toml::Table) -> BTreeSet<String> {
    table
        .iter()
        .flat_map(|(name, value)| match value {
            toml::Value::Table(section) => section.keys().map(|key| format!("{name}.{key}")).collect(),
            _ => vec![name.clone()],
        })
        .collect()
}

#[test]
fn the_file_contains_the_defaults() {
    assert_eq!(toml::from_str::<Config>(FILE).unwrap(), Config::default());
}

#[test]
fn the_file_names_every_key_and_no_other() {
    let defaults = toml::Table::try_from(Config::default()).unwrap();
    assert_eq!(keys(&toml::from_str(FILE).unwrap()), keys(&defaults));
}

#[test]
fn the_file_documents_every_key() {
    let lines: Vec<_> = FILE.lines().collect();
    for (above, line) in lines.iter().zip(&lines[1..]).filter(|(_, line)| line.contains(" = ")) {
        assert!(above.starts_with("# ") || line.starts_with('#'), "no documentation of {line}");
    }
}

#[test]
fn the_file_is_up_to_date() {
    assert!(FILE == reference::file(), "deploy/godwit.toml {UPDATE}");
    for line in FILE.lines().filter(|line| line.starts_with('#')) {
        assert!(line.chars().count() <= 120, "too long: {line}");
    }
}

#[test]
fn the_page_is_up_to_date() {
    assert!(PAGE == reference::page(), "docs/configuration.md {UPDATE}");
}

#[test]
fn the_page_has_every_key() {
    let rows = PAGE.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, keys(&toml::from_str(FILE).unwrap()).len());
}

#[test]
fn images_and_compose_set_keys_that_exist() {
    let known = keys(&toml::from_str(FILE).unwrap());
    let words = DEPLOYED.iter().flat_map(|text| text.split(|c: char| c != '_' && !c.is_ascii_uppercase()));
    let variables: BTreeSet<_> =
        words.filter_map(|word| word.strip_prefix("GODWIT_")?.split_once("__")).collect();
    assert!(variables.len() > 10, "{variables:?}");
    for (section, key) in variables {
        let key = format!("{section}.{key}").to_lowercase();
        assert!(known.contains(&key), "there is no key {key}");
    }
}
