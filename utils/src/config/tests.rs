use super::*;
use serde::Deserialize;
use std::time::Duration;

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    name: String,
    server: Server,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Server {
    port: u16,
    open: bool,
    #[serde(with = "humantime_serde")]
    idle: Duration,
    buffer: ByteSize,
    peers: Vec<String>,
    token: Secret,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            port: 80,
            open: false,
            idle: Duration::from_secs(5),
            buffer: ByteSize::kib(16),
            peers: vec!["a:1".into()],
            token: Secret::new("preset"),
        }
    }
}

impl Validate for Config {
    fn validate(&self, errors: &mut Vec<String>) {
        if self.server.port == 1 {
            errors.push("server.port: must not be 1".into());
        }
    }
}

fn sources(
    file: &str,
    environment: &[(&str, &str)],
    overrides: &[&str],
) -> (Sources, tempfile::NamedTempFile) {
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), file).unwrap();
    let sources = Sources {
        file: Some(path.path().to_owned()),
        environment: environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        overrides: overrides.iter().map(|text| ("--set".to_owned(), (*text).to_owned())).collect(),
    };
    (sources, path)
}

fn read(
    file: &str,
    environment: &[(&str, &str)],
    overrides: &[&str],
) -> Result<Loaded<Config>, ConfigErrors> {
    let (sources, _file) = sources(file, environment, overrides);
    load(&sources)
}

#[test]
fn without_sources_the_defaults_apply_secrets_included() {
    let config = load::<Config>(&Sources::default()).unwrap().config;
    assert_eq!(config, Config::default());
    assert_eq!(config.server.token.expose(), "preset");
}

#[test]
fn a_later_source_wins() {
    let file = "name = 'file'\n[server]\nport = 1000\nidle = '7s'\nbuffer = '1MiB'";
    let environment =
        [("GODWIT_NAME", "variable"), ("GODWIT_SERVER__PORT", "2000"), ("GODWIT_SERVER__OPEN", "true")];
    let loaded = read(file, &environment, &["server.port=3000", "server.peers=b:2, c:3"]).unwrap();
    let config = loaded.config;
    assert_eq!(config.name, "variable");
    assert_eq!(config.server.port, 3000);
    assert_eq!(config.server.idle, Duration::from_secs(7));
    assert_eq!(read("[server]\nbuffer = 4096", &[], &[]).unwrap().config.server.buffer, ByteSize::kib(4));
    assert_eq!(config.server.buffer, ByteSize::kib(1024));
    assert_eq!(config.server.peers, ["b:2", "c:3"]);
    assert!(config.server.open);
    assert_eq!(loaded.origins["server.open"], "GODWIT_SERVER__OPEN");
    assert_eq!(loaded.origins["server.port"], "--set");
}

#[test]
fn lists_are_toml_or_comma_separated_or_empty() {
    let peers = |text: &str| read("", &[("GODWIT_SERVER__PEERS", text)], &[]).unwrap().config.server.peers;
    assert_eq!(peers("['x', 'y,z']"), ["x", "y,z"]);
    assert_eq!(peers("x,y"), ["x", "y"]);
    assert!(peers("").is_empty());
}

#[test]
fn all_config_errors_are_reported_at_once_with_their_origins() {
    let file = "nmae = 'x'\nserver = { port = 99999, idle = 'soon' }";
    let environment = [
        ("GODWIT_SERVER__BUFFER", "lots"),
        ("GODWIT_SERVER__COLOUR", "red"),
        ("GODWIT_NOTHING_OF_OURS", "1"),
    ];
    let overrides = ["server.open=maybe", "server=1", "what", "server.token=file:/nonexistent/token"];
    let errors = read(file, &environment, &overrides).unwrap_err();
    let text = errors.to_string();
    assert_eq!(errors.sentences().len(), 9, "{text}");
    assert_eq!(text.lines().count(), 9, "{text}");
    for (origin, part) in [
        ("/", "nmae: unknown key; the keys here are name, server"),
        ("/", "server.port: "),
        ("/", "server.idle: "),
        ("GODWIT_SERVER__BUFFER", "the default is \"16KiB\""),
        ("GODWIT_SERVER__COLOUR", "server.colour: unknown key; the keys in this section are"),
        ("--set", "server.open: "),
        ("--set", "server: is a section"),
        ("--set", "'what' must be section.key=value"),
        ("--set", "cannot read the file /nonexistent/token"),
    ] {
        assert!(
            text.lines().any(|line| line.starts_with(origin) && line.contains(part)),
            "{part} not in\n{text}"
        );
    }
}

