//! What the program prints once it is ready: its addresses, and commands to try.

use std::path::Path;

/// The default of `godwit-cli --url`.
const DEFAULT_URL: &str = "http://127.0.0.1:7450";

/// How to call `godwit-cli` in the place where this program was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cli(String);

impl Cli {
    /// Finds out from the first argument of this process, and whether `cargo run` has started it.
    pub(crate) fn find(program: &Path, is_cargo_run: bool) -> Self {
        let beside = program.with_file_name("godwit-cli");
        Self(match () {
            () if is_cargo_run => "cargo run --release -p godwit-cli --".into(),
            // A program that was found in PATH has no folder in its name.
            () if program.components().count() > 1 && beside.exists() => beside.display().to_string(),
            () => "godwit-cli".into(),
        })
    }

    /// A command line for a server.
    fn command(&self, url: &str, arguments: &str) -> String {
        let Self(program) = self;
        if url == DEFAULT_URL {
            format!("{program} {arguments}")
        } else {
            format!("{program} --url {url} {arguments}")
        }
    }

    /// Commands that register two users and open a chat of each with the other, one per line.
    pub(crate) fn commands(&self, client_url: &str) -> String {
        let lines = ["register alice", "register bob", "--user alice chat bob", "--user bob chat alice"];
        let commands = lines.map(|arguments| format!("  {}\n", self.command(client_url, arguments)));
        format!("try, in two other terminals:\n{}", commands.concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_suit_the_way_the_program_was_started() {
        let folder = tempfile::tempdir().unwrap();
        let (here, installed) = (folder.path().join("godwit"), Path::new("godwit"));
        assert_eq!(Cli::find(&here, false), Cli("godwit-cli".into()), "godwit-cli is not beside it");
        let beside = folder.path().join("godwit-cli");
        std::fs::write(&beside, "").unwrap();
        assert_eq!(Cli::find(&here, false), Cli(beside.display().to_string()));
        assert_eq!(Cli::find(&here, true), Cli("cargo run --release -p godwit-cli --".into()));
        let cli = Cli::find(installed, false);
        let commands = cli.commands(DEFAULT_URL);
        assert_eq!(
            commands,
            "try, in two other terminals:\n  godwit-cli register alice\n  godwit-cli register bob\n  \
             godwit-cli --user alice chat bob\n  godwit-cli --user bob chat alice\n"
        );
        let commands = cli.commands("http://[::1]:7460");
        assert!(commands.contains("\n  godwit-cli --url http://[::1]:7460 register alice\n"), "{commands}");
    }
}
