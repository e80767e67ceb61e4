//! `deploy/godwit.toml` is the configuration's documentation: it names every key, with its default.

use abi::config::Config;
use std::collections::BTreeSet;

const SHIPPED: &str = include_str!("../../deploy/godwit.toml");

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
fn the_shipped_file_is_the_defaults() {
    assert_eq!(toml::from_str::<Config>(SHIPPED).unwrap(), Config::default());
}

#[test]
fn the_shipped_file_names_every_key_and_no_other() {
    let defaults = toml::Table::try_from(Config::default()).unwrap();
    assert_eq!(keys(&toml::from_str(SHIPPED).unwrap()), keys(&defaults));
}

#[test]
fn every_key_of_the_shipped_file_is_documented() {
    let lines: Vec<_> = SHIPPED.lines().collect();
    for (above, line) in lines.iter().zip(&lines[1..]).filter(|(_, line)| line.contains(" = ")) {
        assert!(above.starts_with("# ") || line.starts_with('#'), "nothing is said about {line}");
    }
}
