//! Names of settings: which ones exist, and which one a person may have meant.

use toml::{Table, Value};

/// Prefix of our environment variables.
pub(super) const PREFIX: &str = "GODWIT_";

/// Variables that `godwit-cli` reads, or that name the configuration itself.
const OTHERS: [&str; 7] = ["CONFIG", "URL", "CA", "USER", "PASSWORD", "ADMIN_URL", "OPERATOR_TOKEN"];

/// Least similarity, from 0 to 1, of a name that is suggested.
const SIMILAR: f64 = 0.6;

/// All keys of a configuration, each as `section.key`.
pub(super) fn keys(schema: &Table) -> Vec<String> {
    let mut keys = Vec::new();
    for (name, value) in schema {
        match value {
            Value::Table(section) => keys.extend(section.keys().map(|key| format!("{name}.{key}"))),
            _ => keys.push(name.clone()),
        }
    }
    keys
}

/// The environment variable that sets a key.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

/// Whether a variable with our prefix is meant for something else: another program of Godwit, its tests, or the links that
/// Kubernetes creates to a service called `godwit` or `godwit-something`.
pub(super) fn is_foreign(variable: &str, value: &str) -> bool {
    let name = variable.strip_prefix(PREFIX).unwrap_or(variable);
    let is_link = |name: &str| {
        let port =
            name.split_once("PORT_").is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()));
        name.contains("SERVICE_HOST")
            || name.contains("SERVICE_PORT")
            || port
            || (name.ends_with("PORT") && value.contains("://"))
    };
    OTHERS.contains(&name) || name.starts_with("TEST_") || is_link(name)
}

/// The known name that a person most likely meant, if one is similar. The separators don't count, and the section may be
/// missing.
pub(super) fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a String> {
    let bare = |name: &str| {
        let name = name.to_ascii_lowercase();
        let name = name.strip_prefix(&PREFIX.to_ascii_lowercase()).unwrap_or(&name).to_owned();
        name.replace(['_', '.', '-'], "")
    };
    let wanted = bare(name);
    let similarity = |known: &str| {
        let whole = strsim::normalized_damerau_levenshtein(&wanted, &bare(known));
        // Without its section, the key alone is compared, and counts a little less.
        let key = known.rsplit(['.']).next().and_then(|key| key.rsplit("__").next()).unwrap_or(known);
        whole.max(0.99 * strsim::normalized_damerau_levenshtein(&wanted, &bare(key)))
    };
    let best = known.iter().map(|known| (similarity(known), known));
    let best = best.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    (best.0 >= SIMILAR).then_some(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested() {
        let known: Vec<String> =
            ["app", "gateway.listen", "gateway.max_body", "db.postgres", "log.level"].map(Into::into).into();
        for (name, meant) in [
            ("gateway.lisen", Some("gateway.listen")),
            ("gateway-listen", Some("gateway.listen")),
            ("listen", Some("gateway.listen")),
            ("db.postgresql", Some("db.postgres")),
            ("gateway.maxbody", Some("gateway.max_body")),
            ("GODWIT_LOG_LEVEL", Some("log.level")),
            ("colour", None),
        ] {
            assert_eq!(nearest(name, &known).map(String::as_str), meant, "{name}");
        }
        assert_eq!(variable("gateway.listen"), "GODWIT_GATEWAY__LISTEN");
    }

    #[test]
    fn variables_of_other_programs_are_no_mistakes() {
        for (variable, value) in [
            ("GODWIT_CONFIG", "godwit.toml"),
            ("GODWIT_URL", "http://127.0.0.1:7450"),
            ("GODWIT_SERVICE_HOST", "10.0.0.1"),
            ("GODWIT_PORT", "tcp://10.0.0.1:7450"),
            ("GODWIT_DB_SERVICE_PORT_7471_TCP_ADDR", "10.0.0.1"),
            ("GODWIT_PUSHER_PORT_7481_TCP", "tcp://10.0.0.1:7481"),
            ("GODWIT_PUSHER_SERVICE_PORT_GRPC", "7481"),
        ] {
            assert!(is_foreign(variable, value), "{variable}");
        }
        for variable in ["GODWIT_LISTEN", "GODWIT_GATEWAY_LISTEN", "GODWIT_PORT"] {
            assert!(!is_foreign(variable, "7450"), "{variable}");
        }
    }
}
