//! `docs/configuration.md` is made of `deploy/godwit.toml`, which is held against the structs by `shipped_config.rs`.

use std::{env, fmt::Write as _, fs, path::Path};

const SHIPPED: &str = include_str!("../../deploy/godwit.toml");
const HEAD: &str = "\
# Configuration

Every key of every program, with its default. This page is made of [deploy/godwit.toml](../deploy/godwit.toml), and a test holds that
against the code.

All programs read the same configuration and take what concerns them. Later ones win: the defaults, a file (`--config FILE` or
`GODWIT_CONFIG`), the environment (`GODWIT_SECTION__KEY`, such as `GODWIT_GATEWAY__LISTEN`), the command line (`--set
section.key=value`). `--check-config` prints the outcome without secrets, or all that is wrong with it at once. A key that does
not exist is refused, and so is a value that makes no sense; the program then ends with exit code 64.

- Times are written `500ms`, `5s`, `15m`, `1day`; sizes `512B`, `16KiB`, `1MiB`.
- Lists are TOML lists, or text with commas in the environment and on the command line.
- An empty text means \"not set\".
- Secrets may be `file:PATH`: then they are read from that file, without the white space at its end. They are never shown.

A change needs a restart; every program may be restarted at any time.
";

/// The page, section by section in the order of the file.
fn page() -> String {
    let mut page = HEAD.to_owned();
    let (mut said, mut first) = (Vec::new(), true);
    let lines = SHIPPED.lines().skip_while(|line| !line.is_empty());
    for line in lines {
        if let Some(comment) = line.strip_prefix("# ") {
            said.push(comment);
        } else if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            write!(page, "\n## `[{section}]`\n\n{}\n\n{TABLE}", said.join(" ")).expect("text grows");
            (said, first) = (Vec::new(), false);
        } else if let Some((key, value)) = line.split_once(" = ") {
            if first {
                write!(page, "\n## Outside of all sections\n\n{TABLE}").expect("text grows");
                first = false;
            }
            let (value, meaning) = (value.replace('|', "\\|"), said.join(" ").replace('|', "\\|"));
            writeln!(page, "| `{key}` | `{value}` | {meaning} |").expect("text grows");
            said.clear();
        }
    }
    page
}

const TABLE: &str = "| key | default | |\n|---|---|---|\n";

#[test]
fn the_page_of_the_configuration_is_what_the_shipped_file_says() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    if env::var_os("GODWIT_WRITE_DOCS").is_some() {
        fs::write(&file, page()).expect("docs/configuration.md can be written");
    }
    let written = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        written == page(),
        "docs/configuration.md is not what deploy/godwit.toml says; this writes it anew:\n  \
         GODWIT_WRITE_DOCS=1 cargo test -p abi --test configuration_page"
    );
}

#[test]
fn the_page_has_every_key() {
    let rows = page().lines().filter(|line| line.starts_with("| `")).count();
    let keys = SHIPPED.lines().filter(|line| !line.starts_with('#') && line.contains(" = ")).count();
    assert_eq!(rows, keys);
}