#[test]
fn errors_of_valid_values_name_the_origin() {
    let errors = read("", &[("GODWIT_SERVER__PORT", "1")], &["name.x=1"]).unwrap_err();
    assert_eq!(errors.sentences().len(), 2, "{errors}");
    assert!(errors.to_string().contains("GODWIT_SERVER__PORT: server.port: must not be 1"));
}

#[test]
fn an_error_in_toml_names_file_and_line() {
    let errors = read("name = 'x'\n[server\n", &[], &[]).unwrap_err();
    assert!(errors.to_string().contains("line 2: not TOML"), "{errors}");
    let missing = Sources { file: Some("/nonexistent/godwit.toml".into()), ..Sources::default() };
    assert!(load::<Config>(&missing).unwrap_err().to_string().contains("cannot read the file"));
}

#[test]
fn p8_a_config_error_does_not_show_a_secret() {
    let errors = read("[server]\ntoken = 12345", &[], &["server.token=hunter2", "server.token.x=hunter2"])
        .unwrap_err();
    assert_eq!(errors.sentences().len(), 2, "{errors}");
    assert!(!errors.to_string().contains("hunter2"));
    assert!(!errors.to_string().contains("12345"));
    assert!(!errors.to_string().contains("preset"));
}

#[test]
fn p8_a_secret_in_place_of_a_list_is_not_shown() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "[auth]\nkeys = 'hunter2'").unwrap();
    let sources = Sources { file: Some(file.path().into()), ..Sources::default() };
    let errors = load::<abi::config::Config>(&sources).unwrap_err();
    assert!(errors.to_string().contains("auth.keys: must be a list"), "{errors}");
    assert!(!errors.to_string().contains("hunter2"), "{errors}");
}

#[test]
fn an_error_about_a_strange_key_is_one_short_line() {
    let file = format!("\"{}\\n\\u001b[31m\" = 1", "k".repeat(5_000));
    let errors = read(&file, &[], &["a\nb=1", "a\nb"]).unwrap_err();
    for sentence in errors.sentences() {
        assert!(sentence.len() < 1_000 && !sentence.contains(char::is_control), "{sentence:?}");
    }
}

#[test]
fn the_configuration_of_the_programs_loads() {
    let environment = [("GODWIT_APP".to_owned(), "shop".to_owned())].into();
    let loaded = load::<abi::config::Config>(&Sources { environment, ..Sources::default() }).unwrap();
    assert_eq!(loaded.config.app, "shop");
    let overrides = vec![("--set".to_owned(), "log.level=a=b=c".to_owned())];
    let errors = load::<abi::config::Config>(&Sources { overrides, ..Sources::default() }).unwrap_err();
    assert!(errors.to_string().starts_with("--set: log.level: "), "{errors}");
}

#[test]
fn variables_that_set_nothing_are_named_with_the_nearest_setting() {
    let environment = [
        ("GODWIT_SERVER_PORT", "2000"),
        ("GODWIT_BUFFER", "1KiB"),
        ("GODWIT_WHATEVER_ELSE", "1"),
        ("GODWIT_CONFIG", "godwit.toml"),
        ("OTHER_SERVER_PORT", "1"),
    ];
    let warnings = read("", &environment, &[]).unwrap().warnings.join("\n");
    assert_eq!(warnings.lines().count(), 3, "{warnings}");
    for part in [
        "GODWIT_SERVER_PORT: no setting has this name, so it has no effect; did you mean GODWIT_SERVER__PORT?",
        "GODWIT_BUFFER: no setting has this name, so it has no effect; did you mean GODWIT_SERVER__BUFFER?",
        "GODWIT_WHATEVER_ELSE: no setting has this name, so it has no effect",
    ] {
        assert!(warnings.contains(part), "{part} is not in {warnings}");
    }
    let errors = read("", &[], &["server.prot=1"]).unwrap_err().to_string();
    assert!(errors.ends_with("did you mean server.port?"), "{errors}");
}
