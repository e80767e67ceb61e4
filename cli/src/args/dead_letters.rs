//! The arguments of `dead-letters`.

use clap::{Args as ClapArgs, Subcommand};
use std::path::PathBuf;

/// The admin server of a program, and the credentials for it.
#[derive(Clone, Debug, ClapArgs)]
pub struct OperatorArgs {
    /// Admin address of a `consumer` (default port 7469) or of `godwit`.
    #[arg(
        long,
        global = true,
        env = "GODWIT_ADMIN_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:7459"
    )]
    pub admin: String,
    /// The operator token, or `file:PATH`. Default: the token in the data folder.
    #[arg(long, global = true, env = "GODWIT_OPERATOR_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Data folder of `godwit`, which holds the token.
    #[arg(long, global = true, value_name = "FOLDER", default_value = "godwit-data")]
    pub data: PathBuf,
}

/// An action on dead letters.
#[derive(Clone, Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// List dead letters, oldest first, without the text of messages.
    List {
        /// Maximum number of dead letters.
        #[arg(long, short = 'n', default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        /// Only dead letters after this one.
        #[arg(long, value_name = "ID")]
        after: Option<String>,
        /// Which dead letters.
        #[command(flatten)]
        filter: LetterFilter,
    },
    /// Show the details of a dead letter.
    Show {
        /// Id of the dead letter, such as 0-17.
        id: String,
        /// Also show its body.
        #[arg(long)]
        body: bool,
    },
    /// Process dead letters again, after the records that follow them. A record that fails again becomes a new dead letter.
    Replay {
        /// Ids of dead letters.
        #[arg(required_unless_present_any = ["all", "reason", "conversation"], conflicts_with_all = ["all", "reason", "conversation"])]
        ids: Vec<String>,
        /// Replay all dead letters.
        #[arg(long, conflicts_with_all = ["reason", "conversation"])]
        all: bool,
        /// Which dead letters.
        #[command(flatten)]
        filter: LetterFilter,
    },
    /// Delete dead letters permanently.
    Drop {
        /// Ids of dead letters.
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

/// Selects dead letters.
#[derive(Clone, Debug, Default, ClapArgs)]
pub struct LetterFilter {
    /// Only dead letters whose reason contains this text.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Only dead letters of this conversation, `g:...` or `d:...`.
    #[arg(long, value_name = "ID")]
    pub conversation: Option<String>,
}
