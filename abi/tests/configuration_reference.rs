//! `deploy/godwit.toml` is the configuration's documentation: it names every key, with its default.

use abi::config::Config;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

const SHIPPED: &str = include_str!("../../deploy/godwit.toml");
/// What sets keys by variables of the environment.
const DEPLOYED: [&str; 2] =
    [include_str!("../../deploy/Dockerfile"), include_str!("../../deploy/compose.yaml")];

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

/// What the structs say of each key, `section.key` or `section`, out of their sources.
fn said_by_structs() -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = fs::read_dir(folder.join("config"))
        .expect("the configuration has a folder of sources")
        .map(|file| file.expect("a folder can be read").path());
    let mut said = BTreeMap::new();
    for file in files.chain([folder.join("config.rs")]) {
        let (mut section, mut docs) = (String::new(), Vec::new());
        for line in fs::read_to_string(&file).expect("sources can be read").lines().map(str::trim) {
            let field = || line.split_once(": ").filter(|(_, rest)| rest.contains(" = "));
            if let Some(text) = line.strip_prefix("/// ") {
                docs.push(text.to_owned());
            } else if let Some(name) = line.strip_suffix(" {").filter(|name| !name.contains(' ')) {
                section = name.to_lowercase();
                said.insert(section.clone(), std::mem::take(&mut docs).join(" "));
            } else if let Some((key, _)) = field() {
                let key = if section == "config" { key.to_owned() } else { format!("{section}.{key}") };
                said.entry(key).or_insert_with(|| std::mem::take(&mut docs).join(" "));
                docs.clear();
            } else if !line.starts_with("#[") {
                docs.clear();
            }
        }
    }
    said
}

#[test]
fn the_shipped_file_says_what_the_structs_say() {
    let (structs, mut section, mut docs) = (said_by_structs(), String::new(), Vec::new());
    for line in SHIPPED.lines() {
        let key = match line.split_once(" = ") {
            _ if line.starts_with("# ") => {
                docs.push(&line[2..]);
                continue;
            }
            Some((key, _)) if section.is_empty() => key.to_owned(),
            Some((key, _)) => format!("{section}.{key}"),
            None if line.starts_with('[') => {
                section = line.trim_matches(['[', ']']).to_owned();
                section.clone()
            }
            None => {
                docs.clear();
                continue;
            }
        };
        assert_eq!(structs.get(&key).map(String::as_str), Some(&*docs.join(" ")), "{key}");
        docs.clear();
    }
}

#[test]
fn images_and_compose_set_keys_that_exist() {
    let known = keys(&toml::from_str(SHIPPED).unwrap());
    let words = DEPLOYED.iter().flat_map(|text| text.split(|c: char| c != '_' && !c.is_ascii_uppercase()));
    let variables: BTreeSet<_> =
        words.filter_map(|word| word.strip_prefix("GODWIT_")?.split_once("__")).collect();
    assert!(variables.len() > 10, "{variables:?}");
    for (section, key) in variables {
        let key = format!("{section}.{key}").to_lowercase();
        assert!(known.contains(&key), "there is no key {key}");
    }
}
