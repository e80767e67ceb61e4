//! The reference of all keys, generated from their definitions: `deploy/godwit.toml` and `docs/configuration.md`.

use super::{Config, Key, Section};

/// Head of the file.
const FILE_HEAD: &str = r#"# The configuration of all Godwit programs: every key with its default. Each program uses the keys that concern it.
# Later sources win: defaults < this file < environment (GODWIT_SECTION__KEY) < command line (--set section.key=value).
# Addresses are written "HOST:PORT", "[::1]:PORT", "PORT" (127.0.0.1) or ":PORT" (all addresses).
# Durations are written "5s" or "15m", sizes "16KiB". Secrets may be "file:PATH". An empty text means "not set".
# Generated from abi/src/config by: cargo run -p abi --example configuration
"#;

/// Longest line of the file, in characters.
const MAX_WIDTH: usize = 120;

/// Head of the page.
const PAGE_HEAD: &str = r#"# Configuration

Every key of every program, with its default and its bounds. This page and [deploy/godwit.toml](../deploy/godwit.toml) are generated
from `abi/src/config` by `cargo run -p abi --example configuration`.

All programs read the same configuration and use the keys that concern them. There are four sources, and later ones win:

1. the defaults
2. a file: `--config FILE` or `GODWIT_CONFIG`
3. the environment: `GODWIT_SECTION__KEY`, such as `GODWIT_GATEWAY__LISTEN`
4. the command line: `--set section.key=value`, and [shorter options](operate.md#command-line) for common keys

`--check-config` prints the resulting configuration without secrets, or all config errors at once. A program refuses unknown keys and
values out of bounds, and exits with code 64. It warns of other variables whose names begin with `GODWIT_`.

- Durations are written `500ms`, `5s`, `15m`, `1day`; sizes `512B`, `16KiB`, `1MiB`.
- Lists are TOML lists, or comma-separated text in the environment and on the command line.
- An empty text means "not set".
- An address to listen on is `HOST:PORT`; `[IPV6]:PORT`, such as `[::1]:7450`; `PORT` for this machine only, at 127.0.0.1; or `:PORT`
  for all addresses of the machine, IPv4 and IPv6. `[::]:PORT` is the same as `:PORT`; `0.0.0.0:PORT` is IPv4 only. Port 0 selects a
  free port.
- A secret may be `file:PATH`: it is then read from that file, without trailing white space. Programs never show secrets.

A change needs a restart. Every program may be restarted at any time.
"#;

/// Head of a table of keys.
const TABLE_HEAD: &str = "| key | default | bounds | meaning |\n|---|---|---|---|\n";

/// The text of `deploy/godwit.toml`.
pub fn file() -> String {
    let mut file = FILE_HEAD.to_owned();
    let config = Config::default();
    file.push('\n');
    append_keys(&mut file, &config);
    for (name, section) in config.sections() {
        file.push_str(&format!("\n{}[{name}]\n", comment(&section.docs())));
        append_keys(&mut file, section);
    }
    file
}

fn append_keys(file: &mut String, section: &dyn Section) {
    for key in section.keys() {
        let bounds = match bounds(&key) {
            bounds if bounds.is_empty() => bounds,
            bounds => format!(" # {bounds}"),
        };
        file.push_str(&format!("{}{} = {}{bounds}\n", comment(&key.docs), key.name, key.default));
    }
}

/// Several bounds as one sentence.
fn bounds(key: &Key) -> String {
    key.allowed.join(" and ")
}

/// Wraps a text as comment lines.
fn comment(text: &str) -> String {
    let (mut lines, mut line) = (String::new(), String::from("#"));
    for word in text.split(' ') {
        if line.chars().count() + 1 + word.chars().count() > MAX_WIDTH {
            lines.push_str(&std::mem::replace(&mut line, "#".into()));
            lines.push('\n');
        }
        line.push(' ');
        line.push_str(word);
    }
    lines + &line + "\n"
}

/// The text of `docs/configuration.md`.
pub fn page() -> String {
    let config = Config::default();
    let mut page = format!("{PAGE_HEAD}\n## Outside of all sections\n\n{}", table(&config));
    for (name, section) in config.sections() {
        page.push_str(&format!("\n## `[{name}]`\n\n{}\n\n{}", section.docs(), table(section)));
    }
    page
}

fn table(section: &dyn Section) -> String {
    let row = |key: &Key| {
        let [default, bounds, docs] =
            [&key.default, &bounds(key), &key.docs].map(|text| text.replace('|', "\\|"));
        format!("| `{}` | `{default}` | {bounds} | {docs} |\n", key.name)
    };
    let rows: String = section.keys().iter().map(row).collect();
    format!("{TABLE_HEAD}{rows}")
}
